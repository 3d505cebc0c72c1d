"""An example or more of every command, which ``--help`` shows below the options.

In their order they do the whole work in one folder, on simulated recordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["EXAMPLES", "format_examples"]

#: What the examples of each command do, and their command lines; long ones are continued with a backslash.
EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "demo": (("Everything, in the folder demo", "sensorium demo"),),
        "simulate": (("Two small recordings", "sensorium simulate archives --sessions A F --trials 60 --neurons 50"),),
        "sample": (("The path of a store for a first look", "sensorium sample"),),
        "ingest": (
            ("From a folder of archives", "sensorium ingest A F --store store --source archives"),
            ("The five new mice, from GIN", "sensorium ingest new --store store"),
        ),
        "inspect": (
            ("What is in a store", "sensorium inspect store"),
            ("One session and its quality", "sensorium inspect store F --report quality.html"),
        ),
        "verify": (
            ("Every stored object", "sensorium verify store"),
            ("Against the archives too", "sensorium verify store F --source archives"),
        ),
        "clean": (("What could be deleted", "sensorium clean store --dry-run"),),
        "models": (("All presets", "sensorium models"),),
        "settings": (("What can be set about learning rates", "sensorium settings factorized3d lr"),),
        "train": (
            (
                "One small model",
                "sensorium train factorized3d-debug --store store --set max_epochs=1",
            ),
            (
                "An ensemble of two seeds",
                "sensorium train static2d-debug --store store --seeds 2 \\\n    --ensemble pair --set max_epochs=1",
            ),
        ),
        "import-checkpoint": (
            (
                "Weights of the SENSORIUM 2023 starter kit",
                "sensorium import-checkpoint starter-kit final.pth --store store \\\n    --out imported",
            ),
        ),
        "export-checkpoint": (
            (
                "For the SENSORIUM 2023 starter kit",
                "sensorium export-checkpoint runs/factorized3d-debug-* final.pth \\\n    --format starter-kit",
            ),
        ),
        "predict": (
            (
                "What an ensemble predicts for the test tiers",
                "sensorium predict --ensemble pair --store store --tier test \\\n    --out predictions",
            ),
        ),
        "from-arrays": (
            (
                "Predictions of other software, SESSION/TRIAL.npy",
                "sensorium from-arrays arrays --store store --units standardized \\\n    --out my-predictions",
            ),
        ),
        "score": (
            ("With the truth of simulated sessions", "sensorium score predictions --store store --truth archives"),
        ),
        "leaderboard": (
            (
                "Two predictions side by side",
                "sensorium leaderboard predictions my-predictions --store store \\\n    --truth archives",
            ),
        ),
        "benchmark": (
            (
                "Runs and predictions, on the old mice",
                "sensorium benchmark runs/factorized3d-debug-* predictions --store store",
            ),
        ),
        "submit": (
            (
                "The zips of the main track",
                "sensorium submit predictions --store store --track main",
            ),
        ),
        "validate": (("Anybody's zips", "sensorium validate submission/*.zip --store store"),),
        "deploy": (
            ("What would change on the server", "sensorium deploy --store store --runs runs --dry-run"),
            ("Change it", "sensorium deploy --store store --runs runs"),
        ),
        "watch": (("A run, by its name on the server", "sensorium watch shiny-otter"),),
        "ui": (("A server with workers, until Ctrl-C", "sensorium ui --store store --runs runs"),),
        "server": (
            ("Whether one runs", "sensorium server status"),
            ("End it", "sensorium server stop"),
        ),
    }
)


def format_examples(command: str) -> str:
    """Return the examples of a command as the end of its help.

    Raises
    ------
    KeyError
        If it has none.
    """
    shown = "\n\n".join(f"# {purpose}\n{line}" for purpose, line in EXAMPLES[command])
    return f"Examples:\n\n```text\n{shown}\n```"
