"""
What happens in a session?
==========================

The picture shows a whole session on its own time line: which tier and stimulus was shown when, the repeats of movies,
the mean response of the neurons, running speed and pupil dilation.
"""

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# The accessor ``session.sensorium`` describes what the session holds.

session.sensorium

# %%
# :meth:`plot_session <sensorium_data.explore.SensoriumAccessor.plot_session>` draws it. The sample is simulated and has
# 80 trials. A recording has about 700, and in some sessions the place of some trials is not known; the title counts
# those that are left out.

figure = session.sensorium.plot_session()
