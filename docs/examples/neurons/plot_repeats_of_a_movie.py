"""
How much do the responses to repeats of a movie differ?
=======================================================

Trials of the oracle tier and of the test tiers show few movies, each several times. Each thin line of the picture is a
neuron's response to one repeat, and the thick line is the average, for three neurons. How much the repeats differ
limits what any model can predict.
"""

import matplotlib.pyplot as plt

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# Repeats share the id of their movie. They are found by comparing frames, because repeats are not equal byte by byte.

oracle = session.sensorium.select(tier="oracle")
movies = oracle.movie.to_series().value_counts()
print(movies)

# %%
# :meth:`reliability <sensorium_data.explore.SensoriumAccessor.reliability>` is a neuron's correlation of a trial with
# the mean of the other repeats. A recording has about 10 repeats of a movie, the sample only 3 or 4.

reliability = session.sensorium.reliability()
ranked = reliability.sortby(reliability, ascending=False)
print(ranked[:3].to_series().round(2), f"median of all neurons: {float(reliability.median()):.2f}", sep="\n")

# %%
# :meth:`plot_repeats <sensorium_data.explore.SensoriumAccessor.plot_repeats>` draws the most reliable neurons. They
# were chosen for that, so they are no typical ones.

figure, rows = plt.subplots(3, 1, figsize=(7, 7), layout="constrained")
for axes, neuron in zip(rows, ranked.neuron.values[:3]):
    session.sensorium.plot_repeats(movies.index[0], int(neuron), ax=axes)
plt.show()
