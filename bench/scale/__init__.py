"""Fits by several ranks, and fits of tables that do not fit in memory."""
