"""Which simulator made something; light to import."""

__all__ = ["SIMULATOR_VERSION"]

#: Raised whenever the same parameters give other recordings.
SIMULATOR_VERSION = 3
