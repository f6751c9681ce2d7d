"""What pytest must not import: modules whose optional requirement is not installed."""

from importlib.util import find_spec

OPTIONAL = {
    "sklearn": ["sklearn.py"],
    "torch": ["torch"],
    "jax": ["jax.py", "_xla.py"],
    "onnx": ["onnx"],
    "sbi": ["integrations/sbi.py"],
    "pocomc": ["integrations/pocomc.py"],
    "nessai": ["integrations/nessai.py"],
    "numpyro": ["integrations/numpyro.py"],
}
collect_ignore = [
    f"python/headrace/{name}" for needed, names in OPTIONAL.items() if not find_spec(needed) for name in names
]
