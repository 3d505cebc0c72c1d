from .adaptation import resize_frames as resize_frames
from .assembly import CONVERTER_VERSION as CONVERTER_VERSION
from .conversion_report import ConversionReport as ConversionReport  # public
from .convert import convert_session as convert_session  # public
from .ingest import IngestReport as IngestReport  # public
from .ingest import choose_sessions as choose_sessions
from .ingest import ingest_sessions as ingest_sessions  # public
from .session_converter import SESSIONS_AT_ONCE as SESSIONS_AT_ONCE
from .session_converter import SessionConverter as SessionConverter
from .session_converter import default_jobs as default_jobs
from .verification import compare_with_archive as compare_with_archive
from .verification import verify_session as verify_session  # public
