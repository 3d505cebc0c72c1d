from .config import Factorized3dConfig as Factorized3dConfig
from .model import Factorized3d as Factorized3d
