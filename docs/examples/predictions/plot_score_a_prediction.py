"""
How do I score predictions that are arrays?
===========================================

The picture shows the scores of all neurons, for a "model" that predicts the mean response to the other repeats of the
same movie. Predictions of any model can be scored in this way.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd

store = sd.sample_store()  # the path of what sd.load_sample() opens
session = sd.load_sample()["E"].to_dataset()

# %%
# One array (neurons, frames) for each trial of the oracle tier, in the units of the recorded responses.

oracle = session.sensorium.select(tier="oracle")
arrays = {}
for trial in oracle.trial.values:
    n_frames = int(oracle.n_frames.sel(trial=trial))
    repeats = oracle.sensorium.repeats(str(oracle.movie.sel(trial=trial).values))
    others = repeats.responses.sel(trial=repeats.trial != trial).mean("trial")
    arrays[int(trial)] = others.values[:, :n_frames]

# %%
# :func:`sensorium_data.from_arrays` writes a predictions store, and :func:`sensorium_data.score_predictions` scores it
# in the competition's units. No model that sees only the video can be expected to do much better than this one: its
# score is the oracle correlation, which the table has beside every score.

predictions = str(Path(tempfile.mkdtemp(), "predictions"))
sd.from_arrays(predictions, store, {"E": arrays}, response_units="raw")
table = sd.score_predictions(predictions, store, tiers=["oracle"])
table.rows[["alias", "tier", "n_trials", "single_trial_correlation", "oracle_correlation"]].round(3)

# %%
# The scores of single neurons. The first 50 frames of each trial are not scored.

neurons = table.per_neuron("E", "oracle")
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.hist(neurons["single_trial_correlation"], bins=np.linspace(-0.2, 1, 25), color="#0072B2")
axes.set(xlabel="single-trial correlation", ylabel="neurons", title="simulated session E, tier oracle")
plt.show()
