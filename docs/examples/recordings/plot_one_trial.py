"""
What does one trial look like?
==============================

The picture shows frames of the video, the responses of the neurons that respond most strongly, running speed, pupil
dilation and the pupil's position.
"""

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# Select trials by tier and stimulus. A trial's name is the number of its file in the archive.

natural = session.sensorium.select(tier="oracle", stimulus="NaturalVideo")
trial = int(natural.trial[0])

# %%
# :meth:`trial_block <sensorium_data.explore.SensoriumAccessor.trial_block>` returns the trial, cut to its valid frames.
# All arrays of a session are padded to its longest trial, so the length of an array is not the length of a trial.

block = session.sensorium.trial_block(trial)
print(f"{session.sizes['time']} frames in the arrays, {block.sizes['time']} in this trial")

# %%
# :meth:`plot_trial <sensorium_data.explore.SensoriumAccessor.plot_trial>` draws it. Responses are deconvolved calcium
# traces in arbitrary units: amplitudes of two neurons cannot be compared.

figure = session.sensorium.plot_trial(trial)
