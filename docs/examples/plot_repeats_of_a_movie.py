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
# A neuron whose average over repeats varies much, compared with single trials, responds reliably.

movie = movies.index[0]
repeats = recording.sensorium.repeats(movie)
of_average = repeats.responses.mean("trial").var("time")
of_trials = repeats.responses.var("time").mean("trial")
share = (of_average / of_trials).compute()
neuron = int(share.idxmax("neuron"))

# %%
# Each gray line is a trial, and the black line is the average.

axes = recording.sensorium.plot_repeats(movie, neuron)
