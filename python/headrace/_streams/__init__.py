"""Rows that do not fit in memory: streams and their sources; `headrace.rows` has the public functions."""
