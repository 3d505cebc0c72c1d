"""
Where do neurons prefer which orientation?
==========================================

The picture shows each neuron where it lies, colored by the axis along which its preferred pattern drifts. The bars of
that pattern lie across this axis, at 90 degrees to it. Neurons whose p value is not below 0.1 are crosses.
"""

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`tuning <sensorium_data.explore.SensoriumAccessor.tuning>` measures the preference and a p value. Neurons
# without a significant one get no color.

tuning = session.sensorium.tuning("Gabor", seed=0)
preferred = tuning.preferred_orientation.where(tuning.orientation_p < 0.1)
print(f"{int(preferred.notnull().sum())} of {preferred.size} neurons have p < 0.1")

# %%
# Angles are cyclic: 0 and 180 degrees are the same axis. A cyclic colormap shows them in the same color. Mouse visual
# cortex has no smooth map of orientation, so neighbors need not agree. The sample has 24 patches: a p value below 0.1
# is little evidence for a single neuron.

figure = session.sensorium.plot_map(
    preferred, label="preferred axis of drift (degrees)", cmap="twilight", limits=(0, 180)
)
