"""
What does a batch of training windows hold?
===========================================

The picture shows a batch as a model gets it from a PyTorch ``DataLoader``: a frame of each window, and the responses of
some neurons.
"""

import matplotlib.pyplot as plt
from torch.utils.data import DataLoader

import models
import sensorium_data as sd

tree = sd.load_sample()  # makes the sample when it is first needed
print(", ".join(one.alias for one in tree.sensorium.sessions))

# %%
# :func:`sensorium_data.window_batches` cuts windows at random places of the training trials. The same seed gives the
# same batches, whatever the number of threads. ``competition`` divides responses as the competition does.

batches = sd.window_batches(
    sd.sample_store(), sessions=["E"], n_frames=80, batch_size=4, normalization="competition", seed=1
)

# %%
# :class:`models.WindowDataset` gives PyTorch the same batches. Threads read ahead, so the loader takes no workers.

loader = DataLoader(models.WindowDataset(batches), batch_size=None)
batch = next(iter(loader))
print("videos", tuple(batch.videos.shape), "responses", tuple(batch.responses.shape))

# %%
# Videos are standardized, so black is not zero. The layout ``starter-kit`` adds running speed and pupil dilation as
# channels, and the pupil's position comes as ``pupil_center``.

windows = len(batch.videos)
figure, grid = plt.subplots(2, windows, figsize=(8, 3.2), height_ratios=(1, 1.2), layout="constrained")
for window, (above, below) in enumerate(grid.T):
    above.imshow(batch.videos[window, 0, 40].numpy(), cmap="gray")
    above.set(xticks=[], yticks=[], title=f"window {window}, frame 40")
    shown = batch.responses[window, :40].numpy()
    below.imshow(shown, aspect="auto", cmap="cividis", vmin=0, vmax=4, interpolation="nearest")
    below.set(xlabel="frame", yticks=[])
    above.title.set_fontsize("small")
grid[1, 0].set_ylabel("40 neurons")
figure.colorbar(grid[1, -1].images[0], ax=grid[1], label="response\n(standardized)")
plt.show()
