from .archive import SessionArchive as SessionArchive
from .archive import locate_archive as locate_archive
from .mirrors import Mode as Mode
from .mirrors import list_sessions as list_sessions
from .mirrors import open_archive as open_archive
