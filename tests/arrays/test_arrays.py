"""Arrays of each framework as arguments and results of every call: the bits of NumPy, the caller's framework, no
copies."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest

import cases
import frameworks
import headrace as hr
import map_cases
import reference
from array_cases import CONTEXT, FEATURES, ROWS, arrays, call_of, every_call, made_flow
from fake_core import VERBS
from fitting import SHORT
from headrace._fit.start import Start


class Spy:
    """A compiled program that remembers the arrays that it received."""

    def __init__(self, program):
        self.program = program
        self.seen = []

    def __getattr__(self, name):
        value = getattr(self.program, name)
        if name not in VERBS:
            return value

        def run(*positional, **keywords):
            self.seen += [a for a in (*positional, *keywords.values()) if isinstance(a, np.ndarray)]
            return value(*positional, **keywords)

        return run


@every_call
@pytest.mark.parametrize("input_dtype", cases.DTYPES)
def test_every_call_gives_the_bits_of_numpy_in_the_callers_framework(framework, kind, name, input_dtype, dtype):
    call, holder = call_of(kind, name, dtype)
    given = arrays(input_dtype, holder.parameters.size)
    want = call(holder, given)
    got = call(holder, {key: framework.make(array) for key, array in given.items()})
    assert type(got) is type(want)
    for result, expected in zip(got, want, strict=True):
        opened = framework.open(result)
        assert opened.dtype == np.dtype(dtype)
        assert opened.shape == expected.shape
        cases.assert_same_bits(opened, expected)


@every_call
def test_nothing_is_copied(framework, kind, name, dtype):
    """Each array that the core received is in the memory of the caller's array or of the result."""
    call, holder = call_of(kind, name, dtype)
    holder._program = spy = Spy(holder._program)
    given = {key: framework.make(array) for key, array in arrays(dtype, holder.parameters.size).items()}
    got = call(holder, given)
    places = {framework.pointer(array) for array in given.values()}
    places |= {a.ctypes.data if isinstance(a, np.ndarray) else framework.pointer(a) for a in got}
    inner = 0
    for array in spy.seen:
        inner += array.ctypes.data not in places
    # Only calls with these names allocate an array: for log densities to be summed, or gradients by a common context.
    assert inner == (name in ("nll_and_grad", "log_prob_vjp, one context", "inverse_vjp"))
    assert spy.seen


@pytest.mark.parametrize("rows", [0, 1, 7, 100])
def test_results_for_any_number_of_rows_are_those_of_numpy(framework, rows, dtype):
    flow = made_flow(dtype, context=0)
    x = cases.rows(rows, FEATURES, dtype)
    cases.assert_same_bits(framework.open(flow.log_prob(framework.make(x))), flow.log_prob(x))
    for got, want in zip(flow.to_data(framework.make(x)), flow.to_data(x), strict=True):
        cases.assert_same_bits(framework.open(got), want)


def test_one_feature(framework, dtype):
    flow = cases.randomise(hr.NSF(1, transforms=2, hidden=(8,), dtype=dtype))
    x = cases.rows(30, 1, dtype)
    cases.assert_same_bits(framework.open(flow.log_prob(framework.make(x))), flow.log_prob(x))


def test_rows_that_are_not_finite_give_nan_there(framework, dtype):
    flow = made_flow(dtype, context=0)
    x = cases.rows(30, FEATURES, dtype)
    x[3, 1], x[20, 0] = np.nan, np.inf
    got = framework.open(flow.log_prob(framework.make(x)))
    assert np.flatnonzero(np.isnan(got)).tolist() == [3, 20]
    cases.assert_same_bits(got, flow.log_prob(x))


@pytest.mark.parametrize(
    "transform",
    [hr.transforms.Permutation([2, 0, 3, 1]), hr.transforms.Standardize(np.arange(4.0), np.arange(1.0, 5.0))],
)
def test_transforms_without_parameters_keep_the_dtype_given(framework, transform, dtype):
    x = cases.rows(ROWS, FEATURES, dtype)
    for direction in (transform.forward, transform.inverse):
        for got, want in zip(direction(framework.make(x)), direction(x), strict=True):
            assert framework.open(got).dtype == np.dtype(dtype)
            cases.assert_same_bits(framework.open(got), want)


def test_a_sample_without_arrays_is_numpy(dtype):
    flow = made_flow(dtype, context=0)
    assert type(flow.sample(5)) is np.ndarray
    assert all(type(array) is np.ndarray for array in flow.sample_and_log_prob(5))


@pytest.mark.parametrize("map", reference.MAPS)
def test_couplings_and_vector_maps_of_hr_ops(framework, map, dtype):
    if framework.name == "pandas":
        pytest.skip("parameters have three axes")
    z, grad = cases.rows(ROWS, 3, dtype), cases.rows(ROWS, 3, dtype, "grad")
    params = cases.rng("params").standard_normal((ROWS, 3, reference.MAPS[map].count(5))).astype(dtype)
    grad_rows = cases.rng("rows").standard_normal(ROWS).astype(dtype)
    calls = [
        *((kernel, (z, params)) for kernel in map_cases.KERNELS.values()),
        (hr.ops.coupling_vjp, (z, params, grad, grad_rows)),
    ]
    for call, given in calls:
        for got, want in zip(call(*map_all(framework.make, given), map), call(*given, map), strict=True):
            cases.assert_same_bits(framework.open(got), want)


@pytest.mark.parametrize("shared", [(), (2,), (4, 1), (4, 2)], ids=str)
def test_couplings_of_any_leading_dimensions(framework, shared, dtype):
    """Parameters that rows share are repeated in the framework's memory, and their gradients are summed there."""
    if framework.name == "pandas":
        pytest.skip("parameters have three axes")
    draw = cases.rng("leading").standard_normal
    arrays = draw((4, 2, 3)), draw((*shared, 3, 2)), draw((4, 2, 3)), draw((4, 2))
    z, params, grad, grad_rows = (array.astype(dtype) for array in arrays)
    calls = [
        *((kernel, (z, params)) for kernel in map_cases.KERNELS.values()),
        (hr.ops.coupling_vjp, (z, params, grad, grad_rows)),
        (hr.ops.coupling, (z[0, 0], params.reshape(-1, 3, 2)[0])),
    ]
    for call, given in calls:
        for got, want in zip(call(*map_all(framework.make, given)), call(*given), strict=True):
            assert framework.open(got).shape == want.shape
            cases.assert_same_bits(framework.open(got), want)


def map_all(make, given):
    return [make(array) for array in given]


# --- parameters, training ---------------------------------------------------------------------------------------------


def test_parameters_are_copied_in(framework, dtype):
    flow = made_flow(dtype)
    want = (0.1 * cases.rng("set").standard_normal(flow.parameters.size)).astype(dtype)
    flow.parameters = framework.make(want)
    plain = made_flow(dtype)
    plain.parameters = want
    cases.assert_same_bits(flow.parameters, plain.parameters)
    for name, array in flow.named_parameters().items():
        flow.set_parameter(name, framework.make(2.0 * array.astype(dtype)))
    for name, array in plain.named_parameters().items():
        cases.assert_same_bits(flow.named_parameters()[name], np.asarray(2.0 * array, dtype))


def test_dense_networks_come_from_each_framework(framework, dtype):
    dense = cases.made(features=FEATURES, hidden=(14, 11)).astype(dtype)
    z = cases.rows(ROWS, FEATURES, dtype)
    given = [map_all(framework.make, arrays) for arrays in dense.arrays]
    got = hr.transforms.MaskedAutoregressive.from_dense(*given).forward(z)
    for result, expected in zip(
        got, hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays).forward(z), strict=True
    ):
        cases.assert_same_bits(result, expected)


def test_adam_takes_gradients_of_each_framework(framework, dtype):
    flow, plain = made_flow(dtype), made_flow(dtype)
    given = arrays(dtype)
    adam, other = hr.Adam(flow, 1e-2), hr.Adam(plain, 1e-2)
    for _ in range(3):
        norm = adam.step(flow.nll_and_grad(framework.make(given["x"]), framework.make(given["context"]))[1])
        assert norm == other.step(plain.nll_and_grad(given["x"], given["context"])[1])
    cases.assert_same_bits(flow.parameters, plain.parameters)


def test_fit_takes_arrays_of_each_framework(framework, dtype):
    x, context = cases.rows(200, FEATURES, "float64"), cases.rows(200, CONTEXT, "float64", "context")
    weights, held_out = np.linspace(0.1, 1.0, 200), cases.rows(50, FEATURES, "float64", "held out")
    held_context, held_weights = cases.rows(50, CONTEXT, "float64", "held out"), np.linspace(1.0, 2.0, 50)
    for validation in (0.2, None, (held_out, held_context, held_weights)):
        flow, plain = made_flow(dtype), made_flow(dtype)
        parts = tuple(map_all(framework.make, validation)) if isinstance(validation, tuple) else validation
        history = flow.fit(
            framework.make(x), framework.make(context), weights=framework.make(weights), validation=parts, **SHORT
        )
        want = plain.fit(x, context, weights=weights, validation=validation, **SHORT)
        assert history.train_loss == want.train_loss
        cases.assert_same_bits(flow.parameters, plain.parameters)


def test_fit_copies_no_rows(framework, monkeypatch):
    seen = []
    measured = Start.of
    monkeypatch.setattr(
        Start, "of", lambda flow, source, **say: seen.append(source.data) or measured(flow, source, **say)
    )
    x, weights = framework.make(cases.rows(100, FEATURES, "float64")), framework.make(np.linspace(0.1, 1.0, 100))
    made_flow("float32", context=0).fit(x, weights=weights, validation=None, **SHORT)
    assert [seen[0].x.ctypes.data, seen[0].weights.ctypes.data] == [framework.pointer(x), framework.pointer(weights)]


# --- strides ----------------------------------------------------------------------------------------------------------

VIEWS = {
    "transposed": lambda table: table.T[3:23, 2:6],
    "every third row": lambda table: table[::3][:20, :4],
    "every other column": lambda table: table[:20, 1:9:2],
    "a block": lambda table: table[5:25, 3:7],
}


@pytest.mark.parametrize("view", VIEWS)
def test_tensors_in_any_strides(view, dtype):
    torch = frameworks.load("torch").module
    flow, table = made_flow(dtype, context=0), cases.rows(60, 60, dtype)
    tensor, array = VIEWS[view](torch.from_numpy(table)), VIEWS[view](table)
    flow._program = spy = Spy(flow._program)
    got = flow.log_prob(tensor)
    assert spy.seen[0].ctypes.data == tensor.data_ptr()
    cases.assert_same_bits(got.numpy(), flow.log_prob(array))


def test_a_row_expanded_to_many():
    torch = frameworks.load("torch").module
    flow = made_flow("float32", context=0)
    row = torch.arange(4.0)
    cases.assert_same_bits(flow.log_prob(row.expand(9, 4)).numpy(), flow.log_prob(np.tile(row.numpy(), (9, 1))))


# --- peculiarities of single frameworks -------------------------------------------------------------------------------


def test_parameters_and_inference_tensors_without_gradient_are_tensors():
    torch = frameworks.load("torch").module
    flow, x = made_flow("float32", context=0), torch.ones(9, FEATURES)
    want = flow.log_prob(x)
    assert torch.equal(flow.log_prob(torch.nn.Parameter(x, requires_grad=False)), want)
    with torch.inference_mode():
        assert torch.equal(flow.log_prob(torch.ones(9, FEATURES)), want)
    with torch.device("meta"):  # the default device of new tensors does not affect results
        assert torch.equal(flow.log_prob(x), want)


def test_jax_calls_back_from_compiled_code():
    found = frameworks.load("jax")
    jax, flow = found.module, made_flow("float32", context=0)
    x = cases.rows(3000, FEATURES, "float32")
    shape = jax.ShapeDtypeStruct((3000,), "float32")
    got = jax.jit(lambda x: jax.pure_callback(flow.log_prob, shape, 2.0 * x))(found.make(x))
    cases.assert_same_bits(np.asarray(got), flow.log_prob(np.float32(2.0) * x))


def test_a_jax_array_stays_on_its_device():
    """JAX divides one CPU into two devices only if its flags are set before it starts."""
    frameworks.load("jax")
    code = """
import jax, numpy as np, headrace as hr
one, other = jax.devices()
flow = hr.MAF(4)
x = jax.device_put(np.ones((6, 4), "f4"), other)
assert flow.log_prob(x).devices() == {other}
assert flow.log_prob(jax.device_put(x, one)).devices() == {one}
mesh = jax.sharding.Mesh(np.array([one, other]), ("rows",))
spread = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows")))
try:
    flow.log_prob(spread)
except TypeError as error:
    assert "x:" in str(error) and "jax.device_put(x, jax.devices('cpu')[0])" in str(error), error
else:
    raise AssertionError("an array on two devices was taken")
"""
    run_python(code, XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu")


def test_a_frame_in_pieces_is_read_right(dtype):
    pandas = frameworks.load("pandas").module
    flow, x = made_flow(dtype, context=0), cases.rows(ROWS, FEATURES, dtype)
    pieces = pandas.DataFrame({f"column {i}": x[:, i].copy() for i in range(FEATURES)}, index=range(7, 7 + ROWS))
    for table in (pieces, pieces[pieces.columns[:3]].join(pieces[pieces.columns[3]])):
        got = flow.log_prob(table)
        assert type(got) is np.ndarray
        cases.assert_same_bits(got, flow.log_prob(x))


def test_frames_and_arrays_go_together(dtype):
    pandas = frameworks.load("pandas").module
    flow, given = made_flow(dtype), arrays(dtype)
    want = flow.log_prob(given["x"], given["context"])
    cases.assert_same_bits(flow.log_prob(pandas.DataFrame(given["x"]), given["context"]), want)
    cases.assert_same_bits(flow.log_prob(given["x"], pandas.DataFrame(given["context"])), want)


# --- imports ----------------------------------------------------------------------------------------------------------


def run_python(code, **environment):

    subprocess.run([sys.executable, "-c", code], env=os.environ | environment, check=True, timeout=120)


def test_no_framework_is_imported():
    run_python(
        "import sys, numpy as np, headrace as hr\n"
        "flow = hr.MAF(2, transforms=1, hidden=(8,))\n"
        "flow.fit(np.random.default_rng(0).normal(size=(50, 2)), epochs=1, progress=False)\n"
        "flow.sample(3), flow.log_prob(np.ones((3, 2)))\n"
        "try: flow.log_prob(object())\n"
        "except TypeError: pass\n"
        "assert not {'torch', 'jax', 'pandas', 'cupy'} & set(sys.modules)"
    )


@pytest.mark.parametrize("name", ["torch", "jax", "pandas"])
def test_a_framework_during_its_import_takes_no_arrays(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    flow = made_flow("float32", context=0)
    assert flow.log_prob(np.ones((3, FEATURES))).shape == (3,)
    with pytest.raises(TypeError, match="object"):
        flow.log_prob(object())
