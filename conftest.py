"""Settings for waiting threads of other libraries, made before any of these is loaded."""

import os

# Processes of pytest-xdist share the cores. There OpenMP's threads, which wait in a busy loop, keep those from running
# that they wait for: a fit of scikit-learn that takes half a second took a minute.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
