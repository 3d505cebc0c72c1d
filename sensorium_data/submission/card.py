"""The model card of an entry: what a winner has to hand over so that somebody else arrives at the same zips."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sensorium_data.files import seal_end
from sensorium_data.frames import OFFICIAL_FRAMES_NOTE
from sensorium_data.markdown import write_table
from sensorium_data.predictions import RunRecord
from sensorium_data.redaction import hide_secrets
from sensorium_data.sessions import find_session
from sensorium_data.submission.sources import Entry
from sensorium_data.visible_text import make_lines_visible, make_visible

__all__ = ["card_title", "describe_predictions", "describe_software", "write_card"]

_PACKAGES = ("sensorium-pipeline", "numpy", "pyarrow", "zarr", "xarray")
# What a predictions store says of itself under other headings of the card.
_SHOWN_ELSEWHERE = frozenset(
    {"kind", "schema_version", "response_units", "runs", "tiers", "stores", "identity", "content_digest", "simulated"}
)


def describe_software() -> dict[str, str]:
    """Return the versions that write a submission."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def describe_predictions(entry: Entry) -> list[dict[str, Any]]:
    """Return what made each predictions store of an entry, as JSON values."""
    return [
        {
            "url": hide_secrets(member.url),
            "weight": member.weight,
            **member.identify(),
            "tiers": [str(tier) for tier in member.tiers],
            "runs": list(member.attributes["runs"]),
            "stores": dict(member.attributes["stores"]),
            **({"simulated": member.attributes["simulated"]} if member.attributes.get("simulated") else {}),
            "attributes": {k: v for k, v in member.attributes.items() if k not in _SHOWN_ELSEWHERE},
        }
        for member in entry.members
    ]


def card_title(track: str) -> str:
    """Return a model card's first line."""
    return f"# Entry to the {track} track of SENSORIUM 2023"


def write_card(record: Mapping[str, Any], runs: Mapping[str, RunRecord]) -> str:
    """Write the model card.

    Parameters
    ----------
    record : mapping
        The submission's record, as it lies beside the zips: ``identity``, ``files``, ``predictions``, ``software``.
    runs : mapping of str to RunRecord
        The runs behind the predictions that are at hand, by the digest of their weights.

    Returns
    -------
    str
        Markdown. Runs that are not at hand are named by their digest, with the request to add them.
    """
    identity, predictions = record["identity"], record["predictions"]
    digests = list(dict.fromkeys(digest for one in predictions for digest in one["runs"]))
    parts = [
        card_title(identity["track"]),
        *_describe_simulated(predictions),
        f"Frames profile `{identity['frames']}`, values as {identity['float_type']}, in standardized units (responses "
        "divided by their standard deviation over trials, frame by frame).",
        *([f"Note: {OFFICIAL_FRAMES_NOTE}."] if identity["frames"] == "official" else []),
        "## Files",
        write_table(
            ["zip", "bytes", "SHA-256", "rows", "holds"],
            [[f["path"], f["size_bytes"], f["sha256"], f["n_rows"], ", ".join(f["members"])] for f in record["files"]],
        ),
        "The same predictions and versions give the same bytes.",
        "## Predictions",
        *_describe_mean(predictions),
        *(part for one in predictions for part in _describe_member(one)),
        "## Data",
        write_table(
            ["session", "name", "digest of the session store"],
            [[find_session(name).alias, name, digest] for name, digest in sorted(identity["stores"].items())],
        ),
        *_find_differences(identity["stores"], predictions, runs),
        "## Runs",
        *([] if digests else ["None: the predictions come from outside this package. Add how they were made."]),
        *(part for digest in digests for part in _describe_run(digest, runs.get(digest))),
        "## Software that wrote the zips",
        write_table(["package", "version"], list(record["software"].items())),
        "## To do it again",
        _fence(_commands(record, runs), "sh"),
    ]
    return seal_end(make_lines_visible("\n\n".join(parts)) + "\n\n")


def _describe_simulated(predictions: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    simulated = sorted({find_session(name) for one in predictions for name in one.get("simulated", ())})
    if simulated:
        aliases = ", ".join(session.alias for session in simulated)
        yield f"**Simulated sessions: {aliases}. These are no recordings, and this is no entry to the competition.**"


def _describe_mean(predictions: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if len(predictions) > 1:
        shares = " + ".join(f"{one['share']:.6g} × `{make_visible(one['url'])}`" for one in predictions)
        yield f"The values are the mean {shares}, each in standardized units first."


def _describe_member(one: Mapping[str, Any]) -> Iterable[str]:
    rows = [
        ["content digest", one["content_digest"]],
        ["units as stored", one["response_units"]],
        ["tiers", ", ".join(one["tiers"])],
        ["runs", ", ".join(one["runs"]) or "none"],
    ]
    yield f"### `{make_visible(one['url'])}`"
    yield write_table(["what", "value"], rows)
    if one["attributes"]:
        yield _fence(json.dumps(one["attributes"], indent=2, sort_keys=True, ensure_ascii=False), "json")


def _find_differences(
    stores: Mapping[str, str], predictions: Sequence[Mapping[str, Any]], runs: Mapping[str, RunRecord]
) -> Iterable[str]:
    """Yield a line for each predictions store or run that was made from another version of a session."""
    sources = [(f"predictions `{one['url']}`", one["stores"]) for one in predictions]
    sources += [(f"run `{Path(run.path).name}`", run.sessions) for run in runs.values()]
    for source, digests in sources:
        for name, digest in digests.items():
            if name in stores and stores[name] != digest:
                yield f"Note: {source} was made from another version of session {find_session(name).alias}, {digest}."


def _describe_run(digest: str, run: RunRecord | None) -> Iterable[str]:
    if run is None:
        yield f"### Weights {digest}"
        yield "The run's folder was not at hand. Add it: its `model.safetensors` has this SHA-256."
        return
    yield f"### `{Path(run.path).name}`"
    yield f"Weights (`model.safetensors`): SHA-256 {digest}. Trained on:"
    yield write_table(
        ["session", "digest of the session store"],
        [[find_session(name).alias, of] for name, of in sorted(run.sessions.items())],
    )
    for title, content in (("Results", run.model), ("Recipe", run.config), ("Versions and machine", run.environment)):
        yield f"{title}:"
        yield _fence(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False), "json")


def _commands(record: Mapping[str, Any], runs: Mapping[str, RunRecord]) -> str:
    identity, predictions = record["identity"], record["predictions"]
    lines = []
    for one in predictions:
        folders = [hide_secrets(runs[d].path) if d in runs else f"RUN_OF_{d[:8]}" for d in one["runs"]]
        if folders:
            lines.append(
                f"sensorium predict {_quote(*folders)} --store STORE "
                f"--tier {_quote(*one['tiers'])} --out {_quote(one['url'])}"
                f"{_weights(one['attributes'].get('weights', ()))}"
            )
    weights = _weights([one["weight"] for one in predictions])
    lines.append(
        f"sensorium submit {_quote(*(one['url'] for one in predictions))} --store STORE --track {identity['track']} "
        f"--frames {identity['frames']} --dtype {identity['float_type']}{weights}"
    )
    return "\n".join(lines)


def _quote(*words: str) -> str:
    """Return words of a command: what they hold is no command of its own, and stays in its line."""
    return " ".join(shlex.quote(make_visible(word)) for word in words)


def _weights(weights: Sequence[float]) -> str:
    """Return the option that gives weights, or nothing where they are equal."""
    if len(set(weights)) < 2:
        return ""
    return " --weights " + ",".join(repr(weight).removesuffix(".0") for weight in weights)


def _fence(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
