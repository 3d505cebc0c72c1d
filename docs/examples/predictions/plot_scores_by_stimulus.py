"""
On which stimuli does a predictor do well?
==========================================

The picture shows the score of a simple predictor for each tier and class of stimulus, with bootstrap intervals, and the
score that the mean of all other repeats reaches.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd

store = sd.sample_store()  # the path of what sd.load_sample() opens
session = sd.load_sample()["E"].to_dataset()

# %%
# The predictor is the response to one other repeat of the same movie: the next one, and for the last one the first.

tested = session.sensorium.select(tier=["oracle", "test"])
arrays = {}
for movie in np.unique(tested.movie):
    repeats = tested.sensorium.repeats(str(movie))
    responses = repeats.responses.values[:, :, : int(repeats.n_frames.min())]
    arrays |= dict(zip(repeats.trial.values.tolist(), np.roll(responses, -1, axis=0)))

predictions = str(Path(tempfile.mkdtemp(), "next-repeat"))
sd.from_arrays(predictions, store, {"E": arrays}, response_units="raw")

# %%
# :func:`sensorium_data.score_predictions` scores by session, tier and stimulus. Intervals resample trials, not frames,
# because neighboring frames are not independent. With 6 to 9 trials they are rough.

rows = sd.score_predictions(predictions, store).rows
is_part = rows.tier.str.endswith("bonus") == (rows.stimulus != "all")  # bonus tiers by class, the others as a whole
rows = rows[is_part].reset_index(drop=True)
rows[["tier", "stimulus", "n_trials", "single_trial_correlation", "oracle_correlation"]].round(3)

# %%

figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
score = rows.single_trial_correlation
low, high = rows.single_trial_correlation_low, rows.single_trial_correlation_high
axes.hlines(rows.index, low, high, color="#0072B2", linewidth=2)
axes.plot(score, rows.index, "o", color="#0072B2", label="one other repeat")
axes.plot(rows.oracle_correlation, rows.index, "d", color="#D55E00", label="mean of all other repeats")
axes.axvline(0, color="0.6", linewidth=0.8)
axes.set(yticks=rows.index, yticklabels=rows.tier + ", " + rows.stimulus, xlabel="single-trial correlation")
axes.set(title="simulated session E; lines: 95% intervals")
axes.invert_yaxis()
figure.legend(loc="outside lower center", ncols=2)
plt.show()
