"""Fits with other settings than the defaults: `python -m bench.settings`."""
