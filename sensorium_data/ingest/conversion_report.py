"""What a conversion did."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ConversionReport"]


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`~sensorium_data.ingest.convert_session` did.

    Attributes
    ----------
    session : str
        The session's full name.
    alias : str
        Its letter, or its scan.
    status : str
        ``"converted"``, ``"already done"``, or ``"updated"``: converted anew because the archive had changed, or
        because the store was damaged and to be repaired.
    path : str
        Where the session's group is.
    n_trials : int
        Trials in the store.
    n_trials_resumed : int
        Those of them that an interrupted run had finished.
    n_trials_copied : int
        Those of them that were copied from the session's previous version.
    n_bytes_read : int
        Compressed size of the trials' members that were read.
    store_size_bytes : int
        Size of the session's objects.
    precision : str
        The store's precision.
    source : str
        Where the archive was read.
    duration_s : float
        Seconds it took.
    notes : tuple of str
        A sentence for each count that differs from the published one, each tier with responses that are not in the
        archive, each broken trial, each modality that ends before the video, what is missing from the archive's
        statistics, and, of other labs' sessions, what is not recorded, resized or computed.
    """

    session: str
    alias: str
    status: str
    path: str
    n_trials: int
    n_trials_resumed: int
    n_trials_copied: int
    n_bytes_read: int
    store_size_bytes: int
    precision: str
    source: str
    duration_s: float
    notes: tuple[str, ...]
