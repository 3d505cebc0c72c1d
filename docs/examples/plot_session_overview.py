"""
See a whole session at once
===========================

What was shown when, and what the mouse and its neurons did meanwhile.
"""

import sensorium_data as sd

recording = sd.open_session(sd.sample_store(), "E")

# %%
# The accessor says what the session holds, and its picture shows it on the session's own time line.

print(recording.sensorium)
figure = recording.sensorium.plot_session()
