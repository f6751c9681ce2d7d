"""Tables with columns of categories and counts, and regressions: `python -m bench.mixed.tables FOLDER`."""
