"""What pytest must not import: modules whose optional requirement is not installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("sklearn") else ["python/headrace/sklearn.py"]
