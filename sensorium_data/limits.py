"""Bounds on what others send: files, archives and servers. An error that one of them causes names it."""

from __future__ import annotations

__all__ = [
    "MAX_INDEX_ENTRIES",
    "MAX_INDEX_SIZE_BYTES",
    "MAX_MEMBER_SIZE_BYTES",
    "MAX_PAGE_SIZE_BYTES",
    "MAX_UNPACKED_AT_ONCE_BYTES",
    "MAX_UNSIZED_BODY_BYTES",
    "MIN_DISK_FREE_BYTES",
    "MIN_RATE_BYTES_PER_S",
    "RATE_WINDOW_S",
]

# Archives and servers

#: The central directory of a zip file, which is held in memory. A published session's has half a megabyte.
MAX_INDEX_SIZE_BYTES = 64 << 20
#: Entries of a zip file; each takes about a kilobyte of memory. A published session has about 3,000.
MAX_INDEX_ENTRIES = 200_000
#: A file of a session, packed or unpacked, which is held in memory. The largest published one has 27 MB; one of 300,000
#: neurons and 400 frames in float64 still fits.
MAX_MEMBER_SIZE_BYTES = 1 << 30
#: Members of the trials that a process converts or checks at a time, in all threads together. Other trials wait, so
#: that members of the largest size do not add up. Forty trials of the published sizes fit.
MAX_UNPACKED_AT_ONCE_BYTES = 2 << 30
#: A download whose size the server does not state, and which might never end. The largest published archive has 11 GB.
MAX_UNSIZED_BODY_BYTES = 64 << 30
#: What such a download leaves free on the disk, for everything else that writes there.
MIN_DISK_FREE_BYTES = 1 << 30
#: A list of files that a server shows as a web page; an archive that is sent as one would be longer.
MAX_PAGE_SIZE_BYTES = 16 << 20
#: What each connection has to bring on the average of a window: below, the request is made again. At this rate an
#: archive takes months, so that no server that is only slow is refused.
MIN_RATE_BYTES_PER_S = 1 << 10
#: That window. A shorter one would take a pause for the end.
RATE_WINDOW_S = 60.0
