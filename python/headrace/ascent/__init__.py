"""The nonparametric flow of Tabak and Vanden-Eijnden: ascents of the log-likelihood, step by step."""

from headrace.ascent.dual_ascent import DualAscentFlow
from headrace.ascent.flow import AscentFlow, AscentHistory

__all__ = ["AscentFlow", "AscentHistory", "DualAscentFlow"]
