from .archive import SessionArchive as SessionArchive
from .archive import members_of_trial as members_of_trial
from .layout import MODALITIES as MODALITIES
from .locations import find_archive as find_archive
from .locations import locate_archive as locate_archive
from .mirrors import Mode as Mode
from .mirrors import list_sessions as list_sessions
from .mirrors import open_archive as open_archive
