"""
How do I watch a trial as a film?
=================================

The film shows the video, and below it the mean response of all neurons and the running speed up to each moment.
"""

import sensorium_data as sd

session = sd.load_sample()["E"].to_dataset()
trial = int(session.sensorium.select(stimulus="RandomDots").trial[0])

# %%
# Some frames first, as a picture.

figure = session.sensorium.plot_frames(trial, n_frames=6)

# %%
# :meth:`animate <sensorium_data.explore.SensoriumAccessor.animate>` returns a film that a notebook, or this page, shows
# with a player. ``film.save("trial.html")`` writes it into a file; ``.gif`` and ``.mp4`` are possible too. Of trials
# with more than 160 frames every second frame is shown, at the same speed.

film = session.sensorium.animate(trial)
film
