"""Counts how hostile and broken input is met: ``PYTHONPATH=tests .venv/bin/python tests/faults/census.py``.

Each case runs in a process of its own. It is met well if

- the process ends by itself, in time and in bounded memory, with a status that fits;
- it prints no traceback and no control characters;
- nothing is wrong in silence: no file has changed that it should not touch, and what was tampered with is told.

Takes many minutes and is not a part of ``make test``.

    --only FAMILY …   submissions, archives, servers, tampering, kills, machine
    --repeats N       how often kinds are tried that depend on chance (default 10)
    --seed N          of what is chosen by chance (default 0)
    --json FILE       writes the figures there
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fixtures.hostile.archives import archives
from fixtures.hostile.machine import kills, machine
from fixtures.hostile.processes import DONE, WRONG
from fixtures.hostile.servers import servers
from fixtures.hostile.submissions import submissions
from fixtures.hostile.tampering import tampering
from fixtures.hostile.world import Cases, World, digest_tree

FAMILIES: dict[str, Callable[[World], Cases]] = {
    "submissions": submissions,
    "archives": archives,
    "servers": servers,
    "tampering": tampering,
    "kills": kills,
    "machine": machine,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "world")
        root.mkdir()
        world = World(root, chosen.repeats, np.random.default_rng(chosen.seed))
        rows = [count(world, family, Path(folder)) for family in chosen.only]
    table = pd.DataFrame(rows).set_index("family")
    print(table.to_string())
    if chosen.json:
        chosen.json.write_text(table.to_json(orient="index", indent=2))
    sys.exit(DONE if (table["tried"] == table["met well"]).all() and not table["bytes lost"].any() else WRONG)


def count(world: World, family: str, folder: Path) -> dict[str, Any]:
    """Try all cases of a family, and return its row of the table."""
    started_s = time.monotonic()
    kinds: dict[str, int] = defaultdict(int)
    n_well = n_bytes_lost = 0
    for kind, case in FAMILIES[family](world):
        place = Path(tempfile.mkdtemp(dir=folder))
        kinds[kind] += 1
        try:
            complaints = list(case(place))
        except Exception:  # noqa: BLE001 (a case that fails is told as one)
            complaints = [f"the case itself failed: {traceback.format_exc()}"]
        n_bytes_lost += (n_lost := count_lost_bytes(world.precious, digest_tree(world.root)))
        if n_lost:
            complaints.append(f"{n_lost} bytes lost that it had no business with")
        n_well += not complaints
        for complaint in complaints:
            print(f"{family}, {kind}: {complaint}", flush=True)
        for path in place.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(place)
    return {
        "family": family,
        "kinds": len(kinds),
        "tried": sum(kinds.values()),
        "met well": n_well,
        "bytes lost": n_bytes_lost,
        "seconds": round(time.monotonic() - started_s),
    }


def count_lost_bytes(before: dict[str, tuple[int, str]], after: dict[str, tuple[int, str]]) -> int:
    return sum(size for name, (size, digest) in before.items() if after.get(name, (0, ""))[1] != digest)


if __name__ == "__main__":
    main()
