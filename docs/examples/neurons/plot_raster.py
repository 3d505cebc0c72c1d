"""
Which neurons respond together?
===============================

The picture shows the responses of all neurons in a trial, a row for each neuron. Neurons whose responses correlate
stand next to each other.
"""

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()
trial = int(session.sensorium.select(tier="oracle").trial[0])

# %%
# :meth:`plot_raster <sensorium_data.explore.SensoriumAccessor.plot_raster>` divides each neuron's responses by their
# standard deviation, so that strong ones do not hide the others. Responses are deconvolved: most values are near zero.

axes = session.sensorium.plot_raster(trial)

# %%
# Any other order is a list of unit ids. Here the most reliable neurons stand at the top. An order that was sorted by
# the trial itself always shows groups, even in noise. An order from other trials does not.

reliability = session.sensorium.reliability()
axes = session.sensorium.plot_raster(trial, order=reliability.sortby(reliability, ascending=False).neuron.values)
