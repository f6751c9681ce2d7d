"""Choosing a density for rows: many kinds are tried within a time, and compared on rows that none has seen."""

from headrace.choosing.result import Choice, Tried
from headrace.choosing.run import auto

__all__ = ["Choice", "Tried", "auto"]
