"""Fits by several ranks, and of tables that do not fit in memory."""
