"""Flows as modules of plain PyTorch have the results of the core, with headrace installed and without."""

import copy
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import file_cases
import headrace as hr
from convert_cases import library
from headrace import convert

pytestmark = pytest.mark.programs

torch = library("torch")
FOLDER = Path(convert.__file__).parent / "plain"

VERBS = ("log_prob", "to_latent", "to_data")
# Limits for roundings of the module and of the core, by the size of terms in the examples; splines divide by bin sizes.
LIMITS = {"float32": 3e-5, "float64": 1e-11}


def flow_of(name, dtype):
    made = file_cases.EXAMPLES[name](dtype)
    return made if isinstance(made, hr.Flow) else hr.Flow([made])


FLOWS = [name for name in file_cases.EXAMPLES if name != "ensemble"]


def tensor(array):
    return None if array is None else torch.from_numpy(np.asarray(array))


def called(module, verb, given, context):
    with torch.no_grad():
        found = getattr(module, verb)(tensor(given), tensor(context))
    return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]


def wanted(flow, verb, given, context):
    with np.errstate(all="ignore"):
        found = getattr(flow, verb)(given, context)
    return [np.asarray(one) for one in (found if isinstance(found, tuple) else (found,))]


def assert_alike(flow, given, context, verbs=VERBS, limit=None):
    module = convert.to_torch(flow, verify=False)
    for verb in verbs:
        rows = np.asarray(flow.to_latent(given, context)[0], str(flow.dtype)) if verb == "to_data" else given
        for got, want in zip(called(module, verb, rows, context), wanted(flow, verb, rows, context), strict=True):
            assert (got.shape, got.dtype) == (want.shape, want.dtype)
            size = 1.0 + np.abs(want).max(initial=0.0)
            assert np.abs(got - want).max(initial=0.0) <= (limit or LIMITS[str(flow.dtype)]) * size, verb


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FLOWS)
def test_every_kind_in_both_directions(name, dtype):
    flow = flow_of(name, dtype)
    x, context = file_cases.inputs_of(flow)
    assert_alike(flow, x.astype(dtype), context)
    convert.to_torch(flow)  # the conversion itself compares results


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["maf-context", "splines", "support", "planar", "radial", "mixture", "periodic"])
def test_hard_rows_equal_the_core(name):
    flow = flow_of(name, "float32")
    x, context = (np.array(one, "float32") if one is not None else None for one in file_cases.inputs_of(flow))
    x[1, 0], x[3, -1], x[5], x[6] = np.nan, np.inf, 0.0, -1e6
    if context is not None:
        context[2, 0] = np.nan
    module = convert.to_torch(flow, verify=False)
    for verb in ("log_prob", "to_latent"):
        for got, want in zip(called(module, verb, x, context), wanted(flow, verb, x, context), strict=True):
            assert_array_equal(np.isfinite(got), np.isfinite(want))
            assert_array_equal(np.isneginf(got), np.isneginf(want))


@pytest.mark.parametrize("rows", [0, 1])
def test_none_and_one_row_and_leading_dimensions(rows):
    flow = flow_of("maf-context", "float64")
    assert_alike(flow, cases.rows(rows, 3, "float64"), cases.rows(rows, 2, "float64"))
    module, x, context = convert.to_torch(flow), torch.zeros(5, 4, 3).double(), torch.ones(4, 2).double()
    assert_allclose(module(x, context).detach(), flow.log_prob(x.numpy(), context.numpy()), rtol=1e-11)
    assert module(x[0, 0], context[0]).shape == ()
    with pytest.raises(ValueError, match=r"^rows: expected shape \(\.\.\., 3\), got \(5, 4, 2\)"):
        module(x[..., :2], context)
    with pytest.raises(ValueError, match=r"^context: expected 2 columns, got None"):
        module(x)


def test_samples_have_the_flows_distribution():
    for name in ("maf", "student-t-fixed", "mixture", "uniform", "normal", "support"):
        flow = flow_of(name, "float64")
        torch.manual_seed(1)
        module = convert.to_torch(flow)
        x, own = module.sample(20_000).numpy(), np.asarray(flow.sample(20_000, seed=0))
        assert x.shape == own.shape
        quantiles = [np.quantile(one, [0.1, 0.3, 0.5, 0.7, 0.9], axis=0) for one in (x, own)]
        spread = quantiles[1][-1] - quantiles[1][0]
        # A quantile may be wrong by four standard errors.
        assert np.abs(quantiles[0] - quantiles[1]).max() <= 0.05 * spread.max()
    flow = flow_of("maf-context", "float64")
    assert convert.to_torch(flow).sample(7, torch.zeros(4, 2).double()).shape == (7, 4, 3)


# ---- a module like others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["maf-context", "nsf", "iaf", "everything", "planar", "mixture", "student-t"])
def test_gradients_are_those_of_the_core(name):
    flow = flow_of(name, "float64")
    x, context = file_cases.inputs_of(flow)
    x = np.asarray(flow.to_data(flow.to_latent(x, context)[0], context)[0])
    module, rows = convert.to_torch(flow), tensor(x).requires_grad_()
    module(rows, tensor(context)).sum().backward()
    found = flow.log_prob_vjp(x, np.ones(len(x)), context, wrt=("inputs", "parameters"))
    size = np.abs(found[0]).max()
    assert_allclose(rows.grad, found[0], rtol=1e-7, atol=1e-8 * size)
    moved = flow.astype("float64")
    moved.parameters = found[1]
    named, arrays = dict(module.named_parameters()), moved.named_parameters()
    assert set(named) == set(arrays)
    for key, want in arrays.items():
        got = np.zeros(want.shape) if named[key].grad is None else named[key].grad.numpy()
        assert_allclose(got, want, rtol=1e-7, atol=1e-8 * np.abs(want).max(initial=1.0), err_msg=key)


def test_names_are_those_of_files_and_copies_are_independent(tmp_path):
    flow = flow_of("everything", "float32")
    module = convert.to_torch(flow)
    arrays = {**flow.named_parameters(), **flow._fixed_arrays()}
    assert set(module.state_dict()) == set(arrays)
    again = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    x, context = file_cases.inputs_of(flow)
    assert_allclose(called(again, "log_prob", x, context)[0], flow.log_prob(x, context), rtol=1e-4, atol=1e-4)
    module.load_state_dict(again.state_dict())
    assert_array_equal(called(module, "log_prob", x, context)[0], called(again, "log_prob", x, context)[0])
    file = io.BytesIO()
    torch.save(again, file)
    file.seek(0)
    read = torch.load(file, weights_only=False)
    assert_array_equal(called(read, "log_prob", x, context)[0], called(again, "log_prob", x, context)[0])


def test_a_copy_of_the_folder_needs_no_headrace(tmp_path):
    library("safetensors")
    shutil.copytree(FOLDER, tmp_path / "plain", ignore=shutil.ignore_patterns("__pycache__"))
    flow = flow_of("nsf-coupling", "float32")
    flow.save(tmp_path / "flow.safetensors")
    x = flow.sample(20, seed=1)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys; sys.path.insert(0, '.'); sys.modules['headrace'] = None\n"
        "import numpy, torch, plain\n"
        "flow = plain.load('flow.safetensors')\n"
        "numpy.save('log_prob.npy', flow(torch.from_numpy(numpy.load('x.npy'))).detach().numpy())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert_allclose(np.load(tmp_path / "log_prob.npy"), flow.log_prob(x), rtol=1e-5, atol=1e-5)


def test_an_exported_program_takes_any_number_of_rows():
    flow = flow_of("maf-context", "float32")
    module = convert.to_torch(flow)
    x, context = (tensor(one.astype("float32")) for one in file_cases.inputs_of(flow))
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(module, (x, context), dynamic_shapes=({0: rows}, {0: rows}))
    more = x.repeat(3, 1), context.repeat(3, 1)
    assert_allclose(program.module()(*more).detach(), module(*more).detach(), rtol=1e-6, atol=1e-6)


def test_unsupported_arguments():
    with pytest.raises(TypeError, match=r"^flow: expected a headrace\.Flow, got int"):
        convert.to_torch(3)
    with pytest.raises(TypeError, match=r"^flow: expected a headrace\.Flow, got"):
        convert.to_torch(file_cases.EXAMPLES["ensemble"]("float32"))

    class Own(hr.Flow):
        pass

    with pytest.raises(ValueError, match=r"^matmul: expected 'exact', as in PyTorch, got 'bf16'"):
        convert.to_torch(hr.MAF(3, matmul="bf16"))
    with pytest.raises(TypeError, match=r"^Own: expected one of the classes that files know"):
        convert.to_torch(Own([hr.transforms.Permutation([1, 0])]))


@pytest.mark.parametrize("verb", ["log_prob", "to_data"])
def test_a_module_that_computes_something_else_is_found(verb, monkeypatch):
    from headrace.convert.plain import PlainFlow

    own = getattr(PlainFlow, verb)

    def other(self, rows, context=None):
        found = own(self, rows, context)
        return found + 1e-3 if verb == "log_prob" else (found[0] + 1e-3, found[1])

    monkeypatch.setattr(PlainFlow, verb, other)
    expected = "log densities of the source" if verb == "log_prob" else "flow's rows of data"
    with pytest.raises(ValueError, match=rf"^verify: expected the {expected} to 1e-07, but they differ by up to 0\.0"):
        convert.to_torch(flow_of("maf", "float32"))


def test_softplus_is_not_linear():
    from headrace.convert.plain.operators import Operators

    x = torch.tensor([-30.0, 0.0, 19.0, 21.0, 25.0, 39.0, 41.0, 1e3], dtype=torch.float64)
    assert_allclose(Operators.softplus(x), np.logaddexp(0.0, x.numpy()), rtol=1e-15)
