"""
Is a neuron tuned to orientation or direction?
==============================================

The picture shows a neuron's mean response to Gabor patches that drift in eight directions, with its indices of
selectivity for orientation (OSI) and direction (DSI).
"""

import matplotlib.pyplot as plt

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`tuning <sensorium_data.explore.SensoriumAccessor.tuning>` gives the mean response to each direction, the
# indices, and p values from permutations. The direction of each patch is recovered from the video, because the archives
# do not say it.

tuning = session.sensorium.tuning("Gabor", seed=0)
n_selective = int((tuning.orientation_p < 0.05).sum())
n_expected = 0.05 * tuning.sizes["neuron"]
print(f"{n_selective} of {tuning.sizes['neuron']} neurons have p < 0.05; {n_expected:.0f} would by chance")

# %%
# The neuron with the smallest p value. The sample has few patches, so the curve is coarse and many neurons are missed.

neuron = int(tuning.orientation_p.idxmin("neuron"))
figure = plt.figure(figsize=(8, 3.6), layout="constrained")
session.sensorium.plot_tuning(tuning, neuron, ax=figure.add_subplot(1, 2, 1))
session.sensorium.plot_tuning(tuning, neuron, ax=figure.add_subplot(1, 2, 2, projection="polar"))
plt.show()
