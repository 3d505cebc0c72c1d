"""
Which of two predictors is better?
==================================

The picture shows the scores of two simple predictors on the same trials, and their difference with its paired interval.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd
from sensorium_data.scoring import compare_predictions

store = sd.sample_store()  # the path of what sd.load_sample() opens
session = sd.load_sample()["E"].to_dataset()

# %%
# One predictor lets all neurons follow the running speed. The other one takes each neuron's mean response to the other
# repeats of the movie.

oracle = session.sensorium.select(tier="oracle")
neurons = np.ones(session.sizes["neuron"])
running, repeated = {}, {}
for trial in oracle.trial.values:
    block = oracle.sensorium.trial_block(int(trial))
    running[int(trial)] = np.outer(neurons, 0.01 + block.behavior.sel(behavior_channel="running_speed"))
    repeats = oracle.sensorium.repeats(str(block.movie.values))
    others = repeats.responses.sel(trial=repeats.trial != trial).mean("trial")
    repeated[int(trial)] = others.values[:, : block.sizes["time"]]

folder = Path(tempfile.mkdtemp())
entries = {"running": running, "repeats": repeated}
for name, arrays in entries.items():
    sd.from_arrays(folder / name, store, {"E": arrays}, response_units="raw")

# %%
# :func:`sensorium_data.scoring.compare_predictions` ranks them. Differences are computed on the same resampled trials,
# so what makes a trial hard for both does not blur who is better. An interval that holds 0 is a tie.

board = compare_predictions([str(folder / name) for name in entries], store, tiers=["oracle"], reference="first")
rows = board.rows[(board.rows.aggregation == "E") & (board.rows.stimulus == "all")]
rows = rows.set_index("entry")
rows[["rank", "n_trials", "single_trial_correlation", "single_trial_correlation_difference"]].round(3)

# %%

columns = {"single_trial_correlation": "single-trial correlation"}
columns["single_trial_correlation_difference"] = "difference to running"
figure, both = plt.subplots(1, 2, figsize=(7, 2.4), sharey=True, layout="constrained")
for axes, (column, label) in zip(both, columns.items()):
    axes.hlines(rows.index, rows[f"{column}_low"], rows[f"{column}_high"], color="#0072B2", linewidth=2)
    axes.plot(rows[column], rows.index, "o", color="#0072B2")
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set(xlabel=label, ylim=(-0.6, 1.6))
figure.suptitle("simulated session E, tier oracle; lines: 95% intervals")
plt.show()
