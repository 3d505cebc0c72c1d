"""
What do the stimuli look like?
==============================

The picture shows frames of each class of stimulus in the session. Training uses natural videos. The bonus tiers show
other classes, to test whether a model generalizes.
"""

import matplotlib.pyplot as plt

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# The first trial of each class, and 5 frames of it. Frames have 36 x 64 pixels, and each pixel is a real number from 0
# to 255.

classes = list(dict.fromkeys(session.stimulus.values))
times_s = [1, 2, 3, 4, 5]
figure, grid = plt.subplots(len(classes), len(times_s), figsize=(7, 3.6), layout="constrained")
for row, stimulus in zip(grid, classes):
    trial = session.sensorium.select(stimulus=stimulus).trial[0].item()
    frames = session.videos.sel(trial=trial).sel(time=times_s, method="nearest").compute()
    for axes, frame in zip(row, frames):
        axes.imshow(frame, cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(stimulus, fontsize="small")
for axes, time_s in zip(grid[0], times_s):
    axes.set_title(f"{time_s} s", fontsize="small")
plt.show()

# %%
# The archives do not say which class a trial shows. ``stimulus`` was found by ``sensorium ingest``. The videos here are
# simulated, and natural videos are only imitated. For one trial in more frames, call
# :meth:`plot_frames <sensorium_data.explore.SensoriumAccessor.plot_frames>`.
