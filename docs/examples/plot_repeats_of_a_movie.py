"""
Compare a neuron's responses to the repeats of a movie
======================================================

Trials of the oracle tier and of the test tiers show few movies, each several times. How much the responses to repeats
differ limits what any model can predict.
"""

import sensorium_data as sd

recording = sd.open_session(sd.sample_store(), "E")

# %%
# Repeats share the id of their movie.

oracle = recording.sensorium.select(tier="oracle")
movies = oracle.movie.to_series().value_counts()
print(movies)

# %%
# :meth:`reliability <sensorium_data.explore.SensoriumAccessor.reliability>` is a neuron's correlation of a trial with
# the mean of the other repeats.

reliability = recording.sensorium.reliability()
neuron = int(reliability.idxmax("neuron"))
print(f"neuron {neuron}: {float(reliability.max()):.2f}; median over neurons: {float(reliability.median()):.2f}")

# %%
# Each gray line is a trial, and the black line is the average.

axes = recording.sensorium.plot_repeats(movies.index[0], neuron)
