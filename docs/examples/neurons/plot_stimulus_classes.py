"""
Does a neuron prefer a class of stimulus?
=========================================

The picture shows the mean response of each neuron to each class of stimulus, relative to its mean response to natural
videos. A model that was trained on natural videos has to extrapolate where the ratio is far from 1.
"""

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`stimulus_means <sensorium_data.explore.SensoriumAccessor.stimulus_means>` returns (neuron, stimulus).

means = session.sensorium.stimulus_means()
print(means.n_trials.to_series())

# %%
# Each dot is a neuron. Responses of two neurons cannot be compared, but ratios of one neuron can. With few trials of a
# class a ratio also depends on where its few stimuli lie.

ratios = means / means.sel(stimulus="NaturalVideo")
others = [name for name in means.stimulus.values if name != "NaturalVideo"]
rng = np.random.default_rng(0)
figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
for place, name in enumerate(others):
    values = ratios.sel(stimulus=name)
    axes.scatter(place + rng.uniform(-0.2, 0.2, values.size), values, s=12, color="#0072B2", alpha=0.7)
    axes.hlines(float(values.median()), place - 0.3, place + 0.3, color="black", linewidth=2)
axes.axhline(1, color="0.5", linewidth=1, linestyle="--")
axes.set(
    xticks=range(len(others)), xticklabels=others, yscale="log", yticks=(0.1, 0.3, 1, 3), yticklabels=(0.1, 0.3, 1, 3),
    ylabel="mean response / natural videos", title="simulated session E; bars: medians",
)  # fmt: skip
plt.show()
