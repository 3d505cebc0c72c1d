"""
Are noise correlations larger between neighbors?
================================================

The picture shows, for pairs of neurons, the correlation of their trial-to-trial fluctuations against their distance.
"""

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# The noise is what is left after the mean over the repeats of a movie is subtracted. The first 50 frames are left out,
# as scores do. :meth:`repeats <sensorium_data.explore.SensoriumAccessor.repeats>` finds the trials.

oracle = session.sensorium.select(tier="oracle")
parts = []
for movie in np.unique(oracle.movie):
    responses = oracle.sensorium.repeats(str(movie)).responses.isel(time=slice(50, None)).compute()
    noise = responses - responses.mean("trial")
    parts.append(noise.stack(sample=("trial", "time")).transpose("neuron", "sample").values)
correlations = np.corrcoef(np.concatenate(parts, axis=1))

# %%
# Distances in three dimensions, from the cells' positions in micrometers, and means over pairs in bins of equal size.

places = np.stack([session.x, session.y, session.z], axis=1)
distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
first, second = np.triu_indices(len(places), k=1)
pairs = np.argsort(distances[first, second])
bins = np.array_split(pairs, 10)
means = [correlations[first, second][chosen].mean() for chosen in bins]
centers = [distances[first, second][chosen].mean() for chosen in bins]

# %%
# A state that all neurons share, such as running, raises the correlation at all distances. Frames are not independent,
# and neither are pairs that share a neuron, so no interval is drawn.

figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
axes.scatter(distances[first, second], correlations[first, second], s=3, color="0.7", rasterized=True, label="pair")
axes.plot(centers, means, color="#D55E00", marker="o", label="mean of a tenth of the pairs")
axes.axhline(0, color="black", linewidth=0.8)
axes.set(xlabel="distance (µm)", ylabel="noise correlation", title="simulated session E, tier oracle")
axes.legend()
plt.show()
