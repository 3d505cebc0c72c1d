"""
How do I simulate a session?
============================

The picture shows a neuron's responses to a repeated movie, and the rate from which they were simulated. Simulated
archives have the layout of the published ones, and a known truth. They show how the software behaves before any
recording is downloaded.

This example makes its own data instead of calling ``sd.load_sample()``.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import sensorium_data as sd
from sensorium_data.ingest import convert_session
from sensorium_data.simulation import open_truth

# %%
# :func:`sensorium_data.simulate` writes archives. It takes the numbers of trials and neurons, which are much smaller
# here than in a recording.

folder = Path(tempfile.mkdtemp())
name = sd.find_session("F")
simulated = sd.simulate(folder / "archives", sessions=[name], n_trials=30, n_neurons=20, seed=0)

# %%
# :func:`sensorium_data.ingest.convert_session` is the function behind ``sensorium ingest``. It converts the archive
# into a session store.

report = convert_session(name, str(folder / "store"), source=str(folder / "archives"))

# %%
# The session opens as an :class:`xarray.Dataset`. Its title says that it is simulated. Scores on simulated sessions say
# nothing about recordings.

session = sd.open_session(folder / "store", "F")
print(session.attrs["title"])
print(dict(session.sizes))

# %%
# ``open_truth`` opens what the simulation knows: the rates without noise, and each neuron's receptive field and gains.
# The rate of a trial depends on behavior too, so it differs between repeats.

truth = open_truth(folder / "archives", "F")
oracle = session.sensorium.select(tier="oracle")
movie, neuron = str(oracle.movie.values[0]), int(session.sensorium.reliability().idxmax("neuron"))
rates = truth.rates.sel(neuron=neuron, trial=oracle.trial[oracle.movie == movie]).compute()

axes = session.sensorium.plot_repeats(movie, neuron)
axes.plot(rates.time, rates.T, color="#D55E00", linewidth=1, linestyle="--")
axes.lines[-1].set_label("true rates")
axes.legend(loc="upper left")
plt.show()
