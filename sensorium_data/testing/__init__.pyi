from .faults import Throttle as Throttle
from .recordings import Recording as Recording
from .recordings import Trial as Trial
from .recordings import make_movie as make_movie
from .server import DirectoryServer as DirectoryServer
from .server import serve_directory as serve_directory
