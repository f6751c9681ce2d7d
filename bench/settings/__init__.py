"""What fits reach with other settings than the defaults: `python -m bench.settings`."""
