"""Parts shared by pictures: colours that the colour-blind can distinguish, and the error without matplotlib."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from headrace._base.install import install

NO_MATPLOTLIB = f"pictures need matplotlib: {install('plot')}"

# These colours are from the palette of Okabe and Ito.
INK, BLUE, ORANGE, GREY = "#222222", "#0072B2", "#D55E00", "#999999"
NAMED = (ORANGE, "#009E73", "#CC79A7")
BAND = "#D9E8F3"
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "svg.fonttype": "path",
    "svg.hashsalt": "headrace",
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None
