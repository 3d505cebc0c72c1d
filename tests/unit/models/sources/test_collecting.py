"""Which files are a model's code."""

from __future__ import annotations

import pytest

from fixtures.own_models import write_files
from models.sources import collect_sources, parse_target
from sensorium_data.errors import UsageError


def collect(folder, files, target="net.py:Net"):
    write_files(folder, files)
    return collect_sources(parse_target(f"{folder}/{target}"))


def test_what_is_imported_directly_or_not_or_in_a_function_is_part_of_it(tmp_path):
    sources = collect(
        tmp_path,
        {
            "net.py": "import a\nfrom b.c import thing\ndef f():\n    import late",
            "a.py": "from b import d",
            "b/__init__.py": "from . import e",
            "b/c.py": "from .f import x",
            "b/d.py": "",
            "b/e.py": "",
            "b/f.py": "from .. import beyond",
            "late.py": "",
            "other.py": "",
            "b/other.py": "",
            "bare/g.py": "",
        },
    )
    assert set(sources.files) == {"net.py", "a.py", "b/__init__.py", "b/c.py", "b/d.py", "b/e.py", "b/f.py", "late.py"}
    assert sources.files["a.py"] == b"from b import d"
    assert sources.origins["b/c.py"] == str(tmp_path / "b/c.py")


def test_a_folder_without_an_init_is_a_package_too(tmp_path):
    assert set(collect(tmp_path, {"net.py": "import bare.g", "bare/g.py": ""}).files) == {"net.py", "bare/g.py"}


def test_installed_packages_python_and_this_package_are_no_part_of_it(tmp_path):
    # A file of such a name does not hide them.
    files = {"net.py": "import torch, json, models, sensorium_data.errors, numpy as np", "json.py": "", "models.py": ""}
    assert set(collect(tmp_path, files).files) == {"net.py"}


def test_a_module_on_the_path_is_the_users(tmp_path, monkeypatch):
    write_files(
        tmp_path / "elsewhere",
        {"lab_parts.py": "", "lab_models/__init__.py": "", "lab_models/net.py": "import lab_parts"},
    )
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    sources = collect_sources(parse_target("lab_models.net:Net"))
    assert set(sources.files) == {"lab_models/__init__.py", "lab_models/net.py", "lab_parts.py"}


def test_of_an_installed_package_its_own_files_are(tmp_path, monkeypatch):
    write_files(
        tmp_path / "site", {"neat/__init__.py": "from .core import Net", "neat/core.py": "import other", "other.py": ""}
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr("site.getsitepackages", lambda: [str(tmp_path / "site")])
    monkeypatch.chdir(tmp_path)
    assert set(collect_sources(parse_target("neat:Net")).files) == {"neat/__init__.py", "neat/core.py"}


def test_the_digest_is_of_names_and_bytes(tmp_path):
    first = collect(tmp_path / "1", {"net.py": "import a", "a.py": "x = 1"})
    same = collect(tmp_path / "2", {"net.py": "import a", "a.py": "x = 1", "unused.py": ""})
    other = collect(tmp_path / "3", {"net.py": "import a", "a.py": "x = 2"})
    assert first.digest == same.digest != other.digest
    assert [name for name in first.digests if first.digests[name] != other.digests[name]] == ["a.py"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"net.py": "def f(:"}, r"net.py: the code of the model is no Python: found .*\(line 1\)"),
        ({"net.py": "import a", "a.py": "\n\nx ="}, r"a.py: the code of the model is no Python: found .*\(line 3\)"),
    ],
)
def test_a_file_that_is_no_python_is_named_with_its_line(tmp_path, files, message):
    with pytest.raises(UsageError, match=message):
        collect(tmp_path, files)


def test_a_module_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"there is no such module: found 'nowhere.net'.*; name its file"):
        collect_sources(parse_target("nowhere.net:Net"))


def test_code_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("models.sources.collecting.MAX_CODE_FILES", 2)
    with pytest.raises(UsageError, match="too much to be kept with a run: found 3 files"):
        collect(tmp_path, {"net.py": "import a, b", "a.py": "", "b.py": ""})
