"""The forms in which people start deployments: what Prefect makes of the flows' parameters, without a server."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shlex
from typing import Any

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import ValidationError, validate

from fixtures.places import CHECKOUT

DEPLOYMENTS: dict[str, dict[str, Any]] = {
    one["name"]: one for one in yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())["deployments"]
}


def read_form(name: str) -> dict[str, Any]:
    path, _, flow = DEPLOYMENTS[name]["entrypoint"].partition(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return parameter_schema(getattr(module, flow)).model_dump()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_what_a_form_shows_is_described_and_each_value_that_is_set_belongs_to_one(name: str) -> None:
    properties = read_form(name)["properties"]
    assert DEPLOYMENTS[name]["description"]
    assert "sensorium" in DEPLOYMENTS[name]["tags"]
    assert [parameter for parameter, one in properties.items() if not one.get("description")] == []
    assert set(DEPLOYMENTS[name].get("parameters", {})) <= set(properties)


def test_settings_of_a_preset_may_be_numbers_and_texts() -> None:
    given = {"preset": "factorized3d", "store": "store", "overrides": {"max_epochs": 3, "cache": "none"}}
    # The server refuses what this refuses.
    validate(given, read_form("train"), raise_on_error=True)
    with pytest.raises(ValidationError, match="overrides"):
        validate(given | {"overrides": 3}, read_form("train"), raise_on_error=True)


def read_lines() -> list[list[str]]:
    """The lines of the documentation that start, watch or schedule a deployment, in words."""
    pages = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
    pages += sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
    commands = r"(?:prefect deployment (?:run|schedule \w+)|sensorium watch) [\w-]+/[^\n`#]*"
    lines = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        lines += [shlex.split(line) for line in re.findall(commands, text)]
    return lines


def test_lines_of_the_documentation_name_deployments_and_give_what_their_forms_take() -> None:
    lines = read_lines()
    assert {line[1] for line in lines} >= {"deployment", "watch"}
    for line in lines:
        (full_name,) = (word for word in line if "/" in word and "=" not in word)
        flow, _, name = full_name.partition("/")
        assert (flow, name) == (DEPLOYMENTS[name]["name"], name)
        given = {}
        for option, parameter in itertools.pairwise(line):
            if option == "--param":
                key, _, value = parameter.partition("=")
                given[key] = json.loads(value) if value[0] in '[{"' else value
        form = read_form(name)
        assert given.keys() <= form["properties"].keys(), line
        validate(given, form, raise_on_error=True, ignore_required=True)
