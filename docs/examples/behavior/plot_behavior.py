"""
How do running and the pupil change over a session?
===================================================

The pictures show running speed, pupil dilation and the pupil's position: the means of all trials over the session, and
one trial in detail.
"""

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# Without a trial, :meth:`plot_behavior <sensorium_data.explore.SensoriumAccessor.plot_behavior>` shows the means of all
# trials. A slow drift of the state over a session can be taken for an effect of whatever was shown late.

figure = session.sensorium.plot_behavior()

# %%
# The trial with the fastest running. The pupil's position is in pixels of the eye camera, not in degrees of gaze.

fastest = int(session.sensorium.trials.running_speed.idxmax())
figure = session.sensorium.plot_behavior(fastest)
