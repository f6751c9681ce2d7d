"""The effort of JAX's compiler in tests: small, because XLA would optimise a program for seconds that runs for
milliseconds."""

import os

import selection

LITTLE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def quickly():
    """Make XLA optimise little, unless XLA_FLAGS is set or the run is nightly. The function must be called before JAX
    is used."""
    if not selection.NIGHTLY:
        os.environ.setdefault("XLA_FLAGS", LITTLE)
