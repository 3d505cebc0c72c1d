"""The forms in which people start deployments: what Prefect makes of the flows' parameters, without a server."""

from __future__ import annotations

import importlib
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
