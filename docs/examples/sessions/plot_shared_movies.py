"""
In which tiers do two mice share movies?
========================================

The picture counts the movies that both mice saw, by the tier that each mouse saw them in. A movie can be in a test tier
for one mouse and in the oracle tier for the other: a model of both mice that is trained on one tier may have seen the
test movies of another.
"""

import matplotlib.pyplot as plt

import sensorium_data as sd

tree = sd.load_sample()

# %%
# One table of all trials of both sessions. ``movie_group`` compares movies across the sessions of a store.

trials = tree.sensorium.trials
tier_of = {alias: trials.loc[alias].groupby("movie_group").tier.first() for alias in ("E", "I")}
both = tier_of["E"].to_frame("E").join(tier_of["I"].rename("I"), how="inner")
counts = both.groupby(["E", "I"]).size().unstack(fill_value=0)
tiers = ["train", "oracle", "live_test_main", "live_test_bonus", "final_test_main", "final_test_bonus"]
counts = counts.reindex(index=tiers, columns=tiers, fill_value=0)

# %%
# Split trials by movie, over all sessions: :func:`sensorium_data.movies.split_by_movie` does it, and
# :func:`sensorium_data.movies.report_leakage` names what leaks. Real pairs share more movies between tiers than this
# simulated one.

figure, axes = plt.subplots(figsize=(6, 4.4), layout="constrained")
axes.imshow(counts > 0, cmap="Blues", vmin=0, vmax=2)
for row, column in ((row, column) for row in range(len(tiers)) for column in range(len(tiers))):
    axes.text(column, row, counts.iat[row, column] or "", ha="center", va="center")
axes.set(xticks=range(len(tiers)), yticks=range(len(tiers)), xlabel="tier in session I", ylabel="tier in session E")
axes.set_xticklabels(tiers, rotation=30, ha="right")
axes.set_yticklabels(tiers)
axes.set_title("movies that both simulated mice saw")
plt.show()
