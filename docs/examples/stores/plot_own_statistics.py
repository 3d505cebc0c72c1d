"""
How do I compute something of my own for each trial?
====================================================

The picture shows how many neurons are active at the same time, as a function of time in a trial, for each class of
stimulus.
"""

import matplotlib.pyplot as plt

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# Arithmetic on variables is plain xarray and stays lazy. Many measures are also methods of
# :class:`the accessor <sensorium_data.explore.SensoriumAccessor>`. A neuron counts as active here above twice its own
# mean, because amplitudes cannot be compared between neurons.

threshold = 2 * session.responses.mean(("trial", "time"))
is_counted = session.valid & ~session.responses_withheld
active = (session.responses > threshold).mean("neuron").where(session.responses.notnull().any("neuron") & is_counted)

# %%
# Group by any coordinate of the trials. Withheld responses and frames past a trial's end are NaN. A comparison turns
# NaN into False, so they have to be masked, as above.

share = active.groupby("stimulus").mean("trial").rolling(time=15, center=True).mean().compute()

# %%

figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
styles = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#000000", ":"))
for (color, dashes), stimulus in zip(styles, share.stimulus.values):
    axes.plot(share.time, 100 * share.sel(stimulus=stimulus), color=color, linestyle=dashes, label=stimulus)
axes.set(xlabel="time from stimulus onset (s)", ylabel="active neurons (%)", title="simulated session E")
axes.legend(ncols=2)
plt.show()
