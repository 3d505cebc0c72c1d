"""
Do running and the pupil change responses?
==========================================

The first picture shows each neuron where it lies, colored by how much more it responds while the mouse runs. The second
one compares this with the effect of a dilated pupil.
"""

import matplotlib.pyplot as plt

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`modulation <sensorium_data.explore.SensoriumAccessor.modulation>` averages the responses in frames above and
# below a threshold. The index is (high - low) / (high + low).

running = session.sensorium.modulation("running")
print({name: running.attrs[name] for name in ("threshold", "n_frames_high", "n_frames_low")})
figure = session.sensorium.plot_map(running.modulation_index, label="running modulation index")

# %%
# Without a threshold that of the pupil is the median. The pupil dilates while the mouse runs, so the two effects are
# not independent of each other. Neither are they independent of what was shown at that time.

pupil = session.sensorium.modulation("pupil")
figure, axes = plt.subplots(figsize=(4.2, 4), layout="constrained")
axes.scatter(running.modulation_index, pupil.modulation_index, s=16, color="#0072B2")
axes.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
axes.set(xlabel="running modulation index", ylabel="pupil modulation index", title="simulated session E, by neuron")
plt.show()
