"""The xarray accessors ``.sensorium`` of opened sessions. Importing this package registers them.

Each method of the accessors is a plain function of this package as well.
"""

from sensorium_data.explore.accessor import SensoriumAccessor
from sensorium_data.explore.events import average_events, find_running_onsets
from sensorium_data.explore.gabors import GaborPatch, recover_gabor, tabulate_gabors
from sensorium_data.explore.means import average_by_state, average_by_stimulus
from sensorium_data.explore.presentation import order_by_presentation
from sensorium_data.explore.receptive_fields import map_receptive_fields
from sensorium_data.explore.repeats import measure_reliability, measure_signal_to_noise
from sensorium_data.explore.selection import select_neurons, select_trials
from sensorium_data.explore.standardization import standardize_responses
from sensorium_data.explore.tables import describe_trials, tabulate_neurons, tabulate_trials
from sensorium_data.explore.trees import SensoriumTreeAccessor, movie_responses
from sensorium_data.explore.tuning import measure_tuning

__all__ = [
    "GaborPatch",
    "SensoriumAccessor",
    "SensoriumTreeAccessor",
    "average_by_state",
    "average_by_stimulus",
    "average_events",
    "describe_trials",
    "find_running_onsets",
    "map_receptive_fields",
    "measure_reliability",
    "measure_signal_to_noise",
    "measure_tuning",
    "movie_responses",
    "order_by_presentation",
    "recover_gabor",
    "select_neurons",
    "select_trials",
    "standardize_responses",
    "tabulate_gabors",
    "tabulate_neurons",
    "tabulate_trials",
]
