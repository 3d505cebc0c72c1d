from .curves import draw_curves as draw_curves
from .ensemble import EnsembleReport as EnsembleReport
from .ensemble import Variations as Variations
from .ensemble import train_ensemble as train_ensemble
from .training import TrainingReport as TrainingReport
from .training import find_finished_run as find_finished_run
from .training import train as train
