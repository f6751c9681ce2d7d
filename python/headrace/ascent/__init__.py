"""The nonparametric flow of Tabak and Vanden-Eijnden (2010), which ascends the log-likelihood step by step."""

from headrace.ascent.dual_ascent import DualAscentFlow
from headrace.ascent.flow import AscentFlow, AscentHistory

__all__ = ["AscentFlow", "AscentHistory", "DualAscentFlow"]
