from .deployed_run import finish_deployed as finish_deployed
from .deployed_run import is_deployed as is_deployed
from .run_watch import RunCanceled as RunCanceled
from .run_watch import report as report
from .run_watch import server_is_away as server_is_away
from .run_watch import watched as watched
from .server import quick_client as quick_client
from .server import wait_for_server as wait_for_server
