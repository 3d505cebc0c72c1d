"""Bounds on what others send: files, archives and servers. An error that one of them causes names it."""

from __future__ import annotations

__all__ = [
    "MAX_CHECKPOINT_ARGUMENTS_SIZE_BYTES",
    "MAX_CHECKPOINT_SIZE_BYTES",
    "MAX_CODE_FILES",
    "MAX_CODE_SIZE_BYTES",
    "MAX_INDEX_ENTRIES",
    "MAX_INDEX_SIZE_BYTES",
    "MAX_MEMBER_SIZE_BYTES",
    "MAX_PAGE_SIZE_BYTES",
    "MAX_SUBMISSION_FRAMES",
    "MAX_SUBMISSION_NEURONS",
    "MAX_SUBMISSION_ROWS",
    "MAX_SUBMISSION_ROW_SIZE_BYTES",
    "MAX_SUBMISSION_VALUES",
    "MAX_UNPACKED_AT_ONCE_BYTES",
    "MAX_UNPACKED_FACTOR",
    "MAX_UNPACKED_SIZE_BYTES",
    "MAX_UNSIZED_BODY_BYTES",
    "MAX_ZIP_INDEX_SIZE_BYTES",
    "MAX_ZIP_MEMBERS",
    "MIN_DISK_FREE_BYTES",
    "MIN_RATE_BYTES_PER_S",
    "MIN_UNPACKED_LIMIT_BYTES",
    "PARQUET_MEMORY_BYTES",
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

# Submissions

#: Rows, and row groups, of a predictions file. The ten recordings have about 7,000 trials, a tier of the five scored
#: sessions about 300. Rows of nothing but nulls take no space in a file, and each of them is checked.
MAX_SUBMISSION_ROWS = 20_000

#: Lists in a row's prediction, and its unit ids. The largest recording has 8,372 neurons.
MAX_SUBMISSION_NEURONS = 20_000

#: Values for each neuron in a row. The longest trial has 324 frames.
MAX_SUBMISSION_FRAMES = 1_000

#: Decoded size of a row: as many neurons and frames as may be, in float64, and their labels.
MAX_SUBMISSION_ROW_SIZE_BYTES = 200_000_000

#: Values of all rows of a file. The largest tier has 0.8 billion. Equal values take no space in a file, and decoding
#: them takes a second for a few hundred million.
MAX_SUBMISSION_VALUES = 10_000_000_000

#: Memory of the process that reads Parquet, beyond what its libraries take. A file with a row group for each trial
#: takes 0.2 GB. What a file's index says can be compared with the bounds above; what its pages say shows only when they
#: are decoded.
PARQUET_MEMORY_BYTES = 2_000_000_000

#: Members of a zip. A right one has two, and those that Finder adds.
MAX_ZIP_MEMBERS = 100

#: Size of a zip's index, which is read before its members can be counted. A member takes about 100 bytes of it.
MAX_ZIP_INDEX_SIZE_BYTES = 1_000_000

#: A compressed member may unpack to so many bytes, whatever its size: predictions that are all the same, in Parquet
#: without compression, are packed to a thousandth.
MIN_UNPACKED_LIMIT_BYTES = 500_000_000

#: A larger one may unpack to so many times its size: predictions that differ are hardly compressed at all.
MAX_UNPACKED_FACTOR = 20

#: No compressed member may unpack to more. It is twice what can be uploaded, and goes into the temporary folder.
MAX_UNPACKED_SIZE_BYTES = 10_000_000_000

# Code

#: Source files of a model, which are kept in its runs. Whoever imports more has imported a library that is no part of
#: the model, and can install it.
MAX_CODE_FILES = 1_000
#: All of them together.
MAX_CODE_SIZE_BYTES = 20_000_000

# Checkpoints

#: A file of weights that other software saved, packed or unpacked, which is held in memory. The largest published ones
#: The arguments of a training beside its checkpoint. Those with the indices of 78,853 neurons have 0.6 MB.
MAX_CHECKPOINT_ARGUMENTS_SIZE_BYTES = 16 << 20
#: have 0.7 GB.
MAX_CHECKPOINT_SIZE_BYTES = 4_000_000_000
