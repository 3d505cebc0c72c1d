"""How a class is named."""

from __future__ import annotations

import pytest

from fixtures.own_models import FRAMES, write_files
from models.sources import is_target, parse_target
from sensorium_data.errors import UsageError


def test_a_class_in_a_file(tmp_path, monkeypatch):
    write_files(tmp_path, {"lab/net.py": FRAMES})
    monkeypatch.chdir(tmp_path)
    target = parse_target("lab/net.py:Frames")
    assert (target.module, target.name, target.kind) == ("net", "Frames", "net:Frames")
    assert target.folders == (tmp_path / "lab",)


def test_a_file_that_imports_its_neighbors_relatively_is_named_within_their_package(tmp_path):
    write_files(tmp_path, {"lab/__init__.py": "", "lab/deep/__init__.py": "", "lab/deep/net.py": "from . import x"})
    assert parse_target(f"{tmp_path}/lab/deep/net.py:A").module == "lab.deep.net"


def test_a_class_in_a_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = parse_target("lab.net:Frames")
    assert (target.module, target.name, target.folders) == ("lab.net", "Frames", (tmp_path,))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("net.py:Net", True),
        ("/a b/net.py:Net", True),
        ("net.py", True),
        ("lab.net:Net", True),
        ("factorized3d", False),
        ("factorized3d-debug", False),
        ("s3://bucket/net", False),
    ],
)
def test_what_names_a_class_and_what_a_preset(text, is_one):
    assert is_target(text) is is_one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nett.py:Frames", "there is no such file: expected .*; did you mean net.py"),
        ("net.py", "the class is not named: found 'net.py', expected FILE.py:CLASS .*; choose among Frames"),
        ("net.py:", "the class is not named"),
        ("net.py:3d", "this is no name of a class: .*; choose among Frames"),
        ("v1.2.py:Net", "no module can have this name: found a dot"),
    ],
)
def test_what_is_wrong_with_a_name(tmp_path, monkeypatch, text, message):
    write_files(tmp_path, {"net.py": FRAMES, "v1.2.py": FRAMES})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        parse_target(text)
