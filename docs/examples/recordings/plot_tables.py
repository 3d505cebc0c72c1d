"""
How do I get a session as pandas tables?
========================================

The picture shows pupil dilation against running speed, a dot for each trial, from a table with a row for each trial.
"""

import matplotlib.pyplot as plt

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`describe <sensorium_data.explore.SensoriumAccessor.describe>` counts trials by tier and stimulus.

session.sensorium.describe()

# %%
# :attr:`trials <sensorium_data.explore.SensoriumAccessor.trials>` has a row for each trial, with the means of running
# speed and pupil dilation over its valid frames.

trials = session.sensorium.trials
trials[["tier", "stimulus", "movie", "repeats", "n_frames", "running_speed", "pupil_dilation"]].head()

# %%
# :attr:`neurons <sensorium_data.explore.SensoriumAccessor.neurons>` has a row for each neuron.

session.sensorium.neurons.head()

# %%
# Plain pandas from here on. No unit of running speed and pupil dilation is published. In the sample both are simulated.

figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
for natural, color, marker in ((True, "#0072B2", "o"), (False, "#D55E00", "^")):
    part = trials[(trials.stimulus == "NaturalVideo") == natural]
    label = "natural videos" if natural else "other stimuli"
    axes.scatter(part.running_speed, part.pupil_dilation, s=22, color=color, marker=marker, label=label)
axes.set(xlabel="mean running speed (a.u.)", ylabel="mean pupil dilation (a.u.)", title="simulated session E, by trial")
axes.legend()
plt.show()
