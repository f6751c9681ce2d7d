"""The effort of JAX's compiler in tests: small, because XLA would optimise for seconds a program that runs
milliseconds."""

import os

import selection

LITTLE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def quickly():
    """Make XLA optimise little, unless its flags are set; at night it keeps its defaults. Call this before JAX is
    used."""
    if not selection.NIGHTLY:
        os.environ.setdefault("XLA_FLAGS", LITTLE)
