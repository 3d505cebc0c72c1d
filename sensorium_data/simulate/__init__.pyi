from .simulation import SimulatedSession as SimulatedSession
from .simulation import SimulationReport as SimulationReport
from .simulation import simulate as simulate
from .truth import open_truth as open_truth
from .zip_writer import ZipMember as ZipMember
from .zip_writer import ZipWriter as ZipWriter
