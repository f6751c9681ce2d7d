"""headrace.jax on several devices, and through Python where compiled code cannot call the core; in other processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="jax is not installed")
pytestmark = pytest.mark.programs

HERE = Path(__file__).parent


def python(*arguments, flags=""):
    """What a program prints, with its errors."""
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_gradients_on_two_devices_are_those_on_one():
    flags = "--xla_force_host_platform_device_count=2"
    assert python(str(HERE / "jax_devices.py"), flags=flags).startswith("equal")


WITHOUT = """
import sys
import headrace._cpu as cpu
if hasattr(cpu, "xla_handlers"):
    del cpu.xla_handlers  # as in a build without the headers of jaxlib
import pytest
with pytest.warns(RuntimeWarning, match="jax.pure_callback serves") as found:
    import headrace as hr, headrace.jax as hj
    hj.FlowModule(hr.MAF(2))
    hj.FlowModule(hr.MAF(2))
assert len(found) == 1
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[1:]]))
"""


def test_all_holds_through_python_too():
    chosen = "values or parameters_are or differences or choice or vmap or one_compiled or second"
    assert " passed" in python("-c", WITHOUT, str(HERE / "test_jax.py"), "-k", chosen)


def test_headrace_does_not_import_jax():
    python("-c", "import headrace, sys; assert 'jax' not in sys.modules and 'jaxlib' not in sys.modules")
