"""
Map a neuron's receptive field
==============================

Which pixels, and how many frames before, a neuron responds to.
"""

import sensorium_data as sd

recording = sd.open_session(sd.sample_store(), "E")

# %%
# :meth:`receptive_fields <sensorium_data.explore.SensoriumAccessor.receptive_fields>` averages the frames before each
# response, weighted by the response. It reads the trials in blocks, so a session of any size fits into memory.

fields = recording.sensorium.receptive_fields(lags=range(8))
print(dict(fields.sizes))

# %%
# The neuron whose field stands out most from its own spread.

contrast = abs(fields).max(("lag", "height", "width")) / fields.std(("lag", "height", "width"))
figure = recording.sensorium.plot_receptive_field(fields, int(contrast.idxmax("neuron")))
