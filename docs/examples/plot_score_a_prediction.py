"""
Score predictions that are arrays
=================================

Predictions of any model can be scored: here those of a "model" that predicts the mean response to the other repeats of
the same movie. No model that only sees the video can be expected to do much better.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd
from sensorium_data.ingest import convert_session

# %%
# A small simulated session.

folder = Path(tempfile.mkdtemp())
store = str(folder / "store")
session = sd.find_session("F")
sd.simulate(folder / "archives", sessions=[session], n_trials=40, n_neurons=60, seed=1)
report = convert_session(session, store, source=str(folder / "archives"))
recording = sd.open_session(store, "F")

# %%
# One array (neurons, frames) for each trial of the oracle tier, in the units of the recorded responses.

oracle = recording.sensorium.select(tier="oracle")
arrays = {}
for trial in oracle.trial.values:
    n_frames = int(oracle.n_frames.sel(trial=trial))
    repeats = oracle.sensorium.repeats(str(oracle.movie.sel(trial=trial).values))
    others = repeats.responses.sel(trial=repeats.trial != trial).mean("trial")
    arrays[int(trial)] = others.values[:, :n_frames]

# %%
# :func:`sensorium_data.from_arrays` writes a predictions store, and :func:`sensorium_data.score_predictions` scores it
# in the competition's units.

predictions = folder / "predictions"
sd.from_arrays(str(predictions), store, {"F": arrays}, response_units="raw")
table = sd.score_predictions(str(predictions), store, tiers=["oracle"])
columns = ["session", "tier", "n_trials", "single_trial_correlation", "correlation_to_average"]
print(
    table.rows[columns]
    .round(3)
    .to_string(index=False, formatters={"session": lambda name: sd.find_session(name).alias})
)

# %%
# The scores of single neurons differ more than those of models.

neurons = table.per_neuron("F", "oracle")
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.hist(neurons["single_trial_correlation"], bins=np.linspace(-0.2, 1, 25), color="#0072B2")
axes.set(xlabel="single-trial correlation", ylabel="neurons", title="simulated session F, tier oracle")
plt.show()
