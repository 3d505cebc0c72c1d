from types import MappingProxyType
CHECKPOINTS = MappingProxyType({})
