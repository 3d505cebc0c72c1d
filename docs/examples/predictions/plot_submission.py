"""
How do I make a submission?
===========================

The picture shows predictions as they were read back from a submission's zip, which the validator has passed.
"""

import io
import tempfile
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import sensorium_data as sd

store = sd.sample_store()  # the path of what sd.load_sample() opens
session = sd.load_sample()["I"].to_dataset()

# %%
# A stand-in for a model: it follows the brightness of the video. The main track has two tiers. Their responses are
# withheld for session I, so nobody but the competition's server can score them.

tested = session.sensorium.select(tier=["live_test_main", "final_test_main"])
arrays = {}
for trial in tested.trial.values:
    light = tested.sensorium.trial_block(int(trial)).videos.mean(("height", "width")).values
    arrays[int(trial)] = np.tile(light / 100, (tested.sizes["neuron"], 1))

# %%
# :func:`sensorium_data.write_submission` writes the zips and validates them. An entry for the competition holds all
# five new sessions; this one holds the one session of the sample.

folder = Path(tempfile.mkdtemp())
sd.from_arrays(folder / "predictions", store, {"I": arrays}, response_units="standardized")
report = sd.write_submission(str(folder / "predictions"), store, track="main", out=str(folder / "submission"))
zips = sorted((folder / "submission").glob("*.zip"))
print([path.name for path in zips])

# %%
# :func:`sensorium_data.validate_submission` checks anybody's files.

validation = sd.validate_submission(zips, store)
print("passed" if validation.passed else validation.violations)

# %%
# What the server reads: a row for each trial. The first 50 frames are left out.

with zipfile.ZipFile(zips[0]) as archive:
    table = pd.read_parquet(io.BytesIO(archive.read(archive.namelist()[0])))
print(table.columns.tolist(), len(table), "rows")
lengths = np.array([len(row[0]) for row in table.prediction])
first = np.stack([row[0] for row in table.prediction[lengths == lengths[0]]])
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
image = axes.imshow(first, aspect="auto", cmap="cividis", interpolation="nearest")
axes.set(xlabel="frame in the file (the first is frame 50 of the trial)", ylabel="trial in the file")
axes.set_title("predictions of one neuron, simulated session I")
figure.colorbar(image, ax=axes, label="prediction\n(standardized units)")
plt.show()
