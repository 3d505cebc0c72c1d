"""What a pipeline came to, on one page: the artifact of its own run, with the zips, scores and checks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.reporting.artifacts import publish_markdown
from flows.reporting.file_links import FileLinks
from flows.reporting.pace import format_duration, format_size
from flows.reporting.quality_artifacts import find_checks, tabulate_checks
from flows.reporting.summaries import join_ends
from flows.watching import report
from sensorium_data.counting import count_things
from sensorium_data.markdown import quote_code, write_table
from sensorium_data.scoring import join_withheld
from sensorium_data.visible_text import make_visible

if TYPE_CHECKING:
    from models.training import TrainingReport
    from sensorium_data.ingest import ConversionReport
    from sensorium_data.scoring import ScoreTable
    from sensorium_data.submission import SubmissionReport

__all__ = ["KEY", "Recipe", "publish_result"]

#: The artifact's key.
KEY = "pipeline-result"

# The page shows tables of about a hundred characters a line without moving them to the side.
_SCORES = {
    "single_trial_correlation": "Single-trial correlation",
    "correlation_to_average": "Correlation to average",
}
# Score over ceiling. What a simulation knows comes first; a column is shown where it is known.
_SHARES = {
    "fraction_of_ceiling": "Share of ceiling",
    "fraction_of_oracle": "Share of oracle",
    "fraction_of_attainable": "Share of attainable",
}


@dataclass(frozen=True)
class Recipe:
    """What was asked of a training.

    Attributes
    ----------
    preset : str
        Its name.
    settings : mapping of str to object
        What differs from it, by dotted name.
    """

    preset: str
    settings: Mapping[str, object]


def publish_result(
    *,
    store: str,
    predictions: str,
    recipe: Recipe,
    ingested: Sequence[ConversionReport],
    trained: TrainingReport,
    scores: ScoreTable,
    submissions: Sequence[SubmissionReport],
) -> None:
    """Publish what the present run of the pipeline came to.

    Parameters
    ----------
    store, predictions : str
        Roots of the session stores and of the predictions.
    recipe : Recipe
        What was trained.
    ingested, trained, scores, submissions
        What each step reported.
    """
    links = FileLinks.from_settings()
    parts = [
        f"**{_judge(submissions)}**",
        *([f"**{scores.describe_simulated()}.**"] if scores.simulated else []),
        "### Zips to upload",
        write_table(["Track", "Zip", "Size", "Rows"], list(_tabulate_zips(submissions))),
        _list_places([(Path(file.path).name, file.path) for one in submissions for file in one.files], links),
        "SHA-256 of each:",
        _list_digests(submissions),
        "### Recipe",
        _describe_recipe(recipe, trained),
        "### Scores",
        f"Correlations, with intervals of {scores.bootstrap.confidence:.0%}:",
        _tabulate_scores(scores),
        *_tabulate_shares(scores),
        *_list_notes([*(f"not scored: {one}" for one in join_withheld(scores.unscored)), *map(str, scores.doubts)]),
        "### Checks of the zips",
        write_table(["Track", "Checks", "Violations", "Warnings"], list(_tabulate_checks(submissions))),
        *_list_notes(f"{one.track}: {note}" for one in submissions for note in (*one.notes, *one.validation.warnings)),
    ]
    sizes = format_size(sum(one.store_size_bytes for one in ingested))
    places = [
        "### Where everything is",
        _list_places(
            [
                *((f"model card, {one.track}", one.card) for one in submissions),
                ("predictions", predictions),
                (f"training run, {trained.status}", trained.run),
                (f"session stores, {sizes} in {count_things(len(ingested), 'session')}", store),
            ],
            links,
            folders={predictions, trained.run, store},
        ),
    ]
    aliases = {one.alias for one in ingested}

    def publish() -> None:
        quality = ["### Checks of the sessions", tabulate_checks(find_checks(store), aliases)]
        text = "\n\n".join([*parts, *quality, *places])
        publish_markdown(KEY, text, f"Result of the pipeline for `{trained.run}`", signed=links.signed)

    # The sessions' checks are read from the server.
    report(publish)


def _judge(submissions: Sequence[SubmissionReport]) -> str:
    n_zips = sum(len(one.files) for one in submissions)
    n_violations = sum(len(one.validation.violations) for one in submissions)
    found = count_things(n_violations, "violation") if n_violations else "no violation"
    n_warnings = sum(len(one.validation.warnings) for one in submissions)
    warned = f", {count_things(n_warnings, 'warning')}: see the checks" if n_warnings else ""
    return f"{count_things(n_zips, 'zip')} to upload, {found} found by the validator{warned}"


def _tabulate_zips(submissions: Iterable[SubmissionReport]) -> Iterator[Sequence[object]]:
    for one in submissions:
        for file in one.files:
            yield one.track, Path(file.path).name, format_size(file.size_bytes), f"{file.n_rows:,}"


def _list_digests(submissions: Iterable[SubmissionReport]) -> str:
    return "\n".join(f"- {Path(file.path).name}: `{file.sha256}`" for one in submissions for file in one.files)


def _describe_recipe(recipe: Recipe, trained: TrainingReport) -> str:
    """Return a line for each thing that there is to know of how the model was trained."""
    changed = ", ".join(quote_code(f"{name}={_show_setting(value)}") for name, value in recipe.settings.items())
    best = trained.best_epoch or "none beat the model as it was before training"
    return "\n".join(
        [
            f"- preset: {quote_code(recipe.preset)}",
            f"- settings that differ from it: {changed or 'none'}",
            f"- epochs trained: {trained.n_epochs}",
            f"- best epoch: {best}",
            f"- validation correlation: {_number(trained.best_correlation)}",
            f"- duration of the training: {format_duration(trained.duration_s)}",
        ]
    )


def _show_setting(value: object) -> str:
    """Write a setting as `--set` takes it."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(_show_setting, value))
    return "none" if value is None else str(value)


def _tabulate_checks(submissions: Iterable[SubmissionReport]) -> Iterator[Sequence[object]]:
    for one in submissions:
        found = one.validation
        yield one.track, len(found.checks), len(found.violations), len(found.warnings)


def _tabulate_scores(scores: ScoreTable) -> str:
    frame = scores.to_frame()
    whole = frame[frame["stimulus"] == "all"]
    columns = {"Session": list(whole["alias"]), "Tier": list(whole["tier"]), "Trials": list(whole["n_trials"])}
    for name, heading in _SCORES.items():
        ends = (f" ({one})" if one else "" for one in join_ends(whole, name))
        columns[heading] = [f"{_number(score)}{interval}" for score, interval in zip(whole[name], ends, strict=True)]
    return write_table(list(columns), list(zip(*columns.values(), strict=True)))


def _tabulate_shares(scores: ScoreTable) -> Iterator[str]:
    """Yield a table of its own, if a ceiling is known: beside the scores it would be wider than the page."""
    frame = scores.to_frame()
    whole = frame[frame["stimulus"] == "all"]
    known = {heading: whole[name] for name, heading in _SHARES.items() if whole[name].notna().any()}
    if known:
        columns = {"Session": list(whole["alias"]), "Tier": list(whole["tier"])}
        for heading, shares in known.items():
            columns[heading] = ["" if share != share else f"{share:.0%}" for share in shares]
        yield "Of what could be reached; ceiling and oracle: the single-trial correlation, attainable: that to average:"
        yield write_table(list(columns), list(zip(*columns.values(), strict=True)))


def _number(score: float) -> str:
    return "" if score != score else f"{score:z.3f}"


def _list_places(places: Iterable[tuple[str, str]], links: FileLinks, folders: Collection[str] = ()) -> str:
    """Return a line for each file or folder: what it is, where, and a link if one would open."""
    return "\n".join(f"- {make_visible(what)}: {links.show(at, is_folder=at in folders)}" for what, at in places)


def _list_notes(notes: Iterable[str]) -> Iterator[str]:
    """Yield a list, if there is anything to note."""
    lines = [f"- {make_visible(note)}" for note in notes]
    if lines:
        yield "\n".join(lines)
