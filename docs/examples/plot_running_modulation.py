"""
Compare responses while the mouse runs and rests
================================================

Running changes the responses of many neurons. The index is (a - b) / (a + b), of the mean responses in both states.
"""

import sensorium_data as sd

recording = sd.open_session(sd.sample_store(), "E")

# %%
# :meth:`modulation <sensorium_data.explore.SensoriumAccessor.modulation>` takes the state of each frame from the
# running speed.

modulation = recording.sensorium.modulation("running")
print({name: modulation.attrs[name] for name in ("threshold", "n_frames_high", "n_frames_low")})

# %%
# Each neuron where it lies, from above and in depth.

figure = recording.sensorium.plot_map(modulation.modulation_index, label="running modulation index", cmap="RdBu_r")
