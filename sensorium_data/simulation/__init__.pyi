from .archives import SimulatedSession as SimulatedSession  # public
from .archives import SimulationReport as SimulationReport  # public
from .archives import simulate as simulate  # public
from .cleaning import find_simulation_leftovers as find_simulation_leftovers
from .truth import SIMULATE_AGAIN as SIMULATE_AGAIN
from .truth import open_truth as open_truth  # public
from .version import SIMULATOR_VERSION as SIMULATOR_VERSION
from .zip_writer import ZipMember as ZipMember
from .zip_writer import ZipWriter as ZipWriter
