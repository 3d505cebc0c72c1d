from .outputs import elu1 as elu1
from .outputs import invert_elu1 as invert_elu1
from .readout import FullGaussianReadout as FullGaussianReadout
from .regularizers import SPATIAL_LAPLACIAN as SPATIAL_LAPLACIAN
from .regularizers import TEMPORAL_LAPLACIAN as TEMPORAL_LAPLACIAN
from .regularizers import spatial_roughness as spatial_roughness
from .regularizers import temporal_roughness as temporal_roughness
from .shifter import Shifter as Shifter
