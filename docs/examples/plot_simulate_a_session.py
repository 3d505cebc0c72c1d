"""
Simulate a session and look at a trial
======================================

Simulated archives have the layout of the published ones, and a known truth. They show how the software behaves before
any recording is downloaded.
"""

import tempfile
from pathlib import Path

import sensorium_data as sd
from sensorium_data.ingest import convert_session

# %%
# :func:`sensorium_data.simulate` writes archives. It takes the numbers of trials and neurons, which are much smaller
# here than in a recording.

folder = Path(tempfile.mkdtemp())
session = sd.find_session("F")
simulated = sd.simulate(folder / "archives", sessions=[session], n_trials=30, n_neurons=20, seed=0)

# %%
# :func:`sensorium_data.ingest.convert_session` is the function behind ``sensorium ingest``. It converts the archive
# into a session store.

report = convert_session(session, str(folder / "store"), source=str(folder / "archives"))

# %%
# The session opens as an :class:`xarray.Dataset`. Its title says that it is simulated.

recording = sd.open_session(folder / "store", "F")
print(recording.attrs["title"])
print(dict(recording.sizes))

# %%
# A trial of the oracle tier: frames of the video, responses of the neurons, behavior and pupil.

oracle = recording.sensorium.select(tier="oracle")
figure = recording.sensorium.plot_trial(int(oracle.trial[0]))
