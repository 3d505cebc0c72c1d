"""
How do sessions compare in reliability?
=======================================

The picture shows the distribution of the neurons' reliability in each session.
"""

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd

tree = sd.load_sample()

# %%
# :attr:`neurons <sensorium_data.explore.SensoriumTreeAccessor.neurons>` of a tree has a row for each neuron of each
# session, with its position and reliability.

neurons = tree.sensorium.neurons
print(neurons.groupby("session").reliability.describe()[["count", "mean", "50%", "max"]].round(2))

# %%
# The share of neurons up to each value needs no bins. Sessions differ in the movies of their oracle tier, in the number
# of repeats and in the state of the mouse, so a difference is not one of the mice alone.

figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
for alias, color, dashes in (("E", "#0072B2", "-"), ("I", "#D55E00", "--")):
    values = np.sort(neurons.loc[alias].reliability.dropna())
    axes.step(
        values, np.arange(1, len(values) + 1) / len(values), color=color, linestyle=dashes, label=f"session {alias}"
    )
axes.set(xlabel="reliability", ylabel="share of neurons", title="simulated sessions, tier oracle", ylim=(0, 1))
axes.legend()
plt.show()
