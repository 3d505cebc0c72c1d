"""The command that scores entries on the old mice's public test tiers.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.options import (
    EXIT_DONE,
    DeviceName,
    FramesName,
    JobsOption,
    JsonOption,
    NoLockOption,
    StoreOption,
    TrustCodeOption,
    WholeNumber,
    count_jobs,
    print_lines,
    terminal_progress,
)
from sensorium_data.errors import RunError, UsageError

if TYPE_CHECKING:
    from sensorium_data.progress import Progress
    from sensorium_data.sessions import Session
    from sensorium_data.store import Store

__all__ = ["benchmark"]


def benchmark(
    *entry: Annotated[str, Parameter(help="Training runs, which are predicted first, and predictions stores.")],
    store: StoreOption,
    out: Annotated[
        str, Parameter(help="Folder or URL for benchmark.html, benchmark.json, and the predictions of runs.")
    ] = "benchmark",
    frames: Annotated[
        FramesName, Parameter(help="Which frames of a trial are scored; official: all but the first 50.")
    ] = "official",
    runs: Annotated[
        str | None,
        Parameter(
            help="Folder or URL of the runs that made predictions stores: what they were trained on. Default: runs."
        ),
    ] = None,
    resamples: Annotated[int, WholeNumber, Parameter(help="Bootstrap resamples behind each interval.")] = 1000,
    seed: Annotated[int, WholeNumber, Parameter(help="Seed of the resamples.")] = 0,
    device: Annotated[DeviceName, Parameter(help="Where to predict; auto takes a GPU if there is one.")] = "auto",
    trust_code: TrustCodeOption = False,
    no_lock: NoLockOption = False,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> int:
    """Score entries on the old mice's test tiers, whose responses are published, and write one page about it."""
    from flows.cli.summaries import print_benchmark
    from flows.cli.tables import error_console, table_console
    from flows.settings import Settings
    from sensorium_data.files import open_objects
    from sensorium_data.scoring import (
        Bootstrap,
        benchmark_sessions,
        require_benchmark_writable,
        run_benchmark,
        write_benchmark,
    )
    from sensorium_data.store import open_store

    names = _name_entries(entry)
    how = Bootstrap(resamples, seed)
    opened = open_store(store)
    sessions = benchmark_sessions(opened)
    kinds = {name: _is_run(path) for name, path in names.items()}
    target = open_objects(out)
    require_benchmark_writable(target)
    folders = [runs or Settings().runs, *(names[name] for name, is_run in kinds.items() if is_run)]
    with terminal_progress() as progress:
        predictions = {
            name: _predict(
                path,
                target.locate(f"predictions/{name.replace('/', '-')}"),
                opened,
                sessions,
                device,
                progress,
                trust_code=trust_code,
                lock=not no_lock,
            )
            if kinds[name]
            else path
            for name, path in names.items()
        }
        report = run_benchmark(
            predictions,
            opened,
            runs=folders,
            frames=frames,
            bootstrap=how,
            jobs=count_jobs(jobs),
            command=shlex.join(["sensorium", *_arguments(entry, store, out, frames, runs, resamples, seed, device)]),
            progress=progress,
        )
    page = write_benchmark(report, target)
    if as_json:
        print_lines(report.to_json())
    else:
        print_benchmark(table_console(), report)
        table_console().print(f"Page: {page}", markup=False, soft_wrap=True)
    for one in report.entries:
        for reason in one.unscored:
            error_console().print(f"{one.name}: not scored: {reason}", markup=False, soft_wrap=True)
    for warning in report.warnings():
        error_console().print(f"warning: {warning}", markup=False, soft_wrap=True)
    return EXIT_DONE


def _name_entries(entries: tuple[str, ...]) -> dict[str, str]:
    from sensorium_data.scoring import name_entries

    if not entries:
        raise UsageError("no entry named", expected="training runs or predictions stores", remedy="name at least one")
    return name_entries(entries)


def _is_run(path: str) -> bool:
    """Whether a path is a training run's; it is a predictions store's otherwise."""
    from sensorium_data.files import open_objects

    there = open_objects(path.rstrip("/"))
    if there.exists("model.json"):
        return True
    if not there.exists("zarr.json"):
        raise UsageError(
            "neither a training run nor a predictions store",
            path=path,
            expected="the folder that `sensorium train` or `sensorium predict` printed",
            remedy="check the name, and that it is finished",
        )
    return False


def _predict(
    run: str,
    out: str,
    store: Store,
    sessions: tuple[Session, ...],
    device: str,
    progress: Progress,
    *,
    trust_code: bool,
    lock: bool,
) -> str:
    """Predict the benchmark's tiers of the sessions that a run knows, or find that it is done."""
    from models.prediction import predict
    from models.runs import load_run
    from sensorium_data.sessions import Tier

    known = [session for session in sessions if session in load_run(run).sessions]
    if not known:
        raise RunError(
            "the run was trained on none of the benchmark's sessions, so it cannot predict them",
            path=run,
            found=", ".join(session.alias for session in load_run(run).sessions),
            expected=", ".join(session.alias for session in sessions),
            remedy="train on some of them too",
        )
    there = {tier for session in known for tier in store[session]["tier"].values.tolist()}
    tiers = [str(tier) for tier in Tier if tier.is_test and tier in there]
    names = [session.name for session in known]
    predict(
        [run],
        store,
        tiers,
        out,
        sessions=names,
        device=device,
        progress=progress,
        trust_code=trust_code,
        lock=lock,
    )
    return out


def _arguments(
    entries: tuple[str, ...],
    store: str,
    out: str,
    frames: str,
    runs: str | None,
    resamples: int,
    seed: int,
    device: str,
) -> list[str]:
    """Return the arguments that do the same again."""
    words = ["benchmark", *entries, "--store", store, "--out", out, "--frames", frames]
    words += [] if runs is None else ["--runs", runs]
    return [*words, "--resamples", str(resamples), "--seed", str(seed), "--device", device]
