"""The image, as far as it can be checked without building it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fixtures.places import CHECKOUT
from fixtures.programs import find_program, make_program, run_program

DOCKERFILE = CHECKOUT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, in one line."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def arguments_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def copied() -> list[str]:
    """What the Dockerfile copies from the clone."""
    return [
        source
        for arguments in arguments_of("COPY")
        if not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    ]


def test_the_linter_finds_nothing() -> None:
    done = run_program(find_program("hadolint"), "--no-color", "--failure-threshold", "style", DOCKERFILE)
    assert done.returncode == 0, done.stdout


def test_the_base_image_is_pinned() -> None:
    defaults = dict(argument.partition("=")[::2] for argument in arguments_of("ARG"))
    images = [image.split()[0] for image in arguments_of("FROM")]
    for image in images:
        tag = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], image).partition(":")[2]
        assert re.match(r"\d+\.\d+\.\d+-", tag), image
    assert len(images) == 2


def test_it_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]
    (user,) = arguments_of("USER")
    number = int(user.partition(":")[0])
    assert number > 0
    # What comes after it: neither installs nor copies.
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])
    for volume in re.findall(r'"(/[^"]+)"', arguments_of("VOLUME")[0]):
        assert any(f"--owner={number}" in run and volume in run.split() for run in arguments_of("RUN")), volume


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied())
    for source in copied():
        assert (CHECKOUT / source).exists(), source


def test_all_that_an_installation_needs_is_copied() -> None:
    packages = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")} - {"tests"}
    assert packages | {"pyproject.toml", "prefect.yaml", "deploy"} <= set(copied())


def test_the_entry_point_exists_and_may_be_run() -> None:
    (entry,) = arguments_of("ENTRYPOINT")
    path = Path(shlex.split(entry.strip("[]").replace(",", " "))[-1])
    assert path.is_relative_to("/opt/sensorium")
    assert os.access(CHECKOUT / path.relative_to("/opt/sensorium"), os.X_OK)


def test_the_environment_gives_no_secret_and_no_buffer() -> None:
    environment = " ".join(arguments_of("ENV"))
    assert "PYTHONUNBUFFERED=1" in environment
    assert not re.search(r"(?i)secret|password|token|_key\b", environment)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "sensorium"),
        (["--help"], "sensorium --help"),
        (["train", "a preset", "--store", "s"], "sensorium train a\\ preset --store s"),
        (["prefect", "flow-run", "execute"], "prefect flow-run execute"),
    ],
)
def test_the_entry_point_runs_sensorium_and_what_workers_ask_for(
    arguments: list[str], expected: str, tmp_path: Path
) -> None:
    for name in ("sensorium", "prefect"):
        make_program(tmp_path / name, 'printf "%s" "$(basename "$0")"; [ $# = 0 ] || printf " %q" "$@"')
    done = subprocess.run(
        [CHECKOUT / "deploy" / "entrypoint.sh", *arguments],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == expected
