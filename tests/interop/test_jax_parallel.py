"""headrace.jax on several devices, tested in other processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="jax is not installed")
pytestmark = pytest.mark.programs

HERE = Path(__file__).parent


def python(*arguments, flags=""):
    """The output of a Python program, which must succeed; its errors are in the message of a failure."""
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_gradients_on_two_devices_are_those_on_one():
    flags = "--xla_force_host_platform_device_count=2"
    assert python(str(HERE / "jax_devices.py"), flags=flags).startswith("equal")


def test_headrace_does_not_import_jax():
    python("-c", "import headrace, sys; assert 'jax' not in sys.modules and 'jaxlib' not in sys.modules")
