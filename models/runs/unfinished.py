"""Why no interrupted run can be gone on with: what the unfinished ones of a preset have otherwise."""

from __future__ import annotations

import pydantic

from models.config import TrainingConfig, list_settings
from models.model_config import ModelConfig
from models.runs.data import RunData
from models.runs.location import RunsFolder
from models.settings import MachineSettings
from sensorium_data.counting import count_things
from sensorium_data.errors import RunError

__all__ = ["explain_no_unfinished", "list_differences"]

_MOST_RUNS_NAMED = 3
_MOST_DIFFERENCES_NAMED = 4


def explain_no_unfinished(runs: RunsFolder, config: TrainingConfig, data: RunData) -> RunError:
    """Return the error that says why there is nothing to go on from.

    Parameters
    ----------
    runs : RunsFolder
        Where runs are kept.
    config : TrainingConfig
        What is asked for.
    data : RunData
        On which data.
    """
    found = []
    for name, files in runs.read_unfinished(config.name, ("config.json", "data.json")):
        try:
            given, given_data = files or (b"", b"")
            other = TrainingConfig.model_validate_json(given)
            other_data = RunData.model_validate_json(given_data)
        except pydantic.ValidationError:
            found.append(f"{name}: its config or data cannot be read")
            continue
        differences = list_differences(other, other_data, config, data)
        shown = "; ".join(differences[:_MOST_DIFFERENCES_NAMED]) or "of another version of this package"
        if len(differences) > _MOST_DIFFERENCES_NAMED:
            shown += f"; and {len(differences) - _MOST_DIFFERENCES_NAMED} more"
        found.append(f"{name}: {shown}")
    if not found:
        return RunError(
            "there is no run to resume",
            path=runs.url,
            found=f"no unfinished run of {config.name}",
            remedy="train without resuming, or name the folder that the run is in",
        )
    if len(found) > _MOST_RUNS_NAMED:
        found = [*found[:_MOST_RUNS_NAMED], f"and {len(found) - _MOST_RUNS_NAMED} more"]
    return RunError(
        f"no unfinished run of {config.name} is the one asked for",
        path=runs.url,
        found=", ".join(found),
        remedy="ask for the same settings and data, or train without resuming",
    )


def list_differences(other: TrainingConfig, other_data: RunData, config: TrainingConfig, data: RunData) -> list[str]:
    """Return what an unfinished run has otherwise than what is asked for, a clause each.

    Settings of the machine do not count. Each clause gives the unfinished run's value first.
    """
    differences = _list_code_differences(other.model, config.model)
    theirs, ours = list_settings(other), list_settings(config)
    for name in sorted(theirs.keys() | ours.keys()):
        values = [_show(settings.get(name)) for settings in (theirs, ours)]
        if values[0] != values[1] and name not in MachineSettings.model_fields:
            differences.append(f"{name} {values[0]}, not {values[1]}")
    sessions, asked = ({s.name: s for s in side.sessions} for side in (other_data, data))
    for name in sorted(sessions.keys() | asked.keys()):
        if name not in asked or name not in sessions:
            differences.append(f"session {name} is {'its alone' if name in sessions else 'not among its'}")
        elif sessions[name].unit_ids != asked[name].unit_ids:
            theirs_ids, our_ids = set(sessions[name].unit_ids), set(asked[name].unit_ids)
            differences.append(
                f"session {name} has {count_things(len(theirs_ids), 'neuron')}, not these {len(our_ids)} "
                f"({len(theirs_ids & our_ids)} are the same)"
            )
        elif sessions[name].digest != asked[name].digest:
            differences.append(f"session {name} has digest {sessions[name].digest[:12]}, not {asked[name].digest[:12]}")
    if [*sessions] != [*asked] and sessions.keys() == asked.keys():
        differences.append("the sessions are in another order")
    if other_data.split != data.split:
        differences.append("the fold has other trials: movies were compared anew")
    if other_data.teacher != data.teacher:
        differences.append("the teacher has other weights")
    return differences


def _list_code_differences(other: ModelConfig, model: ModelConfig) -> list[str]:
    if other.kind != model.kind:
        return [f"the model is {other.kind}, not {model.kind}"]
    names = sorted(other.code.keys() | model.code.keys())
    both = other.code.keys() & model.code.keys()
    return [
        f"the code {name} {'has changed' if name in both else 'is no longer there' if name in other.code else 'is new'}"
        for name in names
        if other.code.get(name) != model.code.get(name)
    ]


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
