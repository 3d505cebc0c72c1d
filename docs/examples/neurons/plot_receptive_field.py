"""
How do I map a receptive field?
===============================

The pictures show which pixels a neuron responds to, and how long before. The first one is a spike-triggered average,
the second one the weights of a ridge regression.
"""

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`receptive_fields <sensorium_data.explore.SensoriumAccessor.receptive_fields>` averages the frames before each
# response, weighted by the response. It reads a few trials at a time, so memory does not grow with the session.

neurons = session.neuron.values[:40]
average = session.sensorium.receptive_fields(neurons, lags=range(0, 8, 2))

# %%
# The neuron whose field stands out most from its own spread. Of many neurons one stands out by chance too: compare with
# fields of shuffled responses before you conclude anything.

contrast = abs(average).max(("lag", "height", "width")) / average.std(("lag", "height", "width"))
neuron = int(contrast.idxmax("neuron"))
figure = session.sensorium.plot_receptive_field(average, neuron)

# %%
# Neighboring pixels of natural videos are alike, which smears the average. The regression takes these correlations into
# account. A neuron that answers a pattern whatever its phase has neither a linear average nor linear weights.

weights = session.sensorium.receptive_fields([neuron], lags=range(0, 8, 2), method="ridge", bin_pixels=4)
figure = session.sensorium.plot_receptive_field(weights, neuron)
