from .curves import draw_curves as draw_curves
from .training import TrainingReport as TrainingReport
from .training import find_finished_run as find_finished_run
from .training import train as train
