"""Advice for the next step where a test speaks against a density."""

from __future__ import annotations

__all__ = ["advice_for"]

_MARGINAL = "fit with marginal curves or splines (NSF), for more epochs, or name the bounds of columns with bounds="
_SHAPE = "fit a larger network or more transforms, or an NSF in the place of affine maps; look at hr.plot.latent"
_CONTEXT = "fit a larger network or more rows with different context; look at hr.plot.conditional"

_NEXT = {
    "rows without a density": "check these rows, and whether bounds= leave them out",
    "latent coordinates": _MARGINAL,
    "random directions": _SHAPE,
    "distance from the middle": _SHAPE,
    "farthest number": "look at the row that is named; a base with heavy tails (base=hr.StudentT) holds far ones",
    "independence": _SHAPE,
    "dependence on the context": _CONTEXT,
    "coverage": "do not rely on regions of this density; fit with a higher weight decay, or average an Ensemble",
    "ranks among draws": _CONTEXT,
    "distance to random points": _CONTEXT,
    "classifier": "compare rows and draws by hr.plot.corner: the columns in which they differ are seen there",
    "memorised rows": "fit with fewer epochs (patience=), a higher weight decay or a smaller network",
}


def advice_for(test: str) -> str:
    """A next step where the test of this name has found something.

    >>> advice_for("memorised rows")
    'fit with fewer epochs (patience=), a higher weight decay or a smaller network'
    """
    return _NEXT[test]
