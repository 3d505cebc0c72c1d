"""
Which neurons respond reliably?
===============================

The picture shows each neuron where it lies, from above and in depth, colored by how reliable its responses are.
"""

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`reliability <sensorium_data.explore.SensoriumAccessor.reliability>` is the correlation of a trial with the mean
# of its movie's other repeats. It is measured in the oracle tier, which all sessions have with responses. With
# standardized responses it is the ``oracle_correlation`` of ``sensorium score``.

reliability = session.sensorium.reliability()
figure = session.sensorium.plot_map(reliability, label="reliability", cmap="cividis", limits=(0, 0.7))

# %%
# Keep the neurons above a threshold. Choose the threshold before you look at the trials that you test on: a selection
# on the same trials makes later results look too good.

reliable = session.sensorium.select(min_reliability=0.3)
print(f"{reliable.sizes['neuron']} of {session.sizes['neuron']} neurons have a reliability of 0.3 or more")
