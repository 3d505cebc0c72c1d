"""The flows on Prefect's embedded server: what they leave, and that a rerun leaves it alone."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling, Crashed

from fixtures.command_line import run_command
from fixtures.own_models import WITH_HELPER, no_trust, write_files
from fixtures.places import CHECKOUT
from fixtures.simulation import SIZE
from flows.watching import RunCanceled, watched
from models.runs import load_run
from sensorium_data.errors import RunError, SensoriumError, SourceError
from sensorium_data.sessions import Session, find_session
from sensorium_data.simulation import simulate

if TYPE_CHECKING:
    from flows.pipeline import PipelineReport

pytestmark = [pytest.mark.flows, pytest.mark.usefixtures("prefect_server")]


def artifact_keys() -> set[str]:
    with get_client(sync_client=True) as client:
        return {artifact.key for artifact in client.read_artifacts() if artifact.key}


def latest_artifact(key: str) -> str:
    """What the newest artifact of a key holds."""
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_latest_artifacts(
            artifact_filter=ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
        )
    assert isinstance(artifact.data, str)
    return artifact.data


def contents(root: Path) -> dict[str, int]:
    """Every file below ``root`` with the time it was written."""
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.slow  # runs two whole pipelines
def test_pipeline_end_to_end_and_again(archives: Path, tmp_path: Path) -> None:
    from flows.pipeline import pipeline

    arguments = {
        "sessions": ["D", "F"],
        "store": str(tmp_path / "store"),
        "out": str(tmp_path / "out"),
        "preset": "factorized3d-debug",
        "source": str(archives),
        "runs": str(tmp_path / "runs"),
        "overrides": {"max_epochs": "1"},
        "truth": str(archives / "truth"),
    }
    first = pipeline(**arguments)
    assert [report.status for report in first.ingested] == ["converted", "converted"]
    assert first.trained.status == "trained"
    names = {Path(file.path).name for submission in first.submissions for file in submission.files}
    assert names == {"submission_main.zip", "submission_bonus_live.zip", "submission_bonus_final.zip"}
    keys = {"ingest", "quality", "quality-f", "leakage", "training-factorized3d-debug", "scores"}
    assert keys <= artifact_keys()
    keys = {"submission-checks-main", "curves-factorized3d-debug", "run-factorized3d-debug"}
    assert keys <= artifact_keys()
    # What is over is not in work any more.
    assert not {key for key in artifact_keys() if key.startswith("progress")}
    page = read_result(first)

    before = contents(tmp_path)
    second = pipeline(**arguments)
    assert [report.status for report in second.ingested] == ["already done", "already done"]
    assert second.trained.status == "already done"
    assert [submission.status for submission in second.submissions] == ["already done", "already done"]
    assert contents(tmp_path) == before
    assert read_result(second) == page.replace("training run, trained", "training run, already done")


@pytest.mark.slow  # runs a whole pipeline
def test_a_pipeline_of_a_model_of_ones_own(
    archives: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.evaluate import predict
    from flows.pipeline import pipeline

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_files(tmp_path / "lab", WITH_HELPER)
    report = pipeline(
        sessions=["F"],
        store=str(shutil.copytree(store, tmp_path / "store")),
        out=str(tmp_path / "out"),
        preset=f"{tmp_path}/lab/net.py:Frames",
        source=str(archives),
        runs=str(tmp_path / "runs"),
        overrides={"max_epochs": "1"},
    )
    run = load_run(report.trained.run)
    assert (report.trained.status, run.config.name) == ("trained", "Frames")
    assert (run.path / "code/parts/layers.py").read_text() == WITH_HELPER["parts/layers.py"]
    assert {"training-frames", "curves-frames", "run-frames"} <= artifact_keys()
    assert all(submission.validation.passed for submission in report.submissions)
    no_trust(monkeypatch, tmp_path / "elsewhere")
    arguments = ([report.trained.run], str(tmp_path / "store"), ["oracle"], str(tmp_path / "predictions"), ["F"])
    with pytest.raises(RunError, match="brings code of its own"):
        predict(*arguments)
    assert predict(*arguments, trust_code=True).status == "predicted"


def read_result(report: PipelineReport) -> str:
    """The only artifact of the newest pipeline's own run, which says what there is to know of it."""
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["pipeline"])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=1,
        )
        (artifact,) = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    assert artifact.key == "pipeline-result"
    assert artifact.task_run_id is None
    page = str(artifact.data)
    assert page.startswith("**3 zips to upload, no violation found by the validator")
    places = [report.trained.run, report.scores.predictions]
    for submission in report.submissions:
        places += [submission.card, *(file.path for file in submission.files)]
        assert all(file.sha256 in page for file in submission.files)
        assert (
            f"| {submission.track} | {len(submission.validation.checks)} | 0 | {len(submission.validation.warnings)} |"
            in page
        )
    assert all(f"`{place}`" in page for place in places)
    whole = report.scores.to_frame().query("stimulus == 'all'")
    for row in whole.to_dict(orient="records"):
        score, low, high = (row[f"single_trial_correlation{end}"] for end in ("", "_low", "_high"))
        start = f"| {row['alias']} | {row['tier']} | {row['n_trials']} | {score:z.3f}"
        assert f"{start} ({low:z.3f}" in page
        assert f"{high:z.3f})" in page
    assert "Share of ceiling" in page
    assert "- preset: `factorized3d-debug`\n- settings that differ from it: `max_epochs=1`\n" in page
    assert f"- epochs trained: 1\n- best epoch: {report.trained.best_epoch}\n" in page
    for session in report.ingested:
        assert re.search(rf"\| {session.alias} \| 0 \| \d+ \| \d+ \| 20\d\d-", page), "the session's checks"
    return page


@pytest.mark.slow  # runs three whole pipelines
def test_a_changed_archive_alone_is_converted_and_only_then_is_trained_again(archives: Path, tmp_path: Path) -> None:
    from flows.pipeline import pipeline

    sources = tmp_path / "sources"
    shutil.copytree(archives, sources)
    arguments = {
        "sessions": ["D", "F"],
        "store": str(tmp_path / "store"),
        "out": str(tmp_path / "out"),
        "preset": "factorized3d-debug",
        "source": str(sources),
        "runs": str(tmp_path / "runs"),
        "overrides": {"max_epochs": "1", "n_windows_per_trial": "1"},
    }
    first = pipeline(**arguments)
    changed = find_session("D")
    simulate(tmp_path / "new", sessions=[changed], **SIZE | {"seed": 4})
    shutil.copy(tmp_path / "new" / f"{changed.name}.zip", sources)
    untouched = contents(tmp_path / "store" / find_session("F").name)

    second = pipeline(**arguments)
    assert [report.status for report in second.ingested] == ["updated", "already done"]
    assert contents(tmp_path / "store" / find_session("F").name) == untouched
    assert second.trained.status == "trained"
    assert second.trained.run != first.trained.run
    assert Path(first.trained.run).is_dir()
    third = pipeline(**arguments)
    assert [report.status for report in third.ingested] == ["already done", "already done"]
    assert (third.trained.status, third.trained.run) == ("already done", second.trained.run)


@pytest.mark.slow  # reads two sessions
def test_the_quality_of_a_store_names_the_sessions_that_were_not_checked_anew(store: Path) -> None:
    from flows.quality import quality

    quality(str(store), ["F"])
    page = latest_artifact("quality")
    assert page.startswith("**No check failed in 1 session (1 checked anew; 1 more not checked with this content;")
    assert page.endswith("| D |  |  |  | never, as it is now |")
    quality(str(store), ["D"])
    page = latest_artifact("quality")
    assert page.startswith("**No check failed in 2 sessions (1 checked anew; 1 earlier;")
    assert re.search(r"Not checked anew:\n\n.*\n.*\n\| F \| 0 \| \d+ \| \d+ \| 20\d\d-\S+ \S+ UTC \|$", page)


def tiny_training(store: Path, runs: Path, **overrides: object) -> dict[str, Any]:
    """Arguments of the flow `train` for a run that takes a second an epoch."""
    small = {"model.channels": "2,2", "n_windows_per_trial": 1} | overrides
    return {
        "preset": "factorized3d-debug",
        "store": str(store),
        "sessions": ["F"],
        "runs": str(runs),
        "overrides": small,
        "device": "cpu",
    }


@pytest.mark.slow
def test_an_ensemble_trains_each_seed_once(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import train as train_module
    from models.runs import find_members

    arguments = tiny_training(store, tmp_path, max_epochs=1) | {"seeds": 2}
    first = train_module.train_ensemble(**arguments)
    assert first.status == "trained"
    assert find_members(tmp_path, "factorized3d-debug-2-seeds") == tuple(report.run for report in first.runs)
    assert [load_run(report.run).config.seed for report in first.runs] == [0, 1]
    monkeypatch.setattr(train_module, "supervise_training", lambda *_, **__: pytest.fail("a process is started"))
    assert train_module.train_ensemble(**arguments).status == "already done"


@pytest.mark.slow
def test_folds_learn_from_the_teachers_of_their_folds(store: Path, tmp_path: Path) -> None:
    from flows import evaluate as evaluate_module
    from flows import train as train_module

    arguments = tiny_training(store, tmp_path, max_epochs=1, distillation_ratio=0.36)
    both = arguments | {"sessions": ["D", "F"], "folds": 2, "all_folds": True}
    taught = {**both, "overrides": {**both["overrides"], "distillation_ratio": None}}
    first = train_module.train_ensemble(**taught, ensemble="first")
    second = train_module.train_ensemble(**both, ensemble="second", teachers=["first"])
    assert (first.folds, second.status) == ((0, 1), "trained")
    assert [load_run(one.run).config.teacher for one in second.runs] == [one.run for one in first.runs]
    # One of them again, as a run of its own.
    alone = {name: value for name, value in both.items() if name != "all_folds"} | {"fold": 1}
    assert train_module.train(**alone, teacher=first.runs[1].run).status == "already done"
    predictions = tmp_path / "predictions"
    report = evaluate_module.predict(
        [one.run for one in (*first.runs, *second.runs)], str(store), ["oracle"], str(predictions), device="cpu"
    )
    assert len(report.runs) == 4


def test_training_leaves_its_epochs_and_curves_and_is_done_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flows import train as train_module

    arguments = tiny_training(store, tmp_path, max_epochs=2)
    first = train_module.train(**arguments)
    assert first.status == "trained"
    table, curves, summary = (latest_artifact(f"{name}-factorized3d-debug") for name in ("training", "curves", "run"))
    rows = json.loads(table)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[-1]["correlation F"] == pytest.approx(load_run(first.run).metrics()[-1].correlation, abs=1e-5)
    for text in (curves, summary):
        (picture,) = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
        assert base64.b64decode(picture).startswith(b"\x89PNG")

    monkeypatch.setattr(train_module, "supervise_training", lambda *_, **__: pytest.fail("a process is started"))
    caplog.clear()
    second = train_module.train(**arguments)
    assert second == dataclasses.replace(first, status="already done")
    assert "already done" in caplog.text
    assert latest_artifact("run-factorized3d-debug").startswith("Already done")


@pytest.mark.slow  # a flow and its training in processes of their own
def test_a_flow_that_is_asked_to_end_leaves_a_run_to_continue_and_no_process(store: Path, tmp_path: Path) -> None:
    arguments = tiny_training(store, tmp_path / "runs", max_epochs=1_000_000)
    code = f"from flows.train import train\ntrain(**{arguments!r})"
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
    ) as flow_process:
        assert flow_process.stderr is not None
        log = ""
        for line in flow_process.stderr:
            log += line
            if "epoch 1:" in line:
                flow_process.terminate()
        # The pipe is at its end, so that whoever wrote to it is gone: the flow, and the training with it.
        assert flow_process.wait(30) == -signal.SIGTERM, log
    (pid,) = re.findall(r"training in process (\d+)", log)
    assert not Path(f"/proc/{pid}").exists()
    (unfinished,) = (tmp_path / "runs").iterdir()
    assert unfinished.suffix == ".partial"
    assert "Traceback" not in log


def test_wrong_settings_are_refused_in_one_line(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from flows.train import train

    with pytest.raises(SensoriumError, match="did you mean learning_rate"):
        train(**tiny_training(store, tmp_path, learning_rat=1))
    assert "Traceback" not in caplog.text
    assert not list(tmp_path.iterdir())


def test_the_limit_on_gpu_tasks_is_kept_where_the_server_has_one(caplog: pytest.LogCaptureFixture) -> None:
    from flows.training import GPU_LIMIT
    from flows.training.gpu_limit import gpu_slot

    def count_taken() -> int:
        with get_client(sync_client=True) as client:
            return client.read_global_concurrency_limit_by_name(GPU_LIMIT).active_slots

    @flow
    def two_gpu_tasks() -> list[int]:
        taken = []
        with gpu_slot():
            pass
        with get_client(sync_client=True) as client:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))
        with gpu_slot():
            taken.append(count_taken())
        return [*taken, count_taken()]

    assert two_gpu_tasks() == [1, 0]
    assert sum("no concurrency limit gpu" in record.getMessage() for record in caplog.records) == 1


def wait_for_state(run: UUID, name: str) -> None:
    """Wait until the server has a flow run in a state."""
    give_up_s = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while client.read_flow_run(run).state_name != name:
            assert time.monotonic() < give_up_s, name
            time.sleep(0.1)


def own_run() -> UUID:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run.id


@pytest.fixture
def close_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs look at their state all the time."""
    monkeypatch.setattr("flows.watching.run_watch._POLL_S", 0.2)


@pytest.mark.usefixtures("close_watch")
def test_a_run_that_was_taken_for_crashed_completes() -> None:
    @watched
    @flow
    def work() -> str:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(own_run(), Crashed(message="nothing was heard"), force=True)
        wait_for_state(own_run(), "Running")
        return str(own_run())

    run = UUID(work())
    with get_client(sync_client=True) as client:
        history = [state.name for state in client.read_flow_run_states(run)]
    assert history[-3:] == ["Crashed", "Running", "Completed"]


@pytest.mark.usefixtures("close_watch")
def test_a_canceled_run_ends_with_its_parts_and_is_reported_so() -> None:
    runs: list[UUID] = []
    cleared: list[str] = []

    @watched
    @flow
    def part() -> None:
        runs.append(own_run())
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(runs[0], Cancelling(), force=True)
        try:
            time.sleep(60)
        finally:
            cleared.append("part")

    @watched
    @flow
    def whole() -> None:
        runs.append(own_run())
        part()

    with pytest.raises(RunCanceled):
        whole()
    assert cleared == ["part"]
    with get_client(sync_client=True) as client:
        assert [client.read_flow_run(run).state_name for run in runs] == ["Cancelled", "Cancelled"]


@pytest.mark.usefixtures("close_watch")
def test_a_run_fails_if_a_part_of_it_alone_is_canceled() -> None:
    runs: list[UUID] = []

    @watched
    @flow
    def part() -> None:
        runs.append(own_run())
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(runs[1], Cancelling(), force=True)
        time.sleep(60)

    @watched
    @flow
    def whole() -> None:
        runs.append(own_run())
        part()

    with pytest.raises(SensoriumError, match="a part of this run was canceled"):
        whole()
    with get_client(sync_client=True) as client:
        assert [client.read_flow_run(run).state_name for run in runs] == ["Failed", "Cancelled"]


def test_progress_told_by_threads_belongs_to_the_task_that_started_them() -> None:
    from flows.reporting import run_progress

    @task(cache_policy=NO_CACHE)
    def step(name: str) -> str:
        progress = run_progress()

        def work(part: str) -> None:
            for n_done in range(3):
                progress(f"{name} {part}", n_done, 3, n_bytes=1000 * n_done)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, ["left", "right"]))
        return str(TaskRunContext.get().task_run.id)

    def read_progress() -> dict[str, Artifact]:
        with get_client(sync_client=True) as client:
            keys = ("progress-one", "progress-two")
            return {a.key: a for a in client.read_artifacts() if a.key and a.key.startswith(keys)}

    @watched
    @flow
    def two_steps() -> tuple[dict[str, str], dict[str, Artifact]]:
        beside = step.submit("one")
        return {"two": step("two"), "one": beside.result()}, read_progress()

    runs, found = two_steps()
    assert set(found) == {f"progress-{name}-{part}" for name in ("one", "two") for part in ("left", "right")}
    # What is over is gone.
    assert read_progress() == {}
    for key, artifact in found.items():
        assert artifact.type == "progress"
        assert artifact.data == 0
        assert "0 of 3" in artifact.description
        assert str(artifact.task_run_id) == runs[key.split("-")[1]]


def test_one_failing_session_does_not_keep_the_others(
    archives: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from flows.ingest import ingest

    # G is not among the archives.
    with pytest.raises(SensoriumError, match=find_session("G").name):
        ingest(["F", "G"], str(tmp_path / "store"), str(archives))
    assert (tmp_path / "store" / find_session("F").name / "zarr.json").exists()
    assert "Traceback" not in caplog.text
    # The task says it; its flow fails of the same.
    assert caplog.text.count("there is no such file") == 1


def test_commands_run_their_flow_where_a_server_is_configured(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    done = run_command(capsys, "ingest", "F", "--store", tmp_path / "store", "--source", archives, "--json")
    assert done.status == 0
    assert json.loads(done.out)[0]["status"] == "converted"
    with get_client(sync_client=True) as client:
        assert "ingest" in {client.read_flow(run.flow_id).name for run in client.read_flow_runs()}

    refused = run_command(capsys, "ingest", "F", "--store", tmp_path / "other", "--source", tmp_path / "nowhere")
    assert refused.status == 2
    assert "Traceback" not in refused.err
    assert refused.err.splitlines()[-1].startswith("sensorium: ")
    assert "nowhere" in refused.err.splitlines()[-1]


def test_sessions_are_converted_side_by_side_and_every_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.ingest import ingest

    both = threading.Barrier(2, timeout=60)

    def convert(session: Session, *_: object, **__: object) -> None:
        # One after the other, the first would wait for ever.
        both.wait()
        raise SourceError("no such archive", session=session)

    monkeypatch.setattr("sensorium_data.ingest.session_converter.convert_session", convert)
    with pytest.raises(SensoriumError, match="2 of 2 sessions could not be converted") as error:
        ingest(["D", "F"], str(tmp_path / "store"), str(tmp_path))
    for alias in "DF":
        assert find_session(alias).name in str(error.value)


def test_ingest_leaves_the_quality_report(archives: Path, tmp_path: Path) -> None:
    from flows.ingest import ingest

    page = tmp_path / "reports" / "quality.html"
    ingest(["F"], str(tmp_path / "store"), str(archives), quality_report=str(page))
    assert "No check failed in 1 session" in page.read_text(encoding="utf-8")
    with get_client(sync_client=True) as client:
        summaries = [artifact.data for artifact in client.read_artifacts() if artifact.key == "quality"]
    assert any("No check failed in 1 session" in text and str(page) in text for text in summaries)
