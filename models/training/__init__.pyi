from .curves import draw_curves as draw_curves
from .ensemble import EnsembleReport as EnsembleReport  # public
from .ensemble import Variations as Variations  # public
from .ensemble import train_ensemble as train_ensemble  # public
from .training import TrainingReport as TrainingReport  # public
from .training import find_finished_run as find_finished_run
from .training import train as train  # public
