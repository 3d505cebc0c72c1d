"""
Measure orientation tuning
==========================

Gabor patches of the bonus tiers drift in eight directions. The direction of each patch is recovered from the video.
"""

import sensorium_data as sd

recording = sd.open_session(sd.sample_store(), "E")

# %%
# :meth:`tuning <sensorium_data.explore.SensoriumAccessor.tuning>` gives the mean response to each direction, indices of
# selectivity, and p-values from permutations.

tuning = recording.sensorium.tuning("Gabor", seed=0)
n_selective = int((tuning.orientation_p < 0.05).sum())
print(f"{n_selective} of {tuning.sizes['neuron']} neurons are selective for orientation (p < 0.05)")

# %%
# The sample holds few patches. On a whole session the curves are smoother.

strong = tuning.orientation_selectivity.where(tuning.orientation_p < 0.05)
axes = recording.sensorium.plot_tuning(tuning, int(strong.idxmax("neuron")))
