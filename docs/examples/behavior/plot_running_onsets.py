"""
What happens when the mouse begins to run?
==========================================

The picture shows running speed, pupil dilation and the mean response around the onsets of running, averaged over
onsets. Gray is the response around other moments.
"""

import matplotlib.pyplot as plt
import numpy as np

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()

# %%
# :meth:`running_onsets <sensorium_data.explore.SensoriumAccessor.running_onsets>` finds frames at which running begins
# after at least a second of rest. They are pairs of trial and frame.

onsets = session.sensorium.running_onsets(rest_frames=30, run_frames=15)
print(f"{len(onsets)} onsets in {onsets.trial.nunique()} trials")

# %%
# :meth:`event_average <sensorium_data.explore.SensoriumAccessor.event_average>` averages each neuron's responses around
# them. Onsets too near to the beginning or the end of a trial are left out. Each neuron is divided by its mean over the
# session, because amplitudes of neurons cannot be compared.

average = session.sensorium.event_average(onsets, window=(-30, 60))
print(f"{average.attrs['n_events']} onsets have a whole window")

# %%
# For comparison, the frames of the onsets dealt to each other's trials: each trial has the frame of the next onset.
# What the curve of the onsets has beyond this one's ups and downs may be due to running. With so few onsets it is
# little.

elsewhere = onsets.assign(frame=np.roll(onsets.frame.to_numpy(), -1))
control = session.sensorium.event_average(elsewhere, window=(-30, 60))
means = session.responses.mean(("trial", "time"))
relative, other = ((one / means).mean("neuron").compute() for one in (average, control))

# %%
# The same windows of behavior, which is small.

windows = []
for trial, frame in onsets.itertuples(index=False):
    block = session.sensorium.trial_block(trial).behavior
    if frame >= 30 and frame + 60 < block.sizes["time"]:
        windows.append(block.isel(time=slice(frame - 30, frame + 61)).values)
speed_and_pupil = dict(zip(session.behavior_channel.values, np.mean(windows, axis=0)))

figure, rows = plt.subplots(3, 1, figsize=(5.5, 4.6), sharex=True, layout="constrained")
curves = {
    "running speed\n(a.u.)": speed_and_pupil["running_speed"],
    "pupil dilation\n(a.u.)": speed_and_pupil["pupil_dilation"],
    "response\n(of the mean)": relative,
}
for axes, (label, values) in zip(rows, curves.items()):
    axes.plot(average.lag_s, values, color="#0072B2")
    axes.axvline(0, color="0.4", linestyle="--", linewidth=1)
    axes.set_ylabel(label)
rows[-1].plot(control.lag_s, other, color="0.6", zorder=0, label="other moments")
rows[-1].legend(loc="upper left")
rows[0].set_title(f"simulated session E, mean of {average.attrs['n_events']} onsets")
rows[-1].set_xlabel("time from the onset of running (s)")
plt.show()
