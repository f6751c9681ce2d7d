"""The nonparametric flow of Tabak and Vanden-Eijnden: ascents of the log-likelihood, step by step."""

from headrace.ascent.ascent import AscentFlow, AscentHistory
from headrace.ascent.dual_ascent import DualAscentFlow

__all__ = ["AscentFlow", "AscentHistory", "DualAscentFlow"]
