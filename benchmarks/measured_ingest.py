"""One ingest in a process of its own: what each of its phases takes, and the requests that it makes.

The phases are told apart by what the converter reports. What grows with the trials is a trial's cost, and the rest is a
session's, whatever its trials.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sensorium_data.testing import serve_directory
from sensorium_data.testing.recordings import make_recording

__all__ = ["PHASES", "Line", "count_requests", "fit_phases", "name_session", "run_ingest"]

#: The phases of an ingest, in order.
PHASES = ("start", "convert", "finish", "verify", "tidy", "publish", "end")

#: Trials and sessions of the ingests that are counted on an S3 server: a request's number does not depend on its size.
_COUNTED_N_TRIALS = (4, 12)
_COUNTED_N_SESSIONS = 4

_INGEST = """
import time
began = time.perf_counter()
import json, sys
from pathlib import Path

source, store, jobs, names, precision = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(), sys.argv[5]
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies
from sensorium_data.sessions import find_session
from sensorium_data.store import METADATA_KEY, Precision, Store, publish_root

counts = {"n_requests": 0, "n_root": 0}
if "://" in store:
    from aiobotocore.httpsession import AIOHTTPSession

    send = AIOHTTPSession.send

    async def send_counted(session, request):
        counts["n_requests"] += 1
        counts["n_root"] += request.url.partition("?")[0].endswith(f"{store.partition('://')[2]}/{METADATA_KEY}")
        return await send(session, request)

    AIOHTTPSession.send = send_counted


def look():
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {
        "wall_s": time.perf_counter() - began, "cpu_s": time.process_time(),
        "read_bytes": int(io["rchar"]), "written_bytes": int(io["wchar"]), **counts,
    }


sessions = []
last = {name: 0 for name in look()}
for name in names:
    phases = {}

    def end(phase):
        global last
        now = look()
        if phase not in phases:
            phases[phase] = {key: now[key] - last[key] for key in now}
            last = now

    def progress(label, n_done, n_total, n_bytes=None):
        if label.startswith("convert "):
            end("start")
            if n_done == n_total:
                end("convert")
        elif label.startswith("verify "):
            end("finish")
            if n_done == n_total:
                end("verify")

    def publish(session, group):
        end("tidy")
        publish_root(Store.at(store).objects, {session: group})
        end("publish")

    convert_session(
        find_session(name), store, source=source, jobs=jobs, precision=Precision(precision), publish=publish,
        progress=progress,
    )
    end("end")
    link_movies(store)
    end("link")
    link_movies(store)
    end("link again")
    sessions.append(phases)
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps({"sessions": sessions, "peak_memory_bytes": 1024 * int(peak.split()[1])}))
"""


@dataclass(frozen=True)
class Line:
    """A cost that is fixed in part, and grows with a number in part: of trials, of sessions."""

    fixed: float = 0.0
    each: float = 0.0

    def at(self, n: float) -> float:
        """Return the cost for a number."""
        return self.fixed + self.each * n

    @classmethod
    def through(cls, points: Mapping[int, float]) -> Line:
        """Return the line nearest to points, by number; neither of its parts is less than nothing."""
        numbers, costs = np.array(sorted(points)), np.array([points[n] for n in sorted(points)])
        each = max(0.0, float(np.polyfit(numbers, costs, 1)[0])) if len(points) > 1 else 0.0
        return cls(round(max(0.0, float(np.mean(costs - each * numbers))), 9), round(each, 12))


def name_session(number: int) -> str:
    """Return the name of a session that the catalogue lacks."""
    return f"dynamic{40000 + number}-1-1-Video-scale"


def run_ingest(
    source: str | Path, store: str | Path, jobs: int, names: Sequence[str], precision: str
) -> dict[str, Any]:
    """Ingest sessions one after the other in a process of its own; return what each phase of each took.

    Movies are linked after each session, as the command `ingest` does, and linked again when nothing is new.
    """
    command = [sys.executable, "-c", _INGEST, str(source), str(store), str(jobs), " ".join(names), precision]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def fit_phases(runs: Mapping[int, Sequence[Mapping[str, Any]]], what: str) -> dict[str, Line]:
    """Return each phase's cost by the number of trials, from the medians over runs of one session."""
    names = runs[max(runs)][0]["sessions"][0]
    return {
        phase: Line.through(
            {n: statistics.median(run["sessions"][0][phase][what] for run in several) for n, several in runs.items()}
        )
        for phase in names
    }


def count_requests(work: Path, precision: str) -> dict[str, Any]:
    """Count the requests of small ingests, from a web server into an S3 server, both on loopback.

    Each trial shows a movie of its own that all other sessions show, too: two videos are compared for it.
    """
    runs: dict[int, dict[str, Any]] = {}
    local: dict[int, dict[str, Any]] = {}
    n_asked = {}
    names = [name_session(number) for number in range(_COUNTED_N_SESSIONS)]
    with tempfile.TemporaryDirectory(dir=work) as folder, _serve_s3() as bucket:
        for n_trials in _COUNTED_N_TRIALS:
            archives = Path(folder, str(n_trials))
            for number, name in enumerate(names):
                make_recording(name, ["train"] * n_trials, n_neurons=2, seed=number).write(archives)
            with serve_directory(archives) as server:
                runs[n_trials] = run_ingest(server.url, f"{bucket}/{n_trials}", 1, names, precision)
                n_asked[n_trials] = len(server.requests) / len(names)
                local[n_trials] = run_ingest(server.url, Path(folder, f"store-{n_trials}"), 1, names, precision)

    def of(phase: str, what: str, n_trials: int, number: int = -1) -> float:
        return float(runs[n_trials]["sessions"][number][phase][what])

    def requests(phase: str) -> Line:
        return Line.through({n: of(phase, "n_requests", n) for n in runs})

    def sum_cpu(some: Mapping[int, Mapping[str, Any]]) -> float:
        # The first session's include the client's own start.
        return sum(
            float(one[phase]["cpu_s"]) for run in some.values() for one in run["sessions"][1:] for phase in PHASES
        )

    n_requests = sum(of(phase, "n_requests", n, k) for n in runs for k in range(1, len(names)) for phase in PHASES)
    few, many = _COUNTED_N_TRIALS
    last, before = len(names) - 1, len(names) - 2
    n_known = of("link", "n_requests", many, last) - of("link", "n_requests", many, before)
    n_movie = (of("link", "n_requests", many) - of("link", "n_requests", few)) / (many - few)
    return {
        "runs": runs,
        "source": Line.through(n_asked),
        "store": {phase: requests(phase) for phase in PHASES},
        "root": {phase: of(phase, "n_root", many) for phase in (*PHASES, "link", "link again")},
        "request_s": max(0.0, (sum_cpu(runs) - sum_cpu(local)) / n_requests),
        "linking": {
            "n_fixed": of("link", "n_requests", many) - n_known * last - n_movie * many,
            "n_known": n_known,
            "n_movie": n_movie,
            "n_again": Line.through(
                {number + 1: of("link again", "n_requests", many, number) for number in range(len(names))}
            ),
        },
    }


@contextmanager
def _serve_s3() -> Iterator[str]:
    """Run an S3 server with one bucket that the processes started meanwhile use; yield the bucket's URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    try:
        connection = http.client.HTTPConnection(host, port)
        connection.request("PUT", "/lab")
        if connection.getresponse().status != http.client.OK:
            raise AssertionError("the S3 server made no bucket")
        connection.close()
        yield "s3://lab"
    finally:
        os.environ.clear()
        os.environ |= before
        server.stop()
