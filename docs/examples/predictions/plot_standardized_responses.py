"""
What does standardization do to responses?
==========================================

The picture shows the standard deviations of all neurons before and after the responses are divided as the competition
does.
"""

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`responses_standardized <sensorium_data.explore.SensoriumAccessor.responses_standardized>` divides by the
# archive's own standard deviations, frame by frame. The result is lazy: it is computed when its values are needed.

raw = session.responses
standardized = session.sensorium.responses_standardized("competition")
train = session.tier == "train"
deviations = {
    "as recorded": raw.sel(trial=train).std(("trial", "time")).values,
    "standardized": standardized.sel(trial=train).std(("trial", "time")).values,
}

# %%
# A neuron that hardly responds is not blown up: deviations below 1 % of the mean one are raised to that. The deviations
# are over all tiers of the archive, so those of the training trials are near 1 but not equal to it.

bins = np.geomspace(0.1, 1000, 41)
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.hist(deviations["as recorded"], bins, color="#E69F00", label="as recorded")
axes.hist(deviations["standardized"], bins, histtype="step", color="#0072B2", linewidth=2, label="standardized")
axes.set(
    xscale="log", xlabel="standard deviation of a neuron", ylabel="neurons", title="simulated session E, tier train"
)
axes.legend()
plt.show()
