"""How JAX compiles under test: quickly. Tests run for milliseconds programs that XLA would optimise for seconds."""

import os

import selection

LITTLE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def quickly():
    """Let XLA optimise little, unless its flags are set; at night it keeps its defaults. Called before JAX is used."""
    if not selection.NIGHTLY:
        os.environ.setdefault("XLA_FLAGS", LITTLE)
