"""What the tests of exploring share."""

from fixtures.explored import dataset, recording

__all__ = ["dataset", "recording"]
