from .adaptation import resize_frames as resize_frames
from .convert import ConversionReport as ConversionReport
from .convert import convert_session as convert_session
from .ingest import IngestReport as IngestReport
from .ingest import choose_sessions as choose_sessions
from .ingest import ingest_sessions as ingest_sessions
from .verification import compare_with_archive as compare_with_archive
from .verification import verify_session as verify_session
