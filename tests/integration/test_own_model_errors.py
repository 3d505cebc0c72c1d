"""What fails in a model of a user's own is told in one line: the class, the file and the line, and what was raised."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command_line import Outcome
from fixtures.own_models import FRAMES, no_trust, write_files
from fixtures.recorded_stores import record_session
from sensorium_data.files import digest_file

pytestmark = pytest.mark.usefixtures("no_curves")

Command = Callable[..., Outcome]

MODEL = FRAMES.replace("(1, 9, 9)", "(1, kernel, kernel)").replace(
    "hidden: int = 2", "hidden: int = 2, kernel: int = 9"
)


def line_of(words: str) -> str:
    return f"net.py:{MODEL[: MODEL.index(words)].count(chr(10)) + 1}: the code of Frames fails: found"


MADE, RUN = line_of("super()"), line_of("return self")
#: What is put in place of what in the model's file, the settings, and the words of the error.
CASES = {
    "a kernel larger than frames": ("", "", ["model.kernel=99"], [f"{RUN} RuntimeError: "]),
    "forward raises": ("return self", "raise KeyError('x'); self", [], [f"{RUN} KeyError: 'x'"]),
    "forward raises in training": (
        "return self",
        "assert not self.training; return self",
        [],
        [f"{RUN} AssertionError"],
    ),
    "the constructor raises": ("super().__init__()", "1 / 0", [], [f"{MADE} ZeroDivisionError"]),
    "the constructor exits": ("super().__init__()", "raise SystemExit(3)", [], [f"{MADE} SystemExit: 3"]),
    "a generator's end": ("return self", "raise GeneratorExit; self", [], [f"{RUN} GeneratorExit"]),
    "an error without words": (
        "return self",
        "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})(); self",
        [],
        [f"{RUN} Odd;"],
    ),
    "half the precision": ("(videos)", "(videos).half()", [], ["numbers of another kind", "torch.float16"]),
    "no numbers": ("(videos)", "(videos) * (1 if self.training else float('nan'))", [], ["what is no number"]),
    "a lock": (
        "super().__init__()",
        "super().__init__(); self.lock = __import__('threading').Lock()",
        [],
        ["Frames cannot be copied"],
    ),
    "a surrogate": ("hidden: int = 2", "hidden: int = 2, text: str = '\\ud800'", [], ["cannot be written down"]),
    "time first": ("(videos)", "(videos).transpose(1, 2)", [], ["a feature map for each frame", "17 frames more"]),
    "two arguments": ("self, videos", "self, videos, pupil_center", [], ["called with a video alone", "pupil_center"]),
    "no number": ("hidden: int = 2", "hidden: int = 2, foo: float = float('nan')", [], ["recipe of Frames", "foo"]),
    "too deep an expression": ("recipe = {", "deep = " + "1+" * 50_000 + "1; recipe = {", [], ["is no Python"]),
    "no forward": ("def forward", "def foward", [], ["Frames is no complete model", "no forward"]),
    "a list for a recipe": ("recipe = {", "recipe = [3]; other = {", [], ["recipe of Frames", "found a list"]),
    "a number for the model": ("recipe = {", "recipe = {'model': 3, ", [], ["recipe of Frames", "'model': 3"]),
    "a number for a name": ("recipe = {", "recipe = {3: 4, ", [], ["recipe of Frames", "3: 4"]),
    "a property": ("recipe = {", "recipe = property(len); other = {", [], ["recipe of Frames", "found a property"]),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    record_session(root, "F", n_frames=40, n_by_tier={"train": 3, "oracle": 1})
    return root


@pytest.fixture
def train(sensorium: Command, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda target, *settings: sensorium(
        "train", target, "--store", store, "--json", *(word for one in settings for word in ("--set", one))
    )


@pytest.mark.parametrize("case", CASES)
def test_a_model_that_fails_is_told_in_one_line(case: str, train: Command) -> None:
    old, new, settings, words = CASES[case]
    Path("net.py").write_text(MODEL.replace(old, new) if old else MODEL)
    done = train("net.py:Frames", *settings)
    done.assert_refused(*words)


def test_a_buffer_of_one_number_for_many_is_trained(train: Command) -> None:
    """Weights cannot be loaded into one."""
    buffer = "; self.register_buffer('ones', __import__('torch').ones(1).expand(5))"
    Path("net.py").write_text(MODEL.replace("super().__init__()", f"super().__init__(){buffer}"))
    assert train("net.py:Frames", "max_epochs=1").status == 0


OF_NEURONS = """
from torch import nn

class Net(nn.Module):
    recipe = {"n_frames_window": 30, "batch_size": 3, "max_epochs": 1, "skip_frames": 10, "device": "cpu"}

    def __init__(self, n_neurons, n_input_channels: int = 3):
        super().__init__()
        self.layer = nn.Linear(n_input_channels, n_neurons)

    def forward(self, videos):
        return nn.functional.softplus(self.layer(videos.mean((3, 4)).transpose(1, 2))).transpose(1, 2)
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "self.layer = ",
            "self.layers = [nn.Linear(3, 2)]; self.layer = lambda x: x ; (",
            ["Net has no weights", "ModuleList"],
        ),
        (".transpose(1, 2)\n", "\n", ["a response for each frame", "batch, neuron, time"]),
        (".transpose(1, 2)\n", ".transpose(1, 2).detach()\n", ["do not depend on its weights", "detach()"]),
    ],
    ids=["layers in a list", "time before neurons", "detached"],
)
def test_a_module_for_each_session_that_fails_is_told_in_one_line(
    old: str, new: str, words: list[str], train: Command
) -> None:
    Path("net.py").write_text(OF_NEURONS)
    assert train("net.py:Net").status == 0
    text = OF_NEURONS.replace(old, new)
    Path("net.py").write_text(text.replace("; (nn.Linear(n_input_channels, n_neurons)", ""))
    train("net.py:Net").assert_refused(*words)


def test_the_traceback_is_there_if_it_is_asked_for(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("net.py").write_text(MODEL)
    monkeypatch.setenv("SENSORIUM_TRACEBACK", "1")
    done = train("net.py:Frames", "model.kernel=99")
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("sensorium: ")


def test_a_preset_function_that_exits_is_told(train: Command) -> None:
    Path("net.py").write_text("import sys\n\ndef small():\n    sys.exit(0)\n")
    train("net.py:small").assert_refused("returns no preset", "SystemExit: 0")


def test_one_that_cannot_be_made_is_named_among_those_that_can(sensorium: Command, train: Command) -> None:
    write_files(Path(), {"net.py": MODEL.replace("super().__init__()", "1 / 0"), "sound.py": MODEL})
    done = sensorium("models", "net.py:Frames", "sound.py:Frames", "--json")
    assert done.status == 1
    failed, sound = json.loads(done.out)
    assert "ZeroDivisionError" in failed["error"]
    assert (sound["error"], sound["model"]) == (None, "sound:Frames")


def edit(run: Path, name: str, change: Callable[[dict], object]) -> None:
    """Change a run's file, and everything that would tell so: whoever sends a run may do that."""
    document = json.loads((run / name).read_text())
    change(document)
    (run / name).write_text(json.dumps(document))
    (run / "ledger.json").unlink(missing_ok=True)
    record = json.loads((run / "model.json").read_text())
    digests = {f"{one}_sha256": digest_file(run / f"{one}.json") for one in ("config", "data")}
    (run / "model.json").write_text(json.dumps(record | digests | {"format_version": 1}))


NOTHING = {"": "0" * 64}
EDITS = {
    "another class": ("config.json", lambda c: c["model"].update(kind="net:Meen"), ["no class of its code", "config"]),
    "no class": ("config.json", lambda c: c["model"].update(kind="net"), ["no class of its code", "MODULE:CLASS"]),
    "another module": ("config.json", lambda c: c["model"].update(kind="nte:Frames"), ["no class of its code"]),
    "no file": ("config.json", lambda c: c["model"].update(code=NOTHING), ["no file of code", "restore"]),
    "a setting": ("config.json", lambda c: c["model"].update(hidden=0.5), ["not those of its code", "restore"]),
    "no paths": ("environment.json", lambda e: e.update(model_files={"net.py": 3}), []),
    "lists of paths": ("environment.json", lambda e: e.update(model_files={"net.py": ["a"]}), []),
    "a mapping of paths": ("environment.json", lambda e: e.update(model_files={"net.py": {"a": 1}}), []),
    "no mapping": ("environment.json", lambda e: e.update(model_files=[3]), []),
}


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the model, trained for an epoch."""
    from models.config import override
    from models.registry import get_preset
    from models.training import train

    folder = tmp_path_factory.mktemp("trained")
    write_files(folder, {"net.py": FRAMES})
    config = override(get_preset(f"{folder / 'net.py'}:Frames"), {"max_epochs": "1", "skip_frames": "10"})
    return Path(train(config, str(store), None, folder).run)


@pytest.mark.parametrize("case", EDITS)
def test_a_run_that_was_edited_is_refused_with_a_remedy(
    case: str, trained: Path, store: Path, sensorium: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, change, words = EDITS[case]
    no_trust(monkeypatch, tmp_path / "cache")
    run = shutil.copytree(trained, tmp_path / "run")
    edit(run, name, change)
    predict = ["predict", run, "--store", store, "--tier", "oracle", "--out", tmp_path / "p", "--trust-code"]
    done = sensorium(*predict)
    if words:
        done.assert_refused(*words)
        assert "install the packages" not in done.err
    else:
        assert done.status == 0, done.err
