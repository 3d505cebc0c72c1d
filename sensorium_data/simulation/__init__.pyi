from .archives import SimulatedSession as SimulatedSession
from .archives import SimulationReport as SimulationReport
from .archives import simulate as simulate
from .cleaning import find_simulation_leftovers as find_simulation_leftovers
from .truth import SIMULATE_AGAIN as SIMULATE_AGAIN
from .truth import open_truth as open_truth
from .zip_writer import ZipMember as ZipMember
from .zip_writer import ZipWriter as ZipWriter
