"""Refusals of the compiled modules, without Python's checks: every device refuses the same calls with the same
messages."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import emulation
import headrace as hr
from cuda_twins import Twin
from headrace import _cpu as cpu

ROWS, FEATURES, CONTEXT = 4, 3, 2


class OnCpu:
    """A program of `_cpu`, called with NumPy arrays."""

    def __init__(self, flow):
        self.module, self.program = cpu, flow._program
        self.as_argument, self.where = lambda array: array, {}


class OnDevice:
    """A program of the emulated module, called with arrays in the form that the module takes."""

    def __init__(self, flow):
        self.module = emulation.load()
        device = type("Device", (), {"module": self.module})
        self.program, self.where = Twin(device, flow).program, {"stream": 0}

    @staticmethod
    def as_argument(array):
        return (array.ctypes.data, array.shape, array.strides, array.dtype.name)


@pytest.fixture(params=["cpu", "emu"])
def core(request):
    """A class that makes programs of flows or transforms, for the CPU or for the emulation, and calls them."""
    if request.param == "cpu":
        return OnCpu
    request.getfixturevalue("emu")
    return OnDevice


class Calls:
    """A program's verbs, called with valid arguments except for those that a test replaces."""

    def __init__(self, core, flow):
        self.core = core(flow)

    def __call__(self, verb, **changes):
        n = self.core.program.n_weights
        rows, row = np.zeros((ROWS, FEATURES), "f4"), np.zeros(ROWS, "f4")
        fits = {
            "log_prob": {"x": rows, "out": row},
            "sample": {"rows": ROWS, "seed": 1, "value": rows.copy(), "log_prob": row},
            "from_noise": {"noise": rows, "value": rows.copy(), "log_prob": row},
            "transform": {"inverse": False, "input": rows, "value": rows.copy(), "log_det": row},
            "gradient": {
                "inverse": False,
                "of_log_prob": False,
                "input": rows,
                "grad_value": rows,
                "grad_row": row,
                "value": rows.copy(),
                "log_det": row.copy(),
                "grad_input": rows.copy(),
                "grad_context": np.zeros((ROWS, CONTEXT), "f4"),
                "grad_weights": np.zeros(n, "f4"),
            },
        }
        given = {**fits[verb], "context": np.zeros((ROWS, CONTEXT), "f4"), "parameters": np.zeros(n, "f4"), **changes}
        converted = {k: self.core.as_argument(a) if isinstance(a, np.ndarray) else a for k, a in given.items()}
        getattr(self.core.program, verb)(**converted, **self.core.where)


def flow(context=CONTEXT):
    return hr.MAF(FEATURES, context=context, hidden=(5,), transforms=1)


def f4(*shape):
    return np.zeros(shape, "f4")


VERBS = ("log_prob", "sample", "from_noise", "transform", "gradient")
GIVEN = {"log_prob": "x", "from_noise": "noise", "transform": "input", "gradient": "input"}
INPUT, FLOATS = r"expected \(rows, features\)", "expected an array of float32 or float64"
A_ROW, VALUES = r"expected a contiguous \(rows,\)", r"value: expected a C-contiguous \(rows, features\)"
CONTEXTS = r"context: expected \(rows, context\) or \(1, context\)"
INDEX = "index: expected contiguous integers of 64 bits in one dimension"


def strided(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


REFUSED = [
    *((verb, {name: f4(ROWS, FEATURES - 1)}, f"{name}: {INPUT}") for verb, name in GIVEN.items()),
    *((verb, {name: f4(ROWS)}, f"{name}: {INPUT}") for verb, name in GIVEN.items()),
    *((verb, {name: np.zeros((ROWS, FEATURES), int)}, FLOATS) for verb, name in GIVEN.items()),
    *((verb, {"context": f4(ROWS + 1, CONTEXT)}, CONTEXTS) for verb in VERBS),
    *((verb, {"context": f4(ROWS, CONTEXT + 1)}, CONTEXTS) for verb in VERBS),
    *((verb, {"context": f4(CONTEXT)}, CONTEXTS) for verb in VERBS),
    *((verb, {"context": np.zeros((ROWS, CONTEXT), int)}, FLOATS) for verb in VERBS),
    *((verb, {"context": None}, "context: expected if and only if") for verb in VERBS),
    *((verb, {"parameters": f4(1)}, "parameters: expected a contiguous vector like the weights") for verb in VERBS),
    *((verb, {"parameters": f4(500).astype("f8")}, "parameters: expected a contiguous vector") for verb in VERBS),
    *((verb, {"value": wrong}, VALUES)
      for verb in VERBS[1:]
      for wrong in (f4(ROWS, 2), f4(ROWS - 1, FEATURES), f4(ROWS * FEATURES), np.zeros((ROWS, FEATURES), int),
                    strided(f4(ROWS, FEATURES)), unaligned(f4(ROWS, FEATURES)))),
    *((verb, {name: wrong}, f"{name}: {A_ROW}")
      for verb, name in (("log_prob", "out"), ("sample", "log_prob"), ("from_noise", "log_prob"),
                         ("transform", "log_det"), ("gradient", "log_det"))
      for wrong in (f4(ROWS + 1), f4(ROWS, 1), np.zeros(ROWS), strided(f4(ROWS)))),
    ("sample", {"rows": -1}, "rows: expected at least 0"),
    ("transform", {"inverse": True, "value": np.zeros((ROWS, FEATURES))}, "value: expected the program's dtype"),
    ("gradient", {"inverse": True, "value": np.zeros((ROWS, FEATURES))}, "value: expected the program's dtype"),
    ("gradient", {"log_prob": f4(ROWS)}, "log_prob: expected where the gradient is by it"),
    ("gradient", {"of_log_prob": True, "log_prob": f4(ROWS - 1)}, f"log_prob: {A_ROW}"),
    ("gradient", {"grad_value": f4(ROWS, 2)}, rf"grad_value: {INPUT}"),
    ("gradient", {"grad_value": f4(1, FEATURES)}, rf"grad_value: {INPUT}"),
    ("gradient", {"grad_value": np.zeros((ROWS, FEATURES), int)}, FLOATS),
    ("gradient", {"grad_row": f4(ROWS - 1)}, r"grad_row: expected \(rows,\)"),
    ("gradient", {"grad_row": f4(ROWS, 1)}, r"grad_row: expected \(rows,\)"),
    ("gradient", {"grad_input": f4(ROWS, 2)}, "grad_input: expected a contiguous"),
    ("gradient", {"grad_context": f4(1, CONTEXT)}, "grad_context: expected a contiguous"),
    ("gradient", {"grad_weights": f4(3)}, "grad_weights: expected a contiguous vector"),
    ("gradient", {"index": np.arange(2)}, "grad_value: expected none beside an index"),
    ("gradient", {"index": np.arange(2, dtype="i4"), "grad_value": None}, INDEX),
    ("gradient", {"index": np.zeros((2, 1), int), "grad_value": None}, INDEX),
    ("gradient", {"index": np.arange(4)[::2], "grad_value": None}, INDEX),
    ("gradient", {"index": np.arange(2), "grad_value": None}, VALUES),  # the results have as many rows as the index
]  # fmt: skip


@pytest.mark.parametrize(("verb", "changes", "message"), REFUSED)
def test_mismatched_arguments_are_refused(core, verb, changes, message):
    calls = Calls(core, flow())
    calls(verb)  # the call is accepted when no argument is replaced
    with pytest.raises(ValueError, match=message):
        calls(verb, **changes)


def test_required_results_are_not_none(core):
    with pytest.raises(ValueError, match=f"out: {A_ROW}|address"):
        Calls(core, flow())("log_prob", out=None)


def test_context_is_refused_without_a_reader(core):
    calls = Calls(core, flow(0))
    for verb in VERBS:
        given = {"grad_context": None} if verb == "gradient" else {}
        calls(verb, context=None, **given)
        with pytest.raises(ValueError, match="context: expected if and only if the program reads one"):
            calls(verb, **given)
    with pytest.raises(ValueError, match="grad_context: there is no context"):
        calls("gradient", context=None)


def test_a_transform_on_its_own_has_no_density(core):
    calls = Calls(core, hr.transforms.MaskedAutoregressive(FEATURES, context=CONTEXT, hidden=(5,), dtype="float32"))
    calls("transform")
    calls("gradient")
    for verb, given in (("log_prob", {}), ("sample", {}), ("from_noise", {}), ("gradient", {"of_log_prob": True})):
        with pytest.raises(ValueError, match="log_prob: a transform on its own has no base"):
            calls(verb, **given)


def test_rows_of_an_index_lie_in_the_input():
    """Only the CPU checks the index, because on a device a call would have to wait for the check."""
    calls = Calls(OnCpu, flow())
    for wrong in ([0, ROWS], [-1, 0]):
        with pytest.raises(ValueError, match="index: expected rows of input"):
            calls("gradient", index=np.array(wrong), grad_value=None)


def test_read_only_memory_is_not_written_to():
    calls, out, vector = Calls(OnCpu, flow()), f4(ROWS), f4(flow().parameters.size)
    out.flags.writeable = vector.flags.writeable = False
    calls("log_prob", parameters=vector)  # a read-only vector of parameters is accepted
    with pytest.raises(ValueError, match="not writeable"):
        calls("log_prob", out=out)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((0, (4, 3), (12, 4), "float32"), "expected an address"),
        ((64, (4, -3), (12, 4), "float32"), "at least 0"),
        ((64, (4, 3), (12,), "float32"), "a stride for each axis"),
        ((66, (4, 3), (12, 4), "float32"), "addresses that their dtype allows"),
        (64, r"\(address, shape, strides, dtype\)"),
        ((64, (4, 3)), r"\(address, shape, strides, dtype\)"),
    ],
)
def test_objects_that_are_no_arrays_of_a_device_are_refused(emu, wrong, message):
    calls = Calls(OnDevice, flow())
    for verb, name in GIVEN.items():
        with pytest.raises(ValueError, match=message):
            calls(verb, **{name: wrong})


def test_vectors_of_the_optimiser_have_the_size_of_the_weights(core):
    on = core(flow())
    n, stream = on.program.n_weights, on.where
    with pytest.raises(ValueError, match="program: expected a program"):
        on.module.AdamF32(None, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0)
    adam = on.module.AdamF32(on.program, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0)
    norm = {"norm": None} if stream else {}
    adam.step(on.as_argument(f4(n)), 1e-3, **norm, **stream)
    for wrong in (f4(n - 1), f4(n, 1), np.zeros(n), strided(f4(n))):
        with pytest.raises(ValueError, match="gradient: the vector has the wrong size or dtype"):
            adam.step(on.as_argument(wrong), 1e-3, **norm, **stream)
    with pytest.raises(ValueError, match="average: none is kept"):
        adam.average(*([on.as_argument(f4(n))] if stream else []), **stream)
    set_weights = on.program.set_host_weights if stream else on.program.set_weights
    set_weights(f4(n))
    for wrong in (f4(n - 1), f4(n, 1), np.zeros(n), strided(f4(n)), unaligned(f4(n))):
        with pytest.raises(ValueError, match="weights: the vector has the wrong size or dtype"):
            set_weights(wrong)


OF_HOST = ("HiddenOptions", "MapInfo", "MaskedOptions", "Transform", "MaskedTransform")
STUB = Path(hr.__file__).parent / "_core" / "core.pyi"


def stated():
    """The names of each function's arguments in the stub that both modules share, by the names of class and
    function."""
    found = {}
    for kind in (node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef)):
        if kind.name == "MaskedOptions":  # this class takes any keywords; test_settings.py tests it
            continue
        for function in (node for node in kind.body if isinstance(node, ast.FunctionDef) and not node.decorator_list):
            arguments = [a.arg for a in (*function.args.args[1:], *function.args.kwonlyargs)]
            found[kind.name, function.name] = arguments
    return found


@pytest.mark.parametrize(("kind", "name"), stated())
def test_the_stub_states_the_arguments_of_both_modules(core, kind, name):
    module = cpu if core is OnCpu else emulation.load()
    if name == "__call__":
        function = getattr(module, re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower())
    else:
        function = getattr(getattr(module, kind if hasattr(module, kind) else f"{kind}F32"), name)
    signature = re.search(rf"{function.__name__}\((.*)\) ->", function.__doc__).group(1)
    got = re.findall(r"(\w+): ", re.sub(r"\[[^\]]*\]|'[^']*'", "", signature))
    got = [argument for argument in got if argument != "self"]
    extra = () if name == "__init__" else ("device", "stream") if name == "__call__" else ("stream",)
    is_of_host = core is OnCpu or kind in OF_HOST or kind.endswith("Step") or "memory" in name
    assert got == [*stated()[kind, name], *(() if is_of_host else extra)]
