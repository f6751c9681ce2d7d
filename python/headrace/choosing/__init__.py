"""The choice of a density for a table: many densities are tried within a time budget, and compared on held-out rows."""

from headrace.choosing.result import Choice, Tried
from headrace.choosing.run import auto

__all__ = ["Choice", "Tried", "auto"]
