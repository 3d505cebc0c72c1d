"""
How do I compute over all trials in bounded memory?
===================================================

The picture shows the mean video of a session and how much each pixel varies, computed with dask without ever holding
all videos in memory.
"""

import dask
import matplotlib.pyplot as plt

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# Variables are lazy. Each trial is a chunk of the store, so a reduction reads a few trials at the same time. A
# recording has about 700 trials, 2 GB of video and 7 GB of responses.

videos = session.videos
print(
    f"{videos.nbytes / 1e6:.0f} MB in {videos.data.npartitions} chunks of {videos.data.blocks[0].nbytes / 1e6:.1f} MB"
)

# %%
# Ask for several results in one call: each trial is then read once. ``num_workers`` limits how many trials are in
# memory at once. Frames past a trial's end are NaN, and xarray's reductions skip them.

mean, deviation = dask.compute(
    videos.mean(("trial", "time")), videos.std(("trial", "time")), scheduler="threads", num_workers=2
)

# %%
# The accessor's measures, such as :meth:`stimulus_means <sensorium_data.explore.SensoriumAccessor.stimulus_means>`,
# read in the same way. See :doc:`Exploring </docs/exploring>`.

figure, both = plt.subplots(1, 2, figsize=(7.5, 2.6), layout="constrained")
for axes, values, title in zip(both, (mean, deviation), ("mean", "standard deviation")):
    image = axes.imshow(values, cmap="cividis")
    axes.set(xticks=[], yticks=[], title=title)
    figure.colorbar(image, ax=axes, label="luminance (0-255)")
figure.suptitle("videos of simulated session E")
plt.show()
