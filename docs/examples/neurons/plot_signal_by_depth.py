"""
Does the signal depend on cortical depth?
=========================================

The picture shows each neuron's ratio of signal to noise power against its depth below the surface, and the median of
each imaging depth.
"""

import matplotlib.pyplot as plt

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`signal_to_noise <sensorium_data.explore.SensoriumAccessor.signal_to_noise>` compares how much of the power
# repeats with how much does not. It is 0 where no power repeats.

ratio = session.sensorium.signal_to_noise()
table = ratio.to_dataframe()[["z", "signal_to_noise"]]
medians = table.groupby("z").signal_to_noise.median()

# %%
# A fluorescence signal becomes noisier with depth in real recordings for reasons of optics alone. Such a trend is no
# property of the neurons. The simulation has none.

figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
axes.scatter(table.z, table.signal_to_noise, s=16, color="#0072B2", alpha=0.7, label="neuron")
axes.plot(medians.index, medians, color="black", marker="_", markersize=14, linewidth=1, label="median")
axes.set(xlabel="depth z (µm)", ylabel="signal power / noise power", title="simulated session E, tier oracle")
axes.legend()
plt.show()
