"""
Do two mice respond alike to the same movie?
============================================

The picture shows the responses of two mice to the same movie: the mean over neurons and repeats, in units of standard
deviations. Sessions come in pairs that were shown nearly the same movies.
"""

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd

tree = sd.load_sample()

# %%
# ``movie_group`` is equal for all trials of the store that show the same movie, in whatever session. Responses of the
# test tiers of session I are withheld, so a movie is chosen that is in a tier with responses in both mice.

known = {alias: set(tree[alias].movie_group.values[~tree[alias].responses_withheld.values]) for alias in ("E", "I")}
trials = tree.sensorium.trials
shared = sorted(known["E"] & known["I"])
counts = trials[trials.movie_group.isin(shared)].groupby("movie_group").size()
movie = counts.idxmax()
print(f"{len(shared)} movies have responses in both mice; one of them is shown {counts.max()} times")

# %%
# :meth:`movie_responses <sensorium_data.explore.SensoriumTreeAccessor.movie_responses>` returns the responses of each
# session by alias. The neurons are different ones, so only means over the populations, or patterns, can be compared.

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
means = {}
for (alias, responses), color, dashes in zip(
    tree.sensorium.movie_responses(movie).items(), ("#0072B2", "#D55E00"), "-:"
):
    scaled = responses / responses.std(("trial", "time"))
    means[alias] = scaled.mean(("neuron", "trial")).compute()
    axes.plot(
        means[alias].time,
        means[alias],
        color=color,
        linestyle=dashes,
        label=f"{alias}, {responses.sizes['trial']} repeats",
    )
axes.set(
    xlabel="time from stimulus onset (s)", ylabel="mean response (s.d.)",
    title=f"correlation {np.corrcoef(means['E'], means['I'])[0, 1]:.2f}; simulated sessions",
)  # fmt: skip
axes.legend()
plt.show()
