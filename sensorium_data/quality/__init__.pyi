from .quality import QualityReport as QualityReport  # public
from .quality import StoreQuality as StoreQuality  # public
from .quality import check_session as check_session  # public
from .quality import check_store as check_store  # public
from .report import REPORT_FILE as REPORT_FILE
from .report import write_report as write_report  # public
