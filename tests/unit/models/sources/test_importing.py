"""Sources are imported as they were read, and apart from each other."""

from __future__ import annotations

import sys
import traceback

import pytest

from fixtures.own_models import write_files
from models.sources import ModelSources, collect_sources, load_sources, loaded_by_module, parse_target
from sensorium_data.errors import UnknownNameError, UsageError


def load(**files):
    return load_sources(ModelSources({f"{name}.py".replace("__", "/"): text.encode() for name, text in files.items()}))


def test_two_versions_of_one_module_are_there_at_once():
    old = load(net="from part import x\nclass Net:\n    value = x", part="x = 1")
    new = load(net="from part import x\nclass Net:\n    value = x", part="x = 2")
    assert (old.find("net:Net").value, new.find("net:Net").value) == (1, 2)
    assert "net" not in sys.modules
    assert "part" not in sys.modules


def test_every_form_of_import_leads_to_the_sources():
    loaded = load(
        net="""
import a
import b.c
import b.c as short, os
import b.d as d, json
from b import e
from b.c import one as first
def late():
    import b.f
    from b import f
    return b.f.one + f.one
values = [a.one, b.c.one, short.one, d.one, e.one, first, json.dumps(1), os.sep]
""",
        a="one = 1",
        b____init__="from . import g\nfrom .g import one",
        b__c="one = 2",
        b__d="one = 3",
        b__e="one = 4",
        b__f="from .g import one",
        b__g="one = 5",
    )
    assert loaded.find("net:values") == [1, 2, 2, 3, 4, 2, "1", "/"]
    assert loaded.find("net:late")() == 10


def test_a_file_called_models_hides_nothing_and_is_not_hidden():
    loaded = load(models="from models.model_config import ModelConfig\nclass Net(ModelConfig):\n    pass")
    from models.model_config import ModelConfig

    assert issubclass(loaded.find("models:Net"), ModelConfig)


def test_equal_sources_are_imported_once():
    text = "class Net:\n    pass"
    assert load(net=text).find("net:Net") is load(net=text).find("net:Net")
    loaded = load(net=text)
    assert loaded_by_module(loaded.find("net:Net").__module__) is loaded


def test_a_file_that_changed_after_it_was_read_is_not_looked_at(tmp_path):
    write_files(tmp_path, {"net.py": "import part\nx = part.y", "part.py": "y = 1"})
    loaded = load_sources(collect_sources(parse_target(f"{tmp_path}/net.py:x")))
    write_files(tmp_path, {"net.py": "x = 2", "part.py": "y = 2"})
    assert loaded.find("net:x") == 1


def test_a_traceback_shows_the_users_file(tmp_path):
    write_files(tmp_path, {"net.py": "def fail():\n    raise ValueError('no')"})
    fail = load_sources(collect_sources(parse_target(f"{tmp_path}/net.py:fail"))).find("net:fail")
    with pytest.raises(ValueError, match="no") as raised:
        fail()
    frame = traceback.extract_tb(raised.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno, frame.line) == (str(tmp_path / "net.py"), 2, "raise ValueError('no')")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = 1\ny = nothing", r"NameError: name 'nothing' is not defined \(net.py, line 2\)"),
        ("import no_such_thing", r"ModuleNotFoundError: No module named 'no_such_thing' \(net.py, line 1\)"),
        ("import sys\nsys.exit(3)", r"SystemExit: 3 \(net.py, line 2\)"),
        (
            "from pathlib import Path\nPath(__file__).with_name('basis.npy').read_bytes()",
            r"FileNotFoundError.*; only Python files are kept with a model",
        ),
    ],
)
def test_code_that_cannot_be_imported_is_one_line(tmp_path, text, found):
    write_files(tmp_path, {"net.py": text, "basis.npy": "data"})
    loaded = load_sources(collect_sources(parse_target(f"{tmp_path}/net.py:Net")))
    for _ in range(2):  # No half of a module is left behind.
        with pytest.raises(UsageError, match=f"net.py: the code of the model cannot be imported: found {found}"):
            loaded.find("net:Net")


def test_a_name_that_is_not_in_the_module_names_the_near_ones():
    loaded = load(net="import json\nclass Network:\n    pass\nclass Other:\n    pass")
    with pytest.raises(UnknownNameError, match="unknown class of net: found 'Netwrk'; did you mean Network"):
        loaded.find("net:Netwrk")
