"""A server, its workers and the deployments, in processes of their own, used over the API."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.schema_tools import validate
from pytest_httpserver import HTTPServer

from fixtures.lab import Lab, run_lab
from fixtures.places import CHECKOUT
from fixtures.stores import read_files
from fixtures.waiting import wait_until
from flows.lab.automations import FAILURES_AUTOMATION, HEARTBEAT_S, WEBHOOK_BLOCK
from sensorium_data.sessions import find_session
from sensorium_data.testing import Throttle, serve_directory

pytestmark = pytest.mark.flows

F = find_session("F")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

DEPLOYMENTS = {"ingest/ingest", "quality/quality", "train/train", "evaluate/evaluate", "submit/submit"}
DEPLOYMENTS |= {"pipeline/pipeline", "predict/predict", "train-ensemble/train-ensemble"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab on a network whose proxy must not be asked for this machine; here it answers nobody."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY"):
            patch.delenv(name, raising=False)
        for name in ("http_proxy", "HTTP_PROXY", "ws_proxy", "all_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        # Its workers start when there is a run for them.
        with run_lab(tmp_path_factory.mktemp("lab"), pools=()) as lab:
            yield lab


@dataclass(frozen=True)
class DeployedTwice:
    """What a second ``sensorium deploy`` said and did."""

    rows: list[dict[str, str]]
    store: Path
    #: Whether schedules were on after the first one, by deployment.
    active_at_first: dict[str, bool]
    #: The schedules of ``train`` (switched on in between) and of ``ingest`` (another time too) after the second one.
    schedules: dict[str, str]
    #: What a dry run said before it, and what it said after it.
    dry_runs: tuple[list[dict[str, str]], list[dict[str, str]]]


@pytest.fixture(scope="module")
def deployed_twice(lab: Lab, make_httpserver: HTTPServer, tmp_path_factory: pytest.TempPathFactory) -> DeployedTwice:
    """Deploy once more after people changed schedules and parameters, for other places and with a webhook."""
    names = ("train/train", "ingest/ingest")
    active_at_first = {name: read_schedule(lab, name).active for name in names}
    train, ingest = (lab.client.read_deployment_by_name(name) for name in names)
    lab.client.update_deployment_schedule(train.id, read_schedule(lab, "train/train").id, active=True)
    weekly = CronSchedule(cron="30 4 * * 1", timezone="Europe/Berlin")
    lab.client.update_deployment_schedule(
        ingest.id, read_schedule(lab, "ingest/ingest").id, active=True, schedule=weekly
    )
    lab.client.update_deployment(ingest.id, DeploymentUpdate(parameters={**ingest.parameters, "jobs": 2}))
    folder = tmp_path_factory.mktemp("lab")
    store, webhook = folder / "store", make_httpserver.url_for("/hook")
    asked = ("--store", store, "--runs", folder / "runs", "--source", "s3://lab/archives", "--preset", "factorized3d")
    before = lab.deploy("--dry-run", *asked)
    rows = lab.deploy(*asked, "--notify", webhook)
    after = lab.deploy("--dry-run", *asked)
    schedules = {}
    for name in names:
        schedule = read_schedule(lab, name)
        assert isinstance(schedule.schedule, CronSchedule)
        schedules[name] = f"{schedule.schedule.cron} {schedule.schedule.timezone} {schedule.active}"
        lab.client.update_deployment_schedule(lab.client.read_deployment_by_name(name).id, schedule.id, active=False)
    return DeployedTwice(rows, store, active_at_first, schedules, (before, after))


def read_schedule(lab: Lab, deployment: str) -> DeploymentSchedule:
    """The only schedule of a deployment."""
    (schedule,) = lab.client.read_deployment_schedules(lab.client.read_deployment_by_name(deployment).id)
    return schedule


def contents(root: Path) -> dict[str, int]:
    """Every file below ``root`` with the time it was written."""
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in sorted(root.rglob("*")) if p.is_file()}


def pipeline_parameters(archives: Path, folder: Path) -> dict[str, Any]:
    """Parameters of a pipeline that takes seconds."""
    small = {"max_epochs": 1, "n_windows_per_trial": 1, "model.channels": [2, 2]}
    return {
        "sessions": ["F"],
        "store": str(folder / "store"),
        "out": str(folder / "out"),
        "preset": "factorized3d-debug",
        "source": str(archives),
        "runs": str(folder / "runs"),
        "overrides": small,
        "truth": str(archives / "truth"),
    }


@pytest.mark.slow  # deploys three times; the tests of schedules and deployments compare without a server
def test_deploy_may_be_repeated_and_leaves_alone_what_people_set(lab: Lab, deployed_twice: DeployedTwice) -> None:
    # Nothing starts by itself on a machine that only tries the project out.
    assert deployed_twice.active_at_first == {"train/train": False, "ingest/ingest": False}
    rows = [row for row in deployed_twice.rows if row["name"] not in (FAILURES_AUTOMATION, WEBHOOK_BLOCK)]
    assert {row["name"] for row in rows if row["kind"] == "deployment"} == DEPLOYMENTS
    assert {row["status"] for row in rows if row["kind"] == "deployment"} == {"updated"}
    before, after = deployed_twice.dry_runs
    settings = {"parameters.store", "parameters.runs", "parameters.runs_folder", "parameters.source"}
    assert {row["setting"] for row in before} == settings
    assert {row["name"] for row in before if row["setting"] == "parameters.runs"} == {
        "train/train",
        "train-ensemble/train-ensemble",
        "submit/submit",
        "pipeline/pipeline",
    }
    assert after == []
    assert {row["status"] for row in rows if row["kind"] != "deployment"} == {"already there"}
    assert [row["name"] for row in rows if row["kind"] == "work pool"] == ["cpu", "gpu"]
    ingest = lab.client.read_deployment_by_name("ingest/ingest")
    assert ingest.parameters["store"] == str(deployed_twice.store)
    assert ingest.parameters["source"] == ["s3://lab/archives"]
    assert ingest.parameters["sessions"] == ["new"]
    assert ingest.parameters["jobs"] == 2
    assert deployed_twice.schedules == {
        "train/train": "0 5 * * * UTC True",
        "ingest/ingest": "30 4 * * 1 Europe/Berlin True",
    }


@pytest.mark.slow  # runs four commands of Prefect
@pytest.mark.usefixtures("deployed_twice")
def test_schedules_are_switched_by_the_lines_of_the_documentation(lab: Lab) -> None:
    page = (CHECKOUT / "docs" / "orchestration.md").read_text()
    schedule = read_schedule(lab, "ingest/ingest")
    switches = []
    for line in re.findall(r"^(prefect deployment schedule .*?) *#", page, re.MULTILINE):
        command = [sys.executable, "-m", *line.replace(" ID", f" {schedule.id}").split()]
        done = subprocess.run(
            command, env=os.environ | lab.server.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        switches.append(read_schedule(lab, "ingest/ingest").active)
    assert switches == [False, True, False, True]
    for name in ("ingest/ingest", "train/train"):
        deployment = lab.client.read_deployment_by_name(name)
        lab.client.update_deployment_schedule(deployment.id, read_schedule(lab, name).id, active=False)


@pytest.mark.slow  # deploys three times
@pytest.mark.usefixtures("deployed_twice")
def test_a_changed_schedule_arrives_beside_one_that_people_added(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = lab.client.read_deployment_by_name("train/train")
    (added,) = lab.client.create_deployment_schedules(train.id, [(CronSchedule(cron="0 12 * * *"), False)])
    described = (CHECKOUT / "prefect.yaml").read_text()
    file = tmp_path / "prefect.yaml"
    file.write_text(described.replace("0 5 * * *", "30 5 * * *").replace("0 3 * * *", "30 3 * * *"))
    (change,) = lab.deploy("--file", file, "--dry-run")
    # The server has them in no order.
    before, after = (set(change[when].split(", ")) for when in ("before", "after"))
    assert change["name"] == "train/train"
    assert before == {"nightly 0 5 * * * off", "0 12 * * * off"}
    assert after == {"nightly 30 5 * * * off", "0 12 * * * off"}
    lab.deploy("--file", file)
    # Somebody has changed its time before.
    said = "ingest/ingest: the schedule nightly 0 3 * * * off stays as people have set it on the server, nightly 30 4"
    assert capsys.readouterr().err.count(said) == 2
    crons = {one.schedule.cron: one for one in lab.client.read_deployment_schedules(train.id)}  # type: ignore[union-attr]
    assert crons.keys() == {"30 5 * * *", "0 12 * * *"}
    # What is described no more goes.
    file.write_text(re.sub(r"    schedules:\n(      .*\n)+", "", described))
    lab.deploy("--file", file)
    (left,) = lab.client.read_deployment_schedules(train.id)
    assert left.schedule == added.schedule
    lab.client.delete_deployment_schedule(train.id, left.id)
    lab.deploy()


@pytest.mark.slow  # a server, and a deployment; tests/unit/flows/lab/test_forms.py looks at the forms without them
def test_forms_have_descriptions_and_bounds(lab: Lab) -> None:
    for name in DEPLOYMENTS:
        deployment = lab.client.read_deployment_by_name(name)
        assert deployment.description
        assert "sensorium" in deployment.tags
        assert deployment.enforce_parameter_schema
        properties = (deployment.parameter_openapi_schema or {})["properties"]
        assert all(one.get("description") for one in properties.values()), name
        assert set(deployment.parameters) <= set(properties)
    train = lab.client.read_deployment_by_name("train/train")
    # The server refuses what this refuses.
    given = {"preset": "factorized3d", "store": "store", "overrides": {"max_epochs": 3, "cache": "none"}}
    validate(given, train.parameter_openapi_schema or {}, raise_on_error=True)


@pytest.mark.slow  # two pipelines in processes of the workers take most of a minute; `make demo` runs one
def test_pipeline_over_the_api_and_again(lab: Lab, archives: Path, tmp_path: Path) -> None:
    parameters = pipeline_parameters(archives, tmp_path)
    done = lab.finish("pipeline/pipeline", **parameters)
    # A worker with a GPU is only needed to train and predict.
    assert done.work_pool_name == "cpu"
    parts = {lab.client.read_flow(one.flow_id).name: one.work_pool_name for one in lab.subflows(done.id)}
    assert {name for name, pool in parts.items() if pool == "gpu"} == {"train", "predict"}
    assert parts.keys() == {"ingest", "train", "predict", "score", "submit"}
    (run,) = (tmp_path / "runs").iterdir()
    assert (tmp_path / "store").is_dir()
    zips = {path.name for path in (tmp_path / "out").rglob("*.zip")}
    assert zips == {"submission_main.zip", "submission_bonus_live.zip", "submission_bonus_final.zip"}
    assert {"ingest", "quality", "scores", "submission-checks-main", f"run-{run.name[:-9]}"} <= lab.artifact_keys()
    before = contents(tmp_path)
    again = lab.finish("pipeline/pipeline", **parameters)
    assert contents(tmp_path) == before
    # Nothing of it waits for a worker with a GPU.
    parts = {lab.client.read_flow(one.flow_id).name for one in lab.subflows(again.id)}
    assert parts == {"ingest", "score", "submit"}


@pytest.mark.slow  # runs a pipeline up to its training
def test_a_canceled_pipeline_cancels_the_training_in_another_pool(lab: Lab, archives: Path, tmp_path: Path) -> None:
    parameters = pipeline_parameters(archives, tmp_path)
    parameters["overrides"] |= {"max_epochs": 1000000}
    run = lab.start("pipeline/pipeline", **parameters)
    wait_until(lambda: "epoch 1:" in lab.log(run), "an epoch is trained", 180)
    training = find_training(lab.log(run))
    (part,) = (one for one in lab.subflows(run) if one.work_pool_name == "gpu")
    lab.cancel(run)
    for one in (run, part.id):
        state = lab.wait_for(one, timeout_s=120).state
        assert state is not None
        assert state.is_cancelled(), state
    wait_until(lambda: not is_running(training), "the training has ended", 180)


@pytest.mark.slow  # runs a pipeline up to its training
def test_a_failure_in_another_pool_fails_the_pipeline_with_its_message(
    lab: Lab, archives: Path, tmp_path: Path
) -> None:
    parameters = pipeline_parameters(archives, tmp_path)
    parameters["overrides"] |= {"device": "cuda"}
    run = lab.start("pipeline/pipeline", **parameters)
    state = lab.wait_for(run).state
    assert state is not None
    assert state.is_failed(), state
    (part,) = (one for one in lab.subflows(run) if one.work_pool_name == "gpu")
    failed = lab.read(part.id).state
    assert failed is not None
    reason = (failed.message or "").partition("Error: ")[2]
    assert reason
    assert f"train/train ended as Failed: found {reason}" in (state.message or "")
    own = "train/train ended as Failed"
    wait_until(lambda: own in lab.log(run), "the failure is in the log", 60)
    assert lab.log(run).count(own) == 1
    assert "Traceback" not in lab.log(run)


def tiny_training(store: Path, runs: Path, **overrides: object) -> dict[str, Any]:
    """Parameters of a training whose epochs take a second."""
    small = {"model.channels": "2,2", "n_windows_per_trial": 1, "checkpoint_every_steps": 1} | overrides
    return {
        "preset": "factorized3d-debug",
        "store": str(store),
        "sessions": ["F"],
        "runs": str(runs),
        "overrides": small,
        "device": "cpu",
    }


def find_training(log: str) -> int:
    """The process id of the last training that a log tells of."""
    return int(re.findall(r"training in process (\d+)", log)[-1])


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.slow  # waits for a worker to be given up
def test_worker_killed_during_ingest(lab: Lab, archives: Path, store: Path, tmp_path: Path) -> None:
    (ours,) = (path for path in store.iterdir() if path.name == F.name)
    with serve_directory(archives, faults=[Throttle(1_000_000)]) as server:
        parameters = {"sessions": ["F"], "store": str(tmp_path / "store"), "source": server.url, "jobs": 2}
        run = lab.start("ingest/ingest", **parameters)
        wait_until(lambda: any((tmp_path / "store").rglob("responses/c/*")), "a trial is written", 180)
        lab.kill_worker("cpu")
        assert not (tmp_path / "store" / F.name).exists()
        state = lab.wait_for(run, timeout_s=120).state
    assert state is not None
    assert state.is_crashed(), state
    lab.start_worker("cpu")
    lab.finish("ingest/ingest", **parameters | {"source": str(archives)})
    found, expected = (read_files(root) for root in (tmp_path / "store" / F.name, ours))
    assert found == expected


@pytest.mark.slow  # three runs in processes of the worker
def test_ingests_go_side_by_side_and_those_of_one_session_wait_for_each_other(
    lab: Lab, archives: Path, tmp_path: Path
) -> None:
    with serve_directory(archives, faults=[Throttle(500_000)]) as server:
        parameters = {"store": str(tmp_path / "store"), "source": server.url, "jobs": 2}
        first = lab.start("ingest/ingest", sessions=["F"], **parameters)
        wait_until(lambda: any((tmp_path / "store").rglob("responses/c/*")), "a trial is written", 180)
        second = lab.start("ingest/ingest", sessions=["F"], **parameters)
        wait_until(lambda: "another run" in lab.log(second), "the second one waits", 180)
        lab.finish("ingest/ingest", sessions=["D"], **parameters | {"source": str(archives)})
        assert [lab.read(run).state_name for run in (first, second)] == ["Running", "Running"]
        lab.cancel(first)
        lab.cancel(second)
        for run in (first, second):
            assert lab.wait_for(run, timeout_s=120).state_name == "Cancelled"
    assert not (tmp_path / "store" / F.name).exists()


@pytest.mark.slow  # trains twice over a server
def test_worker_killed_during_training(lab: Lab, store: Path, tmp_path: Path) -> None:
    parameters = tiny_training(store, tmp_path / "killed", max_epochs=12)
    run = lab.start("train/train", **parameters)
    wait_until(lambda: "epoch 2:" in lab.log(run), "two epochs are trained", 180)
    training = find_training(lab.log(run))
    lab.kill_worker("gpu")
    state = lab.wait_for(run, timeout_s=120).state
    assert state is not None
    assert state.is_crashed(), state
    wait_until(lambda: not is_running(training), "the training has ended with its flow", 180)
    lab.start_worker("gpu")
    again = lab.finish("train/train", **parameters)
    assert "epoch 1:" not in lab.log(again.id)
    lab.finish("train/train", **parameters | {"runs": str(tmp_path / "undisturbed")})
    (killed,), (undisturbed,) = (list((tmp_path / name).iterdir()) for name in ("killed", "undisturbed"))
    assert killed.name == undisturbed.name
    weights = [(path / "model.safetensors").read_bytes() for path in (killed, undisturbed)]
    assert weights[0] == weights[1]


@pytest.mark.slow  # waits for the automation's 90 s
def test_run_on_a_machine_that_lost_power_is_ended(lab: Lab, store: Path, tmp_path: Path) -> None:
    parameters = tiny_training(store, tmp_path / "runs", max_epochs=1_000_000)
    run = lab.start("train/train", **parameters)
    wait_until(lambda: "epoch 1:" in lab.log(run), "an epoch is trained", 180)
    training = find_training(lab.log(run))
    lab.cut_power("gpu")
    wait_until(lambda: not is_running(training), "the training has ended", 10)
    assert lab.read(run).state_name == "Running"
    ended = lab.wait_for(run, timeout_s=4 * HEARTBEAT_S + 60)
    assert ended.state is not None
    assert ended.state.is_crashed(), ended.state
    assert "Run it again: it continues" in (ended.state.message or "")
    lab.start_worker("gpu")
    again = lab.start("train/train", **parameters)
    wait_until(lambda: "epoch " in lab.log(again), "an epoch is trained", 180)
    assert "epoch 1:" not in lab.log(again)
    lab.cancel(again)
    assert lab.wait_for(again, timeout_s=120).state_name == "Cancelled"


@pytest.mark.slow  # waits for a training to be ended
def test_cancelled_training_leaves_no_process_and_goes_on(lab: Lab, store: Path, tmp_path: Path) -> None:
    parameters = tiny_training(store, tmp_path / "runs", max_epochs=1_000_000)
    for first_epoch in ("epoch 1:", "epoch "):
        run = lab.start("train/train", **parameters)
        wait_until(lambda run=run, first=first_epoch: first in lab.log(run), "an epoch is trained", 180)  # type: ignore[misc]
        training = find_training(lab.log(run))
        assert is_running(training)
        lab.cancel(run)
        state = lab.wait_for(run, timeout_s=120).state
        assert state is not None
        assert state.is_cancelled(), state
        wait_until(lambda training=training: not is_running(training), "the training has ended", 180)  # type: ignore[misc]
        (unfinished,) = (tmp_path / "runs").iterdir()
        assert unfinished.suffix == ".partial"
    assert "epoch 1:" not in lab.log(run)


@pytest.mark.slow  # runs two whole pipelines
def test_two_pipelines_at_once(lab: Lab, archives: Path, tmp_path: Path) -> None:
    parameters = pipeline_parameters(archives, tmp_path)
    runs = [lab.start("pipeline/pipeline", **parameters) for _ in range(2)]
    states = [lab.wait_for(run).state for run in runs]
    assert all(state is not None and state.is_completed() for state in states), states
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow  # needs Chromium
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="wants chromium")
def test_pages_show_runs_and_artifacts(lab: Lab, store: Path, tmp_path: Path) -> None:
    run = lab.finish("quality/quality", store=str(store), sessions=["F"])
    page = look_at(f"{lab.server.url}/runs/flow-run/{run.id}")
    assert f"quality of {store}" in page
    assert "Completed" in page
    page = look_at(f"{lab.server.url}/artifacts")
    assert "quality-f" in page


def look_at(url: str) -> str:
    """Return the text of a page after its scripts have run."""
    assert CHROMIUM is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *flags, url], capture_output=True, text=True, check=True, timeout=120)
    return html.unescape(re.sub(r"<[^>]*>", " ", done.stdout))


@pytest.mark.slow  # a worker and a run in a process of its own
def test_failure_is_told_in_one_line_and_to_the_webhook(
    lab: Lab, deployed_twice: DeployedTwice, tmp_path: Path, httpserver: HTTPServer
) -> None:
    assert [(row["status"], row["detail"]) for row in deployed_twice.rows if row["name"] == FAILURES_AUTOMATION] == [
        ("made", "posts to localhost")
    ]
    httpserver.expect_request("/hook", method="POST").respond_with_data("")
    run = lab.start("quality/quality", store=str(tmp_path / '<b>nothing"</b>'))
    state = lab.wait_for(run).state
    assert state is not None
    assert state.is_failed()
    # Logs arrive some seconds after they are written.
    wait_until(lambda: '<b>nothing"</b>' in lab.log(run), "the reason is in the log", 60)
    assert "Traceback" not in lab.log(run)

    def read_posts() -> list[dict[str, str]]:
        """What was posted of this run; other tests' runs may fail too."""
        posts = [json.loads(request.data) for request, _ in httpserver.log]
        return [post for post in posts if str(run) in post["url"]]

    wait_until(lambda: bool(read_posts()), "the webhook is called", 60)
    told = read_posts()[0]
    assert (told["flow"], told["state"]) == ("quality", "Failed")
    assert '<b>nothing"</b>' in told["text"]
    assert told["text"].endswith(f" {told['url']}")
