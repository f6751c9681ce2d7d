"""Rows that do not fit in memory: what a stream is, and where streams come from; `headrace.rows` is the door."""
