"""
How do I train a model of my own?
=================================

The picture shows how the loss of a small torch model falls during training, and how its correlation with responses that
it was not trained on rises.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import models
import sensorium_data as sd

store = sd.sample_store()  # the path of what sd.load_sample() opens
session = sd.load_sample()["E"].to_dataset()
torch.manual_seed(0)
torch.set_num_threads(1)

# %%
# The model pools the video to 6 x 8 pixels and takes the last 8 frames for each response. Its input is the layout
# ``starter-kit``: the video, running speed and pupil dilation, as channels.

n_frames, n_lags = 60, 8
model = nn.Sequential(
    nn.AvgPool3d((1, 6, 8)),
    nn.ConstantPad3d((0, 0, 0, 0, n_lags - 1, 0), 0.0),  # gray before the video
    nn.Conv3d(3, session.sizes["neuron"], (n_lags, 6, 8)),
    nn.Flatten(2),
    nn.Softplus(),
)

# %%
# :class:`models.WindowDataset` gives batches of windows, and :func:`models.iter_trials` whole trials. The loss is
# Poisson's, as in the competition's baselines.

windows = models.WindowDataset(sd.window_batches(store, sessions=["E"], n_frames=n_frames, batch_size=8, seed=0))
oracle = list(models.iter_trials(store, ["E"], ["oracle"]))
recorded = [session.responses.sel(trial=trial.trials[0]).values for trial in oracle]
criterion = nn.PoissonNLLLoss(log_input=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, weight_decay=0.1)


def correlate() -> float:
    """Return the mean over neurons of the correlation with the responses, from frame 50 on."""
    with torch.inference_mode():
        predicted = [model(trial.videos)[0].numpy() for trial in oracle]
    pairs = [(one[:, 50:], two[:, 50 : one.shape[1]]) for one, two in zip(predicted, recorded)]
    joined = [np.concatenate(part, axis=1) for part in zip(*pairs)]
    return float(np.mean([np.corrcoef(one, two)[0, 1] for one, two in zip(*joined)]))


losses, correlations = [], [correlate()]
for _ in range(12):
    for batch in windows:
        optimizer.zero_grad()
        loss = criterion(model(batch.videos), batch.responses)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    correlations.append(correlate())

# %%
# The responses are simulated, so the correlation says nothing about recordings. :doc:`Training </docs/training>`
# has the presets, and runs that continue where they stopped.

figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3), layout="constrained")
left.plot(losses, color="#0072B2")
left.set(xlabel="batch", ylabel="Poisson loss", title="training")
right.plot(correlations, color="#D55E00", marker="o")
right.set(xlabel="epoch", ylabel="correlation", title="oracle trials, not trained on")
plt.show()
