"""How pictures look: colors, sizes of letters and lines, and text that matplotlib does not interpret.

The colors are those of Okabe and Ito (2008), which people with any color vision can tell apart; no picture tells things
apart by color alone. Nothing here changes matplotlib's settings for anybody else.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sensorium_data.visible_text import make_visible, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BLUE",
    "DIVERGING_MAP",
    "GRAY",
    "GREEN",
    "LIGHT_GRAY",
    "ORANGE",
    "SEQUENTIAL_MAP",
    "VERMILLION",
    "YELLOW",
    "picture_style",
    "plain_text",
    "say_instead",
    "wrap_label",
]

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
YELLOW = "#F0E442"
GRAY, LIGHT_GRAY = "#606060", "#B8B8B8"

#: For values from zero up, and for values of both signs. Both keep their order in grayscale on each side of zero.
SEQUENTIAL_MAP, DIVERGING_MAP = "cividis", "PuOr"

_LONGEST_TEXT = 120
_LABEL_WIDTH, _MOST_LINES = 36, 3

# matplotlib names its settings one by one in its types.
_SETTINGS: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 10,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.facecolor": "white",
    "figure.facecolor": "white",
    "text.color": "black",
    "axes.labelcolor": "black",
    "axes.edgecolor": "black",
    "xtick.color": "black",
    "ytick.color": "black",
    "image.interpolation": "nearest",
    "figure.constrained_layout.use": True,
}


@contextmanager
def picture_style() -> Iterator[None]:
    """Give figures the style; matplotlib's settings are as before afterwards.

    What a backend sets that is loaded meanwhile stays. A notebook's sets the mode in which figures show themselves.
    """
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        before = matplotlib.rcParams.copy()
        try:
            yield
        finally:
            after = matplotlib.rcParams.copy()
    # rc_context leaves the backend's name alone.
    set_meanwhile: dict[Any, Any] = {
        name: after[name] for name in after if name != "backend" and after[name] != before[name]
    }
    matplotlib.rcParams.update(set_meanwhile)


def plain_text(text: object) -> str:
    r"""Return a text from outside as pictures can show it: in one line, not too long, and with no formula in it.

    Examples
    --------
    >>> print(plain_text("movie $x$\n"))
    movie \$x\$\n
    """
    return shorten(make_visible(str(text)), _LONGEST_TEXT).replace("$", r"\$")


def wrap_label(text: object, width: int = _LABEL_WIDTH) -> str:
    """Return a text from outside for an axis or a color bar, on two or three lines if it is long."""
    return "\n".join(textwrap.wrap(plain_text(text), width)[:_MOST_LINES])


def say_instead(axes: Axes, text: str) -> None:
    """Write into empty axes why nothing is drawn."""
    axes.text(0.5, 0.5, plain_text(text), ha="center", va="center", transform=axes.transAxes, color=GRAY)
