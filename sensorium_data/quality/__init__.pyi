from .quality import QualityReport as QualityReport
from .quality import StoreQuality as StoreQuality
from .quality import check_session as check_session
from .quality import check_store as check_store
from .report import REPORT_FILE as REPORT_FILE
from .report import write_report as write_report
