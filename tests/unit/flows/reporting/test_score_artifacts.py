"""What has changed since the last scores."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flows.reporting.score_artifacts import add_changes


def rows(**scores: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "alias": name,
                "tier": "oracle",
                "stimulus": "all",
                "single_trial_correlation": score,
                "correlation_to_average": 2 * score,
            }
            for name, score in scores.items()
        ]
    )


def test_each_score_has_its_difference_beside_it() -> None:
    changed = add_changes(rows(F=0.5, G=0.25, H=0.1), rows(G=0.5, F=0.25))
    assert list(changed.columns)[3:] == [
        "single_trial_correlation",
        "single_trial_correlation_change",
        "correlation_to_average",
        "correlation_to_average_change",
    ]
    np.testing.assert_allclose(changed["single_trial_correlation_change"], [0.25, -0.25, np.nan])
    np.testing.assert_allclose(changed["correlation_to_average_change"], [0.5, -0.5, np.nan])


def test_tables_of_other_versions_and_repeated_rows_are_no_error() -> None:
    old = rows(F=0.25).drop(columns="correlation_to_average")
    changed = add_changes(rows(F=0.5), pd.concat([old, old]))
    np.testing.assert_allclose(changed["single_trial_correlation_change"], [0.25])
    assert changed["correlation_to_average_change"].isna().all()
    empty = add_changes(rows(F=0.5), pd.DataFrame())
    assert empty["single_trial_correlation_change"].isna().all()
