"""
In which order were the tiers shown?
====================================

The picture has a row for each tier and a mark for each trial, at its place in the session. The tiers are mixed over the
session, so slow changes of the brain's state affect all of them.
"""

import matplotlib.pyplot as plt

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :attr:`trials <sensorium_data.explore.SensoriumAccessor.trials>` is a table with a row for each trial.
# ``presentation`` is the place among all clips that were shown, from 0; it is -1 where that is not known. ``onset`` is
# the time in seconds. It is known up to the first clip that is missing from the archive.

trials = session.sensorium.trials
shown = trials[trials.presentation >= 0]
print(f"the place of {len(shown)} of {len(trials)} trials is known, the onset of {trials.onset.notna().sum()}")

# %%
# A trial's number need not be its place: in some sessions gaps in the numbers were closed.

tiers = ["train", "oracle", "live_test_main", "live_test_bonus", "final_test_main", "final_test_bonus"]
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
for row, tier in enumerate(tiers):
    places = shown.presentation[shown.tier == tier]
    axes.vlines(places, row - 0.4, row + 0.4, color="#0072B2", linewidth=3)
    axes.text(1.01, row, len(places), transform=axes.get_yaxis_transform(), va="center")
axes.text(1.01, -0.9, "trials", transform=axes.get_yaxis_transform(), va="center")
axes.set(
    yticks=range(len(tiers)), yticklabels=tiers, xlabel="place in the session (clips)", title="simulated session E"
)
axes.invert_yaxis()
plt.show()
