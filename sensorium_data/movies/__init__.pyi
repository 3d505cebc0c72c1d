from .folds import split_by_hash as split_by_hash  # public
from .folds import split_by_movie as split_by_movie  # public
from .grouping import group_movies as group_movies
from .grouping import name_movie as name_movie
from .grouping import sign_video as sign_video
from .leakage import report_leakage as report_leakage  # public
from .leakage import unlinked_sessions as unlinked_sessions
from .links import link_movies as link_movies  # public
from .stimuli import N_FRAMES_BY_STIMULUS as N_FRAMES_BY_STIMULUS
from .stimuli import recognize_stimulus as recognize_stimulus
