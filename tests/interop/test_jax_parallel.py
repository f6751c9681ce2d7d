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


THROUGH_PYTHON = {
    "values": ["values_are_those_of_the_flow", "parameters_are_those_given"],
    "derivatives": [
        "gradients_agree_with_differences",
        "each_choice_of_arguments_has_its_gradients",
        "log_densities_and_gradients_come_from_one_run_where_memory_allows",
        "one_compiled_function_is_differentiated_in_several_ways",
        "second_derivatives_and_forward_mode_are_refused_with_the_reason",
    ],
    "transformations": [
        "vmap_over_rows_and_contexts_is_a_loop",
        "vmap_over_one_row_each_and_one_context_for_all",
        "vmap_over_parameters_and_of_their_gradients",
    ],
}


ALIKE = ["RealNVP", "IAF", "logistic", "normal"]  # flows that go the same way through Python as a MAF


def test_all_holds_through_python_too():
    """By whole names: pytest refuses one that is not there, as a word of ``-k`` would not be missed."""
    tests = [f"{HERE}/test_jax_{file}.py::test_{name}" for file, names in THROUGH_PYTHON.items() for name in names]
    out = python("-c", WITHOUT, *tests, "-k", " and ".join(f"not {name}" for name in ALIKE))
    assert " passed" in out
    assert not {"failed", "skipped"} & set(out.replace(",", " ").split())


def test_headrace_does_not_import_jax():
    python("-c", "import headrace, sys; assert 'jax' not in sys.modules and 'jaxlib' not in sys.modules")
