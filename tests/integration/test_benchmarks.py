"""The benchmarks run at a tiny size, so that they run when somebody has the machine and the hour for the real one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.places import CHECKOUT

pytestmark = pytest.mark.slow  # runs every benchmark, small

BENCHMARKS = CHECKOUT / "benchmarks"
N_TRIALS, N_NEURONS = 8, 24


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that keeps the archive from one benchmark to the next."""
    return tmp_path_factory.mktemp("bench")


def run_benchmark(script: str, work: Path, results: Path, *arguments: str, name: str | None = None) -> dict[str, Any]:
    """Run a benchmark once at a tiny size, and return the JSON that it wrote; its name is the script's unless given."""
    name = name or script
    size = ["--trials", str(N_TRIALS), "--neurons", str(N_NEURONS), "--repeats", "1"]
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), *size, "--work", str(work), "--results", str(results)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=work, check=False)
    assert done.returncode == 0, done.stderr
    assert (results / f"{name}.md").read_text() in done.stdout
    document: dict[str, Any] = json.loads((results / f"{name}.json").read_text())
    assert document["machine"]["n_cores"] >= 1
    return document


@pytest.mark.skipif(shutil.which("unzip") is None, reason="compares with unzip")
def test_ingest_compares_both_precisions_with_unzip(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("ingest", work, tmp_path)
    times, sizes, memory = document["tables"].values()
    assert [row["what"] for row in times] == ["unzip", "ingest --precision exact", "ingest --precision compact"]
    assert all(row["faster than unzip"] == pytest.approx(times[0]["wall s"] / row["wall s"]) for row in times)
    (archive,) = (work / f"archive-{N_TRIALS}x{N_NEURONS}").glob("*.zip")
    with zipfile.ZipFile(archive) as content:
        unpacked = sum(member.file_size for member in content.infolist())
    by_name = {row["what"]: row["GB"] * 1e9 for row in sizes}
    assert by_name["zip"] == pytest.approx(archive.stat().st_size)
    assert by_name["files unpacked"] == pytest.approx(unpacked)
    assert by_name["store, compact"] < by_name["store, exact"] < by_name["files unpacked"]
    assert {row["trials"] for row in memory} == {2, N_TRIALS}
    assert sorted(path.name for path in work.iterdir()) == [f"archive-2x{N_NEURONS}", f"archive-{N_TRIALS}x{N_NEURONS}"]


def test_layout_finds_a_trial_in_one_request_of_its_shard(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("layout", work, tmp_path)
    for rows in document["tables"].values():
        by_layout = {row["layout"]: row for row in rows}
        assert len(by_layout) == len(rows) == 7
        assert by_layout["chunks of 1 trial × 1024 neurons, shards of 1 trials"]["its requests"] == 1
        assert all(row["block, ms"] > 0 and row["trace over HTTP, ms a trial"] > 0 for row in rows)


def test_codecs_state_the_error_of_each_rounding(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("array_codecs", work, tmp_path, "--blocks", "2")
    responses, videos = document["tables"].values()
    relative = {row["stored as"]: row["largest relative error"] for row in responses}
    assert relative["float32"] <= np.finfo(np.float32).eps / 2
    for keep in (7, 10, 13):
        assert 2.0 ** -(keep + 2) < relative[f"float32, floor dropped, {keep} bits"] <= 2.0 ** -(keep + 1)
    absolute = {row["stored as"]: row["largest error"] for row in videos}
    assert 0.02 < absolute["float32, steps of 1/16"] <= 1 / 32 + 1e-5
    assert 0.05 < absolute["float16"] <= 1 / 16


def test_blocks_are_encoded_alike_both_ways(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("block_encoder", work, tmp_path)
    (rows,) = document["tables"].values()
    assert [(row["precision"], row["way"]) for row in rows] == [
        (precision, way) for precision in ("exact", "compact") for way in ("Zarr", "directly")
    ]
    assert all(row["CPU ms a trial"] > 0 for row in rows)


def test_throttled_fetches_everything_once_whatever_the_connections(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("throttled", work, tmp_path, "--jobs", "1", "2", "--rate", "3e7")
    (rows,) = document["tables"].values()
    assert [row["jobs"] for row in rows] == [1, 2]
    assert all(row["requests"] > 4 * N_TRIALS and row["of the members' size"] > 0.9 for row in rows)


def test_scoring_finds_the_usual_ways_score(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("scoring", work, tmp_path, "--sessions", "2")
    rows, sizes = document["tables"].values()
    assert [row["what"].partition(":")[0] for row in rows] == [
        "pandas and numpy.corrcoef",
        "the same, trial by trial",
        "sensorium score",
    ]
    assert all(row["peak memory, MB"] > 50 for row in rows)
    assert 0.1 < document["measured"]["score"] < 1
    assert all(row["GB"] > 0 for row in sizes)
    shutil.rmtree(work / f"scored-2x{N_TRIALS}x{N_NEURONS}")


def test_submission_passes_the_validator_and_the_readmes_lacks_only_trials(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("submission", work, tmp_path, "--readme-trials", "3")
    writing, validating = document["tables"].values()
    assert [row["trials"] for row in writing] == [5 * N_TRIALS, 3, 5 * N_TRIALS, 1, 3]
    assert writing[-1]["faster than README, a trial"] == 1
    ours, *readme = validating
    assert (ours["violations"], ours["trials"]) == (0, 5 * N_TRIALS)
    # Four sessions have no row, and the first lacks the other trials.
    assert [row["violations"] for row in readme] == [4 + N_TRIALS - 1, 4 + N_TRIALS - 3]


def test_loader_counts_windows_of_both_usual_ways_and_its_own(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("loader", work, tmp_path)
    for frames, rows in zip(("80", "16"), document["tables"].values(), strict=True):
        runs = {name: runs for name, runs in document["measured"]["runs"].items() if name.startswith(f"{frames}: ")}
        assert len(rows) == len(runs)
        assert all(run["windows_per_s"] == pytest.approx(run["n_windows"] / run["wall_s"]) for (run,) in runs.values())
        usual, *others = (row for row in rows if not row["what"].startswith("ours"))
        ours = {row["what"]: row["MB read a window"] for row in rows if row["what"].startswith("ours")}
        for precision in ("exact", "compact"):
            assert ours[f"ours, {precision}, trials kept"] < 0.01
            # A trial is read once for several windows.
            assert ours[f"ours, {precision}, nothing kept"] < usual["MB read a window"] / 2
        assert others


def test_orchestration_compares_the_pipeline_with_the_plain_functions(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("orchestration", work, tmp_path, "--epochs", "1", "--rerun-trials", str(N_TRIALS))
    rows, (added,) = document["tables"].values()
    whole = {row["what"]: row["whole, s"] for row in rows}
    assert len(whole) == 7
    assert all(seconds > 0 for seconds in whole.values())
    assert added["added by Prefect, s"] == pytest.approx(whole["flow"] - whole["plain functions"])


def test_training_measures_each_way_of_keeping_trials(work: Path, tmp_path: Path) -> None:
    arguments = ["--preset", "factorized3d-debug", "--sessions", "F", "--epochs", "2", "--windows", "1"]
    document = run_benchmark("training", work, tmp_path, *arguments, name="training_cpu")
    (rows,) = document["tables"].values()
    assert [row["cache"] for row in rows[:2]] == ["none", "memory"]
    assert all(row["windows/s"] > 0 and row["operations/s, 1e12"] > 0 for row in rows)
    assert all(0 <= run["data_wait_share"] < 1 and len(run["epochs"]) == 2 for run in document["measured"]["runs"])


def test_model_steps_describe_and_measure_presets(work: Path, tmp_path: Path) -> None:
    presets = ["gru-equivariant-debug", "static2d-debug"]
    document = run_benchmark("model_steps", work, tmp_path, "--presets", *presets, "--windows", "2", name="models")
    described, measured = document["tables"].values()
    assert [row["preset"] for row in described] == [row["preset"] for row in measured] == [f"`{p}`" for p in presets]
    for row, other in zip(described, measured, strict=True):
        assert row["core"] < row["parameters, 5 new mice"] < row["all 10"]
        assert (row["causal"], row["frames lost"], other["windows a batch"]) == ("yes", 0, 2)
        assert other["windows/s"] == pytest.approx(2 / other["step, s"])
        assert other["peak memory, GB"] > 0.1
    assert all(run["operations_per_window"] > 1e6 for run in document["measured"]["runs"])


def test_simulation_says_which_values_are_the_recordings(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("simulation", work, tmp_path, "--sessions", "F", "--timed-trials", "2")
    compared, (timed,) = document["tables"].values()
    by_value = {row["value"]: row for row in compared}
    silent = by_value["share of silent medians"]
    assert silent["this mouse"] == 0.928
    assert silent["recordings"] == "0.868 to 0.991"
    assert silent["holds"] == ("yes" if abs(silent["simulated"] - 0.928) <= 0.15 * 0.928 else "no")
    assert {row["holds"] for row in compared} <= {"yes", "no", "–"}
    assert document["measured"]["failing"] == [f"F: {row['value']}" for row in compared if row["holds"] == "no"]
    assert timed["CPU s"] > 0


def test_linking_compares_screens_with_all_pairs(work: Path, tmp_path: Path) -> None:
    document = run_benchmark("linking", work, tmp_path, "--sizes", "3", "5", "--plain", "5", "--plain-all", "3")
    (rows,) = document["tables"].values()
    assert [row["sessions"] for row in rows] == [3, 5]
    assert all(row["plain / ours"] == pytest.approx(row["plain, CPU s"] / row["one more, CPU s"]) for row in rows)
    assert rows[1]["plain: all, CPU s"] == ""


def test_scale_accounts_for_every_second_and_replays_its_costs(work: Path, tmp_path: Path) -> None:
    linking = tmp_path / "linking.json"
    steps = [
        {"way": "ours", "what": "the others", "n_known": 0, "n_sessions": 9, "cpu_s": 9.0, "peak_memory_bytes": 1},
        {"way": "ours", "what": "one more", "n_known": 9, "n_sessions": 10, "cpu_s": 2.0, "peak_memory_bytes": 2},
        {"way": "ours", "what": "one more", "n_known": 19, "n_sessions": 20, "cpu_s": 3.0, "peak_memory_bytes": 3},
    ]
    linking.write_text(json.dumps({"measured": {"steps": steps}}))
    options = ["--sessions", "2", "4", "--workers", "1", "2", "--price-per-hour", "3"]
    once = run_benchmark("scale", work, tmp_path / "once", *options, "--listed", "2", "4", "--linking", str(linking))
    plan, floors, *_ = once["tables"].values()
    found = [one for one in once["measured"]["outcomes"] if one["source_mbit_s"] == once["parameters"]["source_mbit_s"]]
    assert [(row["sessions"], row["workers"]) for row in plan] == [(2, 1), (2, 2), (4, 1), (4, 2)]
    least_hours = {row["sessions"]: row["hours on their link"] for row in floors}
    for row, one in zip(plan, found, strict=True):
        outcome = one["outcome"]
        assert sum(outcome["limited_s"].values()) == pytest.approx(one["workers"] * outcome["duration_s"])
        assert row["price"] == pytest.approx(3 * row["machine hours"]) == pytest.approx(outcome["worker_s"] / 1200)
        assert row["hours"] >= least_hours[row["sessions"]]
    assert found[0]["outcome"]["n_bytes"]["source"] == pytest.approx(found[1]["outcome"]["n_bytes"]["source"])
    costs = once["measured"]["costs"]
    # A trial's members and the header of its video; its videos and responses.
    assert costs["source_requests"]["each"] == pytest.approx(5)
    assert costs["store_requests"]["convert"]["each"] == pytest.approx(2, abs=0.2)
    assert (costs["linking"]["known_s"], costs["linking"]["new_s"]) == (pytest.approx(0.1), pytest.approx(7.9 / 8))
    checked = once["tables"]["Small sessions, predicted and ingested"]
    assert [(row["workers"], row["jobs of each"]) for row in checked] == [(1, 1), (1, 2), (2, 1)]
    assert len({round(row["predicted CPU s"], 6) for row in checked}) == 1
    assert all(row["cores that it got"] == pytest.approx(row["CPU s"] / row["s"]) for row in checked)
    replayed = run_benchmark(
        "scale", work, tmp_path / "again", *options, "--costs", str(tmp_path / "once" / "scale.json")
    )
    assert replayed["tables"] == once["tables"]
