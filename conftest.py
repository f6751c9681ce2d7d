"""What pytest must not import, and how threads of other libraries wait: before any of these is loaded."""

import os
from importlib.util import find_spec

# Processes of pytest-xdist share the cores. There OpenMP's threads, which wait in a busy loop, keep those from running
# that they wait for: a fit of scikit-learn that takes half a second took a minute.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Modules whose optional requirement is not installed.
OPTIONAL = {
    "sklearn": ["sklearn.py"],
    "torch": ["torch", "convert/plain", "convert/_zuko_marginal.py"],
    "dask": ["dask"],
    "jax": ["jax.py", "_xla.py"],
    "onnx": ["onnx"],
    "sbi": ["integrations/sbi.py"],
    "pocomc": ["integrations/pocomc.py"],
    "nessai": ["integrations/nessai.py"],
    "numpyro": ["integrations/numpyro.py"],
    "aspire": ["integrations/aspire.py"],
    "pymc": ["integrations/pymc.py"],
    "flowMC": ["integrations/flowmc.py"],
}
collect_ignore = [
    f"python/headrace/{name}" for needed, names in OPTIONAL.items() if not find_spec(needed) for name in names
]
