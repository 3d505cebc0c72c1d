"""
How do I compare a prediction with the responses?
=================================================

The picture shows a neuron's responses to the repeats of a movie, their average, and the prediction of a linear model.
"""

import tempfile
from pathlib import Path

import numpy as np

import sensorium_data as sd

store = sd.sample_store()  # the path of what sd.load_sample() opens
session = sd.load_sample()["E"].to_dataset()

# %%
# The model sees 9 x 16 pixels of the last frames, and of those 2, 4 and 6 frames before. Its weights are those of a
# ridge regression, fitted to the training trials. Arrays of your model take its place.


def read_pixels(block):
    """Return the input of each frame of a trial: (time, pixels of all lags)."""
    pixels = block.videos.coarsen(height=4, width=4).mean().values.reshape(block.sizes["time"], -1) / 255 - 0.3
    lagged = [np.pad(pixels, ((lag, 0), (0, 0)))[: len(pixels)] for lag in (0, 2, 4, 6)]
    return np.concatenate([*lagged, np.ones((len(pixels), 1))], axis=1)


train = [session.sensorium.trial_block(int(trial)) for trial in session.sensorium.select(tier="train").trial]
inputs = np.concatenate([read_pixels(block) for block in train])
responses = np.concatenate([block.responses.values.T for block in train])
weights = np.linalg.solve(inputs.T @ inputs + 100 * np.eye(inputs.shape[1]), inputs.T @ responses)

oracle = session.sensorium.select(tier="oracle")
arrays = {}
for trial in oracle.trial.values:
    predicted = read_pixels(session.sensorium.trial_block(int(trial))) @ weights
    arrays[int(trial)] = np.maximum(predicted, 0).T

# %%
# :func:`sensorium_data.from_arrays` writes a predictions store, with the labels of the session, and
# :func:`sensorium_data.open_predictions` opens it.

path = str(Path(tempfile.mkdtemp(), "predictions"))
sd.from_arrays(path, store, {"E": arrays}, response_units="raw")
predictions = sd.open_predictions(path, "E")
print(dict(predictions.predictions.sizes))

# %%
# :meth:`plot_neuron <sensorium_data.explore.SensoriumAccessor.plot_neuron>` draws the mean prediction over the repeats
# of a movie. The neuron shown is the best predicted one of 80: most are predicted worse.

scores = sd.score_predictions(path, store, tiers=["oracle"]).per_neuron("E", "oracle")
neuron = int(scores.single_trial_correlation.idxmax())
axes = session.sensorium.plot_neuron(neuron, predictions=predictions)
