"""The ``sensorium`` command.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from sensorium_data.errors import SensoriumError, UsageError

if TYPE_CHECKING:
    pass

__all__ = ["app", "main"]

EXIT_DONE = 0
EXIT_WRONG = 1
EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130

app = App(
    name="sensorium",
    help="SENSORIUM 2023: archives → Zarr session stores → trained models → validated submissions.",
    version=lambda: version("sensorium-pipeline"),
)

StoreOption = Annotated[str, Parameter(name="--store", help="Root of the session stores: a folder or fsspec URL.")]
SourceOption = Annotated[
    list[str] | None,
    Parameter(
        name="--source",
        consume_multiple=True,
        negative="",
        help="Where archives are: folders or URLs with SESSION.zip, tried in this order. Default: GIN.",
    ),
]
JobsOption = Annotated[
    int | None, Parameter(name="--jobs", help="Trials worked on at the same time. Default: one a CPU core.")
]
FlowOption = Annotated[
    bool,
    Parameter(
        name="--flow",
        negative="",
        help="Run as a Prefect flow on the embedded server. A server named by PREFECT_API_URL is used without asking.",
    ),
]
JsonOption = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of a table.")]
ListOption = Parameter(consume_multiple=True, negative="")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status.

    0, done; 1, the thing checked is wrong; 2, usage or an unreadable input, with one line on standard
    error; 130, interrupted.
    """
    # OpenMP's threads wait for each other by spinning. Beside other work on the machine that made training on two
    # cores four times slower. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # cyclopts reads a bare call as a request for help, which is what a newcomer needs.
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _complain(" ".join(str(error).split()), " ; see `sensorium --help`")
        sys.exit(EXIT_UNUSABLE)
    except SensoriumError as error:
        _complain(str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        _complain("interrupted; run the same command again")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone: nothing is left to say, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_DONE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        _complain(f"{where}{error.strerror or error}; check the path, its permissions and the space there")
        sys.exit(EXIT_UNUSABLE)
    sys.exit(status if isinstance(status, int) else EXIT_DONE)


@app.command
def demo(
    *,
    dir: Annotated[Path, Parameter(name="--dir", help="Where everything of the demo goes.")] = Path("demo"),
) -> int:
    """Run everything on simulated recordings: simulate, ingest, train, predict, score, submit."""
    from flows.embedded import prefer_embedded_server

    prefer_embedded_server(dir.absolute() / "prefect", log_level=os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING"))
    from flows.demo import run_demo

    run_demo(dir)
    return EXIT_DONE


@app.command
def simulate(
    directory: Annotated[Path, Parameter(help="Where the archives go; the truth goes into its folder truth.")],
    *,
    sessions: Annotated[list[str], ListOption, Parameter(help="Aliases, full names, new, old or all.")] = ["new"],  # noqa: B006
    trials: Annotated[int | None, Parameter(help="Trials a session. Default: as many as published.")] = None,
    neurons: Annotated[int | None, Parameter(help="Neurons a session. Default: as many as published.")] = None,
    seed: Annotated[int, Parameter(help="The same seed gives the same bytes.")] = 0,
    zip64: Annotated[bool, Parameter(negative="", help="Write Zip64 fields as archives over 4 GB have them.")] = False,
    jobs: JobsOption = None,
) -> int:
    """Write simulated archives in GIN's layout, and their truth beside them."""
    from flows.tables import error_console, format_size, print_table, table_console
    from sensorium_data.sessions import find_sessions
    from sensorium_data.simulate import simulate as simulate_archives

    chosen = find_sessions(sessions)
    with _progress() as progress:
        report = simulate_archives(
            directory,
            sessions=chosen,
            n_trials=trials,
            n_neurons=neurons,
            seed=seed,
            jobs=_n_jobs(jobs),
            zip64=zip64,
            progress=progress,
        )
    error_console().print(f"{report.directory}: {report.status}")
    print_table(
        table_console(),
        "Simulated archives",
        [
            {
                "session": row.alias,
                "trials": row.n_trials,
                "neurons": row.n_neurons,
                "archive": row.path,
                "size": format_size(row.size_bytes),
            }
            for row in report.sessions
        ],
    )
    return EXIT_DONE


@app.command
def ingest(
    *session: Annotated[str, Parameter(help="Aliases A to J, full names, or new, old, all.")],
    store: StoreOption,
    source: SourceOption = None,
    mode: Annotated[
        Literal["auto", "stream", "download"],
        Parameter(
            help="Read archives in place, or download them first. auto: in place where the server answers byte ranges."
        ),
    ] = "auto",
    downloads: Annotated[str | None, Parameter(help="Where downloads are kept. Default: ~/.cache/sensorium.")] = None,
    precision: Annotated[
        Literal["exact", "exact64", "compact"] | None,
        Parameter(help="exact: float32. exact64: float64. compact: rounded. Default: as the store has it, or exact."),
    ] = None,
    repair: Annotated[
        bool, Parameter(negative="", help="Read every object of finished stores, and convert anew what is damaged.")
    ] = False,
    jobs: Annotated[
        int | None,
        Parameter(name="--jobs", help="Trials at the same time, about 100 MB each. Default: one a core, 8 by network."),
    ] = None,
    dask: Annotated[
        str | None, Parameter(help="Address of a Dask scheduler whose workers convert, e.g. tcp://host:8786.")
    ] = None,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Convert archives into session stores; finished sessions are left alone, interrupted ones continued."""
    from dataclasses import asdict

    from flows.settings import Settings
    from flows.tables import error_console, format_size, print_table, table_console
    from sensorium_data.ingest import choose_sessions, ingest_sessions
    from sensorium_data.mirrors import Mode
    from sensorium_data.movie_links import link_movies
    from sensorium_data.precision import Precision

    if not session:
        raise UsageError(
            "no session named",
            expected="aliases A to J, full names, or new, old, all",
            remedy="e.g. sensorium ingest F",
        )
    if jobs is not None and jobs < 1:
        raise UsageError("--jobs", found=jobs, expected="a number from 1 up")
    defaults = Settings()
    sources = source or defaults.sources
    chosen = choose_sessions(session, sources)
    downloads = downloads or defaults.downloads
    if _runs_as_flow(flow):
        from flows.ingest import ingest as ingest_flow

        names = [s.name for s in chosen]
        kept = None if precision is None else Precision(precision)
        reports = ingest_flow(names, store, sources, jobs, Mode(mode), downloads, kept, repair, dask)
        failures: list[SensoriumError] = []
    else:
        with _progress() as progress:
            done = ingest_sessions(
                chosen,
                store,
                sources=sources,
                mode=Mode(mode),
                downloads=downloads,
                precision=None if precision is None else Precision(precision),
                repairs=repair,
                jobs=jobs if jobs is not None else defaults.jobs,
                dask=dask,
                progress=progress,
            )
            reports, failures = list(done.sessions), list(done.failures)
            if reports:
                link_movies(store, progress=progress)
    if as_json:
        _print_json([asdict(report) for report in reports])
    elif reports:
        print_table(
            table_console(),
            f"Sessions in {store}",
            [
                {
                    "session": report.alias,
                    "status": report.status,
                    "trials": report.n_trials,
                    "size": format_size(report.store_size_bytes),
                    "precision": report.precision,
                    "seconds": f"{report.duration_s:.1f}",
                    "store": report.path,
                }
                for report in reports
            ],
        )
        for report in reports:
            for note in report.notes:
                error_console().print(f"session {report.alias}: {note}", markup=False, soft_wrap=True)
    for failure in failures:
        _complain(str(failure))
    return max((failure.exit_status for failure in failures), default=EXIT_DONE)


@app.command
def inspect(
    store: Annotated[str, Parameter(help="Root of the session stores.")],
    session: Annotated[str | None, Parameter(help="One session: its trials by tier and its quality checks.")] = None,
    *,
    report: Annotated[
        Path | None, Parameter(help="Write the quality report, with pictures, to this HTML file. Default: none.")
    ] = None,
    jobs: Annotated[int, Parameter(help="Trials read at the same time; each takes about 50 MB.")] = 4,
    as_json: JsonOption = False,
) -> int:
    """Show what is in a store; with a session or --report, check its quality.

    Checking reads every video and response once. Exit status 1 if a check failed: a defect, or a contradiction to
    what is known of the session. Counts that differ from the published ones are noted and do not fail: a part of
    a session is no defect.
    """
    from flows.tables import error_console, print_table, table_console
    from sensorium_data.store import describe_session, describe_store

    if session is None and report is None:
        frame = describe_store(store)
        if as_json:
            _print_json(json.loads(frame.to_json(orient="records")))
        else:
            print_table(table_console(), f"Sessions in {store}", frame)
        return EXIT_DONE

    from sensorium_data.leakage import report_leakage
    from sensorium_data.quality import StoreQuality, check_session, check_store

    if report is not None:
        from sensorium_data.quality_report import require_writable, write_report

        # Before an hour of reading, not after it.
        require_writable(report)
    with _progress() as progress:
        if session is None:
            leakage = report_leakage(store).to_table()
            quality = check_store(store, leakage=leakage, jobs=_n_jobs(jobs), progress=progress)
        else:
            only = check_session(store, session, jobs=_n_jobs(jobs), progress=progress)
            quality = StoreQuality(store, (only,))
    if report is not None:
        write_report(report, quality)
    status = EXIT_DONE if quality.passed else EXIT_WRONG
    if session is None:
        if as_json:
            _print_json(quality.to_dict())
        else:
            print_table(table_console(), f"Quality of {store}", quality.to_table())
    else:
        (only,) = quality.sessions
        tiers = describe_session(store, session)
        if as_json:
            _print_json({"tiers": json.loads(tiers.to_json(orient="records")), "quality": only.to_dict()})
        else:
            print_table(table_console(), f"Trials of session {session}", tiers)
            print_table(table_console(), "Quality", only.to_table())
    if not as_json:
        table_console().print(f"\n{quality.describe()}.", markup=False, soft_wrap=True)
    if report is not None:
        error_console().print(f"{report}: written", markup=False, soft_wrap=True)
    return status


@app.command
def verify(
    store: Annotated[str, Parameter(help="Root of the session stores.")],
    *session: Annotated[str, Parameter(help="Sessions to verify. Default: all in the store.")],
    source: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative="",
            help="Compare every trial with the archives as well: folders or URLs, or gin for where they are published.",
        ),
    ] = None,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> int:
    """Recompute the digest of every stored object and compare it with the ledger. Exit status 1 if any differs."""
    from dataclasses import asdict

    from flows.tables import error_console, format_size, print_table, table_console
    from sensorium_data.errors import StoreError
    from sensorium_data.mirrors import open_archive
    from sensorium_data.sessions import find_sessions
    from sensorium_data.store import stored_sessions
    from sensorium_data.verification import compare_with_archive, verify_session

    reports = []
    n_jobs = _n_jobs(jobs)
    try:
        chosen = find_sessions(session) if session else stored_sessions(store)
        with _progress() as progress:
            for one in chosen:
                reports.append(verify_session(store, one.name, jobs=n_jobs, progress=progress))
                if source is not None:
                    with open_archive(one, [] if source == ["gin"] else source) as archive:
                        reports.append(compare_with_archive(store, one.name, archive, jobs=n_jobs, progress=progress))
    except StoreError as error:
        # A store that cannot be opened is a store found wrong.
        _complain(str(error))
        return EXIT_WRONG
    problems = [f"session {report.session}: {problem}" for report in reports for problem in report.problems]
    if as_json:
        _print_json([asdict(report) for report in reports])
    else:
        print_table(
            table_console(),
            f"Verification of {store}",
            [
                {
                    "session": report.session,
                    "compared with": report.compared_with,
                    "objects or trials": report.n_objects,
                    "size": format_size(report.size_bytes),
                    "result": f"{len(report.problems)} problems" if report.problems else "as it should be",
                }
                for report in reports
            ],
        )
    for problem in problems:
        error_console().print(problem, markup=False, soft_wrap=True)
    return EXIT_WRONG if problems else EXIT_DONE


@app.command
def train(
    preset: Annotated[
        str, Parameter(help="A model's name, e.g. factorized3d, or that with -debug for its small size.")
    ],
    *,
    store: StoreOption,
    sessions: Annotated[
        list[str] | None, ListOption, Parameter(help="Sessions to train on. Default: all in the store.")
    ] = None,
    runs: Annotated[str | None, Parameter(help="Folder of training runs. Default: runs.")] = None,
    settings: Annotated[
        list[str] | None, ListOption, Parameter(name="--set", help="Settings to change, e.g. --set max_epochs=3.")
    ] = None,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Train a model. A finished run of the same configuration on the same data is left alone."""
    from dataclasses import asdict

    from flows.progress import show_progress
    from flows.settings import Settings
    from flows.summaries import describe_epoch, read_summary
    from flows.tables import error_console, table_console
    from models.config import override
    from models.registry import get_preset
    from sensorium_data.sessions import find_sessions

    overrides = _key_values(settings or [])
    config = override(get_preset(preset), overrides)
    names = None if sessions is None else [s.name for s in find_sessions(sessions)]
    runs = runs or Settings().runs
    if _runs_as_flow(flow):
        from flows.train import train as train_flow

        report = train_flow(preset, store, names, runs, overrides)
    else:
        from models.training import train as train_model

        # One console for both: a line of another one would tear the bars.
        console = error_console()
        with show_progress(console) as progress:
            report = train_model(
                config,
                store,
                names,
                runs,
                progress=progress,
                on_epoch=lambda epoch: console.print(describe_epoch(epoch), markup=False),
            )
    if as_json:
        _print_json(asdict(report))
    else:
        table_console().print(f"{report.run}: {report.status}", markup=False, soft_wrap=True)
        table_console().print(read_summary(report), markup=False)
    return EXIT_DONE


@app.command
def predict(
    *run: Annotated[str, Parameter(help="Training runs; several make an ensemble by their mean.")],
    store: StoreOption,
    tier: Annotated[
        list[str], ListOption, Parameter(help="Tiers: oracle, live_test_main, …; test for the four test tiers; all.")
    ],
    out: Annotated[str, Parameter(help="The predictions store to write.")],
    flow: FlowOption = False,
) -> int:
    """Predict whole trials of some tiers into a predictions store."""
    from flows.tables import table_console
    from sensorium_data.sessions import Tier

    if not run:
        raise UsageError("no run named", expected="one training run or more", remedy="name the folders of the runs")
    chosen: set[Tier] = set()
    for name in tier:
        match name:
            case "all":
                chosen.update(Tier)
            case "test":
                chosen.update(one for one in Tier if one.is_test)
            case _:
                chosen.add(Tier.parse(name))
    tiers = [str(one) for one in Tier if one in chosen]
    if _runs_as_flow(flow):
        from flows.evaluate import predict as predict_flow

        report = predict_flow(list(run), store, tiers, out)
    else:
        from models.prediction import predict as predict_tiers

        with _progress() as progress:
            report = predict_tiers(list(run), store, tiers, out, progress=progress)
    table_console().print(
        f"{report.predictions}: {report.status}, {report.n_trials} trials", markup=False, soft_wrap=True
    )
    return EXIT_DONE


@app.command
def score(
    predictions: Annotated[str, Parameter(help="The predictions store.")],
    *,
    store: StoreOption,
    truth: Annotated[
        str | None,
        Parameter(help="Truth of simulated sessions: scores withheld tiers, and the best possible score beside each."),
    ] = None,
    flow: FlowOption = False,
    as_json: JsonOption = False,
) -> int:
    """Score predictions by session and tier, in the competition's units."""
    from flows.summaries import print_scores
    from flows.tables import error_console, table_console

    if _runs_as_flow(flow):
        from flows.evaluate import score as score_flow

        table = score_flow(predictions, store, truth)
    else:
        from sensorium_data.scoring import score_predictions

        with _progress() as progress:
            table = score_predictions(predictions, store, truth=truth, progress=progress)
    if as_json:
        sys.stdout.write(table.to_json() + "\n")
        return EXIT_DONE
    print_scores(table_console(), table)
    for reason in table.unscored:
        error_console().print(f"not scored: {reason}", markup=False, soft_wrap=True)
    return EXIT_DONE


@app.command
def submit(
    predictions: Annotated[str, Parameter(help="The predictions store.")],
    *,
    store: StoreOption,
    track: Annotated[Literal["main", "bonus"], Parameter(help="Which track's zips to write.")],
    frames: Annotated[
        Literal["official", "50-298", "51-299"],
        Parameter(help="Which frames of a trial the file holds; official: all but the first 50."),
    ] = "official",
    out: Annotated[str, Parameter(help="Folder for the zips.")] = "submission",
    flow: FlowOption = False,
) -> int:
    """Write a track's submission zips, validated before they get their names."""
    from flows.summaries import print_submission
    from flows.tables import error_console, table_console
    from sensorium_data.sessions import Track

    if _runs_as_flow(flow):
        from flows.submit import submit as submit_flow

        reports = submit_flow(predictions, store, out, [Track(track)], frames)
    else:
        from sensorium_data.submission import write_submission

        with _progress() as progress:
            reports = [
                write_submission(predictions, store, track=Track(track), frames=frames, out=out, progress=progress)
            ]
    console = table_console()
    for report in reports:
        print_submission(console, report)
        for note in (*report.notes, *report.validation.warnings):
            error_console().print(note, markup=False, soft_wrap=True)
    return EXIT_DONE


@app.command
def validate(
    *files: Annotated[str, Parameter(help="Submission zips, or Parquet files of one.")],
    store: StoreOption,
    as_json: JsonOption = False,
) -> int:
    """Check anybody's submission files; every violation at once. Exit status 1 if there is any."""
    from flows.tables import print_table, table_console
    from sensorium_data.validation import validate_submission

    if not files:
        raise UsageError("no file named", expected="zips or Parquet files", remedy="name the files to validate")
    with _progress() as progress:
        report = validate_submission(list(files), store, progress=progress)
    if as_json:
        sys.stdout.write(report.to_json() + "\n")
    else:
        print_table(table_console(), "Checks", report.to_frame())
        for finding in (*report.violations, *report.warnings):
            sys.stderr.write(f"{finding}\n")
    return EXIT_WRONG if report.violations else EXIT_DONE


def _progress() -> Any:
    from flows.progress import show_progress
    from flows.tables import error_console

    return show_progress(error_console())


def _n_jobs(jobs: int | None) -> int:
    from flows.settings import Settings

    if jobs is not None and jobs < 1:
        raise UsageError("--jobs", found=jobs, expected="a number from 1 up")
    return jobs or Settings().jobs or os.cpu_count() or 1


def _runs_as_flow(asked: bool) -> bool:
    """Whether to run the flow, preparing the embedded server if no server is named."""
    from flows.embedded import prefer_embedded_server, require_server, server_is_configured

    if server_is_configured():
        require_server()
        return True
    if asked:
        prefer_embedded_server()
    return asked


def _key_values(settings: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise UsageError("--set", found=repr(setting), expected="key=value", remedy="e.g. --set max_epochs=3")
        pairs[key] = value
    return pairs


def _complain(message: str, hint: str = "") -> None:
    sys.stderr.write(f"sensorium: {message}{hint}\n")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
