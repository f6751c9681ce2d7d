"""Arrays that are refused: each error names the argument, the given array and the call that helps."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest

import cases
import frameworks
import headrace as hr
from fitting import SHORT

FLOW = hr.MAF(4, context=2, transforms=2, hidden=(12, 12))
ROWS, CONTEXT = cases.rows(6, 4, "float32"), cases.rows(6, 2, "float32", "context")


def refuse(call, *words, error=TypeError):
    """Check that a call raises an error whose message contains each word, without any warning before."""
    with pytest.raises(error) as caught:
        call()
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not found in: {caught.value}"


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def fake_tensor(torch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(6, 4)


def on_cuda(torch):
    """A tensor that claims to be on a device, because this machine may have none."""
    kind = type("OnDevice", (torch.Tensor,), {"device": property(lambda self: torch.device("cuda", 1))})
    return torch.ones(6, 4).as_subclass(kind)


# name -> (make(torch), words of the message)
TENSORS = {
    "requires grad": (lambda t: t.ones(6, 4, requires_grad=True), ["x.detach()", "log_prob_vjp", "to_data_vjp"]),
    "a parameter": (lambda t: t.nn.Parameter(t.ones(6, 4)), ["x.detach()", "log_prob_vjp"]),
    "part of a graph": (lambda t: 2.0 * t.ones(6, 4, requires_grad=True), ["x.detach()", "log_prob_vjp"]),
    "bfloat16": (lambda t: t.ones(6, 4, dtype=t.bfloat16), ["torch.bfloat16", "float32", "x.float()"]),
    "float16": (lambda t: t.ones(6, 4, dtype=t.float16), ["torch.float16", "x.float()"]),
    "complex numbers": (lambda t: t.ones(6, 4, dtype=t.complex64), ["torch.complex64", "x.real"]),
    "a conjugate": (lambda t: t.ones(6, 4, dtype=t.complex64).conj(), ["torch.complex64", "x.real"]),
    "a negative view": (lambda t: t.ones(6, 4, dtype=t.complex64).conj().imag, ["lazy negation", "x.resolve_neg()"]),
    "sparse": (lambda t: t.ones(6, 4).to_sparse(), ["sparse", "x.to_dense()"]),
    "quantised": (lambda t: t.quantize_per_tensor(t.ones(6, 4), 0.1, 0, t.quint8), ["quint8", "x.dequantize()"]),
    "meta": (lambda t: t.ones(6, 4, device="meta"), ["meta", "CPU"]),
    "another device": (on_cuda, ["cuda:1", "CPU", "x.cpu()"]),
    "a fake tensor": (fake_tensor, ["FakeTensor", "NumPy"]),
    "a zero tensor": (lambda t: t._efficientzerotensor((6, 4)), ["NumPy"]),
}


@pytest.mark.filterwarnings("ignore:.*[Qq]uantiz.*", "ignore:.*[Ss]parse.*")
@pytest.mark.parametrize("bad", TENSORS)
def test_tensors_that_are_refused(bad):
    torch = frameworks.load("torch").module
    make, words = TENSORS[bad]
    tensor, context = make(torch), torch.ones(6, 2)
    refuse(lambda: FLOW.log_prob(tensor, context), "x:", *words)
    with torch.no_grad():
        if "x.detach()" in words:  # without gradients these tensors are accepted, because no gradient could be lost
            assert FLOW.log_prob(tensor, context).shape == (6,)
        else:
            refuse(lambda: FLOW.log_prob(tensor, context), "x:", *words)


def test_each_argument_that_requires_a_gradient():
    torch = frameworks.load("torch").module
    flow, x, context, row = FLOW, torch.ones(6, 4), torch.ones(6, 2), torch.ones(6)

    def wants(tensor):
        return tensor.clone().requires_grad_()

    vector = torch.zeros(flow.parameters.size)
    calls = {
        "context": lambda: flow.sample(6, wants(context)),
        "parameters": lambda: flow.to_data(x, context, parameters=wants(vector)),
        "grad_log_prob": lambda: flow.log_prob_vjp(x, wants(row), context),
        "grad_x": lambda: flow.to_data_vjp(x, wants(x), row, context),
        "grad_z": lambda: flow.to_latent_vjp(x, wants(x), row, context),
        "grad_log_det": lambda: flow.to_data_vjp(x, None, wants(row), context),
        "weights": lambda: flow.nll_and_grad(x, context, wants(row)),
        "z": lambda: flow.transforms[0].forward(wants(x), context),
        "params": lambda: hr.ops.coupling(x, wants(torch.ones(6, 4, 2))),
        "gradient": lambda: hr.Adam(flow).step(wants(vector)),
        "layers.0.bias": lambda: flow.transforms[0].set_parameter("layers.0.bias", wants(torch.zeros(12))),
        "validation x": lambda: copy.copy(flow).fit(x, context, validation=(wants(x), context), **SHORT),
        "out": lambda: flow.log_prob(x, context, out=wants(row)),
        "out[1]": lambda: flow.to_data(x, context, out=(torch.empty(6, 4), wants(row))),
    }
    for name, call in calls.items():
        refuse(call, f"{name}:", f"{name}.detach()", "_vjp")

    def assign():
        flow.parameters = wants(vector)

    refuse(assign, "parameters:", "parameters.detach()")


def test_dense_networks_that_require_a_gradient_are_copied():
    torch = frameworks.load("torch").module
    linear, mask = torch.nn.Linear(3, 6), [torch.zeros(6, 3, dtype=torch.bool)]
    detached = [linear.weight.detach()], [linear.bias.detach()]
    sides = {"features": 6, "passive": [0, 1, 2]}
    for made in (
        lambda w, b: hr.transforms.MaskedAutoregressive.from_dense(w, b, mask),
        lambda w, b: hr.transforms.Coupling.from_dense(w, b, **sides),
    ):
        assert np.array_equal(made([linear.weight], [linear.bias]).parameters, made(*detached).parameters)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")  # PyTorch's warning, whose category differs between versions
def test_tangents_and_transformed_functions_are_refused():
    torch = frameworks.load("torch").module
    flow, x = hr.MAF(4, transforms=1, hidden=(8,)), torch.ones(6, 4)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        refuse(lambda: flow.log_prob(dual), "x:", "tangent", "log_prob_vjp")
    refuse(lambda: torch.func.jvp(flow.log_prob, (x,), (x,)), "x:", "log_prob_vjp")
    refuse(lambda: torch.func.grad(lambda x: flow.log_prob(x).sum())(x), "x:", "log_prob_vjp")
    refuse(lambda: torch.func.vmap(flow.log_prob)(torch.ones(2, 6, 4)), "x:", "torch.func", "log_prob_vjp")


# --- JAX --------------------------------------------------------------------------------------------------------------

# name -> (make(jax), words of the message)
JAX_ARRAYS = {
    "bfloat16": (lambda jax: jax.numpy.ones((6, 4), "bfloat16"), ["bfloat16", "x.astype('float32')"]),
    "float16": (lambda jax: jax.numpy.ones((6, 4), "float16"), ["float16", "x.astype('float32')"]),
    "complex numbers": (lambda jax: jax.numpy.ones((6, 4), "complex64"), ["complex64", "x.real"]),
    "a key": (lambda jax: jax.random.key(0), ["PRNGKey", "NumPy"]),
    "a deleted array": (lambda jax: deleted(jax.numpy.ones((6, 4))), ["deleted"]),
    "a shape alone": (lambda jax: jax.ShapeDtypeStruct((6, 4), "float32"), ["ShapeDtypeStruct"]),
}


def deleted(array):
    array.delete()
    return array


@pytest.mark.parametrize("bad", JAX_ARRAYS)
def test_jax_arrays_that_are_refused(bad):
    jax = frameworks.load("jax").module
    make, words = JAX_ARRAYS[bad]
    array = make(jax)
    refuse(lambda: FLOW.log_prob(array, jax.numpy.ones((6, 2))), "x:", *words)
    refuse(lambda: hr.DualAscentFlow.notes(steps=1).fit(array, progress=False), "x:", *words)
    words = [word.replace("x.", "value.") for word in words]
    refuse(lambda: hr.ops.coupling(array, jax.numpy.ones((6, 4, 2))), "value:", *words)
    refuse(lambda: hr.ops.vector_map(array, jax.numpy.ones(6), map="radial", direction="inverse"), "value:", *words)


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap", "jvp"])
def test_tracers_of_jax_are_refused(transform):
    found = frameworks.load("jax")
    jax, flow, x = found.module, hr.MAF(4, transforms=1, hidden=(8,)), found.make(np.ones((6, 4), "f4"))
    calls = {
        "jit": lambda: jax.jit(flow.log_prob)(x),
        "grad": lambda: jax.grad(lambda x: flow.log_prob(x).sum())(x),
        "vmap": lambda: jax.vmap(flow.log_prob)(x[None]),
        "jvp": lambda: jax.jvp(flow.log_prob, (x,), (x,)),
    }
    refuse(calls[transform], "x:", "tracer", "headrace.jax")


def test_results_of_64_bits_that_jax_would_narrow():
    found = frameworks.load("jax")
    assert not found.module.config.jax_enable_x64
    flow = FLOW.astype("float64")
    x, context = found.make(ROWS), found.make(CONTEXT)
    vector, row = found.make(np.zeros(flow.parameters.size, "f4")), found.make(np.ones(6, "f4"))
    words = "float64", "jax_enable_x64", ".astype('float32')"
    for call in (
        lambda: flow.log_prob(x, context),
        lambda: flow.to_data(x, context),
        lambda: flow.sample(6, context),
        lambda: flow.log_prob_vjp(x, row, context),
        lambda: flow.nll_and_grad(x, context),
        lambda: flow.transforms[0].forward(x, context),
    ):
        refuse(call, *words)
    flow.parameters = vector  # calls without a result are accepted
    assert not flow.parameters.any()
    assert np.isfinite(flow.fit(x, context, validation=None, **SHORT).train_loss).all()


def test_an_array_on_another_device_of_jax():
    """The array claims to be on a device that this machine lacks."""
    frameworks.load("jax")
    device = SimpleNamespace(platform="gpu")
    array = SimpleNamespace(devices=lambda: [device], is_deleted=lambda: False)
    call = "jax.device_put(x, jax.devices('cpu')[0])"
    refuse(lambda: hr._arrays.caller.JAX.view("x", array), "x:", "gpu", "CPU", call)


# --- pandas -----------------------------------------------------------------------------------------------------------

COLUMNS = {"a": [0.0, 1.0], "b": [0.5, 1.5], "c": [2.0, 3.0]}
# name -> (make(pandas), words of the message)
FRAMES = {
    "a column of words": (
        lambda pd: pd.DataFrame(COLUMNS | {"kind": ["G", "K"]}),
        ["'kind'", "columns of numbers", "drop this column"],
    ),
    "a column of categories": (
        lambda pd: pd.DataFrame(COLUMNS | {"k": pd.Categorical([1.0, 2.0])}),
        ["category", "'k'"],
    ),
}


@pytest.mark.parametrize("bad", FRAMES)
def test_frames(bad):
    pandas = frameworks.load("pandas").module
    make, words = FRAMES[bad]
    table = make(pandas)
    refuse(lambda: hr.MAF(4).log_prob(table), "x:", *words)


def test_frames_of_the_wrong_shape():
    pandas = frameworks.load("pandas").module
    for table, words in [
        (pandas.DataFrame(COLUMNS), ["(rows, 4)", "(2, 3)"]),
        (pandas.DataFrame(index=range(5)), ["(rows, 4)", "(5, 0)"]),
        (pandas.Series(np.ones(3)), ["(rows, 4)", "(3,)"]),
    ]:
        refuse(lambda table=table: hr.MAF(4).log_prob(table), "x:", *words, error=ValueError)


# --- NumPy and other libraries ----------------------------------------------------------------------------------------

OTHERS = {
    "a list of words": ([["a", "b", "c", "d"]], ["real numbers", "<U1"]),
    "a list of complex numbers": ([[1j, 1.0, 1.0, 1.0]], ["real numbers", "complex128"]),
    "lists of different lengths": ([[1.0, 2.0, 3.0, 4.0], [1.0]], ["lists of one length"]),
    "a list with nothing in one place": ([[1.0, None, 3.0, 4.0]], ["real numbers", "object"]),
    "bytes": (memoryview(ROWS), ["builtins.memoryview"]),
    "objects": (ROWS.astype(object), ["object", "x.astype('float64')"]),
    "words": (ROWS.astype("U3"), ["<U3", "text has to become numbers first"]),
    "complex numbers": (ROWS.astype("c8"), ["complex64", "x.real"]),
    "half precision": (ROWS.astype("f2"), ["float16", "x.astype('float64')"]),
    "a masked array": (np.ma.masked_array(ROWS, ROWS > 0.5), ["masked", "x.filled(...)"]),
}


@pytest.mark.parametrize("bad", OTHERS)
def test_other_objects_are_refused(bad):
    value, words = OTHERS[bad]
    refuse(lambda: FLOW.log_prob(value, CONTEXT), "x:", *words)
    refuse(
        lambda: FLOW.sample(6, value),
        "context:",
        *(word.replace("x.", "context.") for word in words if "(x" not in word),
    )


# --- several frameworks in one call -----------------------------------------------------------------------------------

KINDS = {"numpy": "NumPy array", "torch": "PyTorch tensor", "jax": "JAX array"}
CALLS = {"numpy": "np.asarray({})", "torch": "torch.asarray({})", "jax": "jax.numpy.asarray({})"}


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_arrays_of_two_frameworks(first, second):
    one, other = frameworks.load(first), frameworks.load(second)
    x, context, row = one.make(ROWS), one.make(CONTEXT), one.make(np.ones(6, "f4"))
    flow = FLOW
    vector = np.zeros(flow.parameters.size, "f4")
    calls = {
        "context": lambda: flow.log_prob(x, other.make(CONTEXT)),
        "parameters": lambda: flow.to_latent(x, context, parameters=other.make(vector)),
        "grad_log_prob": lambda: flow.log_prob_vjp(x, other.make(np.ones(6, "f4")), context),
        "grad_x": lambda: flow.to_data_vjp(x, other.make(ROWS), row, context),
        "grad_log_det": lambda: flow.transforms[0].inverse_vjp(x, None, other.make(np.ones(6, "f4")), context),
        "weights": lambda: flow.nll_and_grad(x, context, other.make(np.ones(6, "f4"))),
        "params": lambda: hr.ops.coupling(x, other.make(np.ones((6, 4, 2), "f4"))),
        "validation x": lambda: copy.copy(flow).fit(x, context, validation=(other.make(ROWS), context), **SHORT),
    }
    for name, call in calls.items():
        if first == second:
            call()
        else:
            words = KINDS[first], KINDS[second], CALLS[first].format(name)
            refuse(call, f"{name}:", ", as for ", *words)


def test_a_frame_beside_a_tensor():
    found, pandas = frameworks.load("torch"), frameworks.load("pandas")
    x = found.make(ROWS)
    refuse(lambda: FLOW.log_prob(x, pandas.make(CONTEXT)), "context:", "DataFrame", "torch.asarray(context.to_numpy())")
    got = FLOW.log_prob(x, found.module.asarray(pandas.make(CONTEXT).to_numpy(copy=True)))
    cases.assert_same_bits(got.numpy(), FLOW.log_prob(ROWS, CONTEXT))
    refuse(lambda: FLOW.log_prob(pandas.make(ROWS), found.make(CONTEXT)), "context:", "PyTorch", "np.asarray(context)")


def test_layouts_and_labels_name_the_call_that_helps():
    wide = np.zeros((3, 4))[:, ::2]
    with pytest.raises(
        ValueError, match=r"value: .* C-contiguous .*; call np\.ascontiguousarray\(value\), or value\.contiguous\(\)"
    ):
        hr.ops.coupling(wide, np.zeros((3, 2, 2)))
    flow = hr.MAF(2, context=3, transforms=1, hidden=(4,), seed=0)
    with pytest.raises(ValueError, match=r"context: .*; give labels of classes one column each: np\.eye\(classes\)"):
        flow.log_prob(np.zeros((5, 2), "f4"), np.arange(5))
