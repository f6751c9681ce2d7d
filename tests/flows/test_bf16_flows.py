"""Flows whose products are in bf16: exact densities, files, training, and refused uses."""

import copy
import json
import pickle

import numpy as np
import pytest

import cases
import headrace as hr
from bf16_cases import PARTS

# The relative error of one rounding, divided by that of "bf16".
PRECISION = {matmul: 2.0 ** (8 - 8 * parts) for matmul, parts in PARTS.items()}

FLOWS = {
    "maf": lambda **more: hr.MAF(6, transforms=3, hidden=(33, 20), **more),
    "maf with context": lambda **more: hr.MAF(5, 3, transforms=2, hidden=(24,), **more),
    "iaf": lambda **more: hr.IAF(6, transforms=2, hidden=(20, 21), activation="tanh", **more),
    "realnvp": lambda **more: hr.RealNVP(5, 2, transforms=3, hidden=(24, 24), **more),
    "nsf": lambda **more: hr.NSF(4, transforms=2, hidden=(24,), **more),
    "residual": lambda **more: hr.MAF(4, 2, transforms=2, hidden=(24, 24, 24), residual=True, **more),
    "linear links": lambda **more: hr.MAF(4, transforms=2, hidden=(24,), link="linear", **more),
    "planar": lambda **more: hr.PlanarFlow(3, transforms=3, context=2, hidden=(8,), **more),
    "bounds": lambda **more: hr.NSF(3, transforms=2, hidden=(16,), bounds=[(-9, 9), None, (-20, None)], **more),
}


def made(name, matmul="bf16", spread=0.2):
    return cases.randomise(FLOWS[name](matmul=matmul), spread, name)


def given(flow, n, *key):
    context = cases.rows(n, flow.context, "float32", "context", *key) if flow.context else None
    return 0.8 * cases.rows(n, flow.features, "float32", *key), context


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", FLOWS)
def test_to_data_inverts_to_latent(name, matmul):
    """The inverse differs by the precision of bf16 in the few rows where it rounds some value differently."""
    flow = made(name, matmul)
    z, context = given(flow, 2000, name)
    x, log_det = flow.to_data(z, context)
    back, other = flow.to_latent(x, context)
    error = np.abs(back - z).max(axis=1)
    assert (error < 1e-4).mean() > 0.95
    assert np.median(error) < 5e-6
    assert error.max() < max(0.2 * PRECISION[matmul], 1e-3)
    near = error < 1e-4
    cases.assert_close(other[near], -log_det[near], magnitude=4.0, depth=16)


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", FLOWS)
def test_few_rows_and_many_have_the_same_density(name, matmul):
    flow = made(name, matmul)
    x, context = given(flow, 300, name)
    want = flow.log_prob(x, context)
    for n in (1, 3, 7, 8, 100):
        cases.assert_close(flow.log_prob(x[:n], None if context is None else context[:n]), want[:n], magnitude=10.0)
    if context is not None:
        cases.assert_close(
            flow.log_prob(x, context[0]), flow.log_prob(x, np.repeat(context[:1], 300, 0)), magnitude=10.0
        )


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", FLOWS)
def test_the_density_differs_little_from_that_of_float32(name, matmul):
    flow = made(name, matmul)
    x, context = given(flow, 1000, name)
    exact = flow.to("cpu")
    assert (exact.matmul, flow.matmul) == ("exact", matmul)
    change = flow.log_prob(x, context) - exact.log_prob(x, context)
    assert 1e-6 * PRECISION[matmul] < np.sqrt(np.mean(np.square(change))) < max(0.1 * PRECISION[matmul], 2e-6)
    cases.assert_same_bits(exact.log_prob(x, context), cases.randomise(FLOWS[name](), 0.2, name).log_prob(x, context))


def test_draws_are_those_of_the_density():
    for name in ("maf", "realnvp", "nsf"):
        flow = made(name)
        context = given(flow, 500, name)[1]
        x, log_prob = flow.sample_and_log_prob(500, context, seed=3)
        error = np.abs(flow.log_prob(x, context) - log_prob)
        assert np.median(error) < 2e-5
        assert (error < 1e-3).mean() > 0.95
        cases.assert_same_bits(flow.sample(500, context, seed=3), x)
        small_context = None if context is None else context[:3]
        cases.assert_close(flow.sample(3, small_context, seed=3), x[:3], magnitude=4.0)


def test_the_integral_is_one():
    """A sum over a grid in two dimensions gives the integral of the density, which is smooth along the last coordinate
    of each transform.
    """
    line = np.arange(-9, 9, 0.012)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype("float32")
    for flow in (
        hr.MAF(2, transforms=1, hidden=(16, 16), matmul="bf16"),
        hr.MAF(2, transforms=2, hidden=(16,), matmul="bf16"),
        hr.RealNVP(2, transforms=2, hidden=(16,), matmul="bf16"),
    ):
        cases.randomise(flow, 0.15)
        total = np.exp(flow.log_prob(grid).astype("float64")).sum() * 0.012**2
        assert abs(total - 1) < 1e-5


def test_importance_weights_are_unbiased():
    flow = cases.randomise(hr.MAF(3, transforms=2, hidden=(24, 24), matmul="bf16"), 0.1)
    x, log_prob = flow.sample_and_log_prob(200_000, seed=1)
    target = -0.5 * np.square(x / 0.8).sum(axis=1) - 1.5 * np.log(2 * np.pi * 0.8**2)
    weights = np.exp(target - log_prob, dtype=np.float64)
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(len(x))
    assert weights.std() / np.sqrt(len(x)) < 0.02


# ---- derivatives and fits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", FLOWS)
def test_gradients_are_near_those_of_the_unrounded_network(name, matmul):
    flow = made(name, matmul)
    x, context = given(flow, 400, name)
    nll, gradient = flow.nll_and_grad(x, context)
    assert abs(nll + flow.log_prob(x, context).mean(dtype=np.float64)) < 1e-4
    _, exact = flow.to("cpu").nll_and_grad(x, context)
    precision = max(PRECISION[matmul], 2.0**-12)  # float32 sums of many rows have errors of 2^-12
    assert np.linalg.norm(gradient - exact) < 0.03 * precision * np.linalg.norm(exact)
    assert np.linalg.norm(gradient - exact) > 1e-6 * PRECISION[matmul] * np.linalg.norm(exact)
    log_prob, score = flow.log_prob_and_score(x, context)
    cases.assert_close(log_prob, flow.log_prob(x, context), magnitude=10.0)
    _, wanted = flow.to("cpu").log_prob_and_score(x, context)
    assert np.linalg.norm(score - wanted) < 0.05 * precision * np.linalg.norm(wanted)


def test_a_fit_judges_the_rounded_density():
    x = 2 + cases.rows(2000, 3, "float32") @ np.array([[1, 0.5, 0], [0, 1, -0.8], [0, 0, 0.3]], "float32")
    flow = hr.MAF(3, transforms=2, hidden=(16,), matmul="bf16")
    before = flow.log_prob(x).mean()
    history = flow.fit(x, epochs=5, progress=False)
    assert flow.matmul == "bf16"
    assert flow.log_prob(x).mean() > before + 1
    assert abs(flow.to("cpu").log_prob(x).mean() - flow.log_prob(x).mean()) < 0.01
    again = hr.MAF(3, transforms=2, hidden=(16,), matmul="bf16")
    assert again.fit(x, epochs=5, progress=False).validation_loss == history.validation_loss
    cases.assert_same_bits(again.parameters, flow.parameters)
    exact = hr.MAF(3, transforms=2, hidden=(16,)).fit(x, epochs=5, progress=False)
    assert exact.validation_loss != history.validation_loss


def test_weights_that_change_are_rounded_anew():
    flow = made("maf")
    x, _ = given(flow, 20)
    for _ in range(2):
        flow.parameters = flow.parameters * np.float32(1.1)
        fresh = FLOWS["maf"](matmul="bf16")
        fresh.parameters = flow.parameters
        cases.assert_same_bits(flow.log_prob(x), fresh.log_prob(x))
        cases.assert_same_bits(flow.log_prob(x), flow.log_prob(x, parameters=flow.parameters))
    adam = hr.Adam(flow, learning_rate=0.01)
    adam.step(flow.nll_and_grad(x)[1])
    fresh.parameters = flow.parameters
    cases.assert_same_bits(flow.log_prob(x), fresh.log_prob(x))


# ---- copies, parts and files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", FLOWS)
def test_copies_parts_and_files_keep_matmul(name, matmul, tmp_path):
    flow = made(name, matmul)
    x, context = given(flow, 30, name)
    want = flow.log_prob(x, context)
    flow.save(tmp_path / "flow")
    for same in (
        copy.copy(flow),
        copy.deepcopy(flow),
        pickle.loads(pickle.dumps(flow)),
        hr.load(tmp_path / "flow"),
        hr.Flow(flow.transforms, flow.base, standardize_context=flow.standardize_context),
        flow[:],
        flow.astype("float32"),
        flow.to("cpu").to("cpu", matmul=matmul),
        hr.Ensemble([flow, flow])[1],
        hr.from_bytes(hr.to_bytes(hr.Ensemble([flow, flow]))).flows[0],
    ):
        assert same.matmul == matmul
        cases.assert_same_bits(same.log_prob(x, context), want)
    assert {t.matmul for t in flow.transforms} == {matmul}
    assert flow[:1].matmul == flow[0].matmul == matmul
    assert f", float32, matmul {matmul}\n" in repr(flow)
    assert "matmul" not in repr(flow.to("cpu"))
    assert f'matmul\\":\\"{matmul}\\"'.encode() in hr.to_bytes(flow)
    assert b"matmul" not in hr.to_bytes(flow.to("cpu"))


def test_transforms_keep_matmul_too(tmp_path):
    transform = cases.randomise(hr.transforms.MaskedAutoregressive(5, (12,)).to("cpu", "bf16"))
    z = cases.rows(20, 5, "float32")
    x, log_det = transform.forward(z)
    inverse = hr.transforms.Inverse(transform)
    inverse.save(tmp_path / "inverse")
    for turned in (inverse, hr.load(tmp_path / "inverse")):
        assert turned.matmul == turned.transform.matmul == "bf16"
        got = turned.inverse(z)
        cases.assert_same_bits(got[0], x)
        cases.assert_same_bits(got[1], log_det)
    assert hr.transforms.Permutation([1, 0]).to("cpu", "bf16").matmul == "bf16"


def test_marginals_and_conditionals():
    flow = cases.randomise(hr.MAF(4, link="none", hidden=(16,), matmul="bf16"))
    x = cases.rows(50, 4, "float32")
    part = flow.marginal(2)
    assert part.matmul == "bf16"
    assert np.isfinite(part.log_prob(x[:, :2])).all()
    rest = flow.given(x[:, :2]).log_prob(x[:, 2:])
    error = np.abs(flow.log_prob(x) - part.log_prob(x[:, :2]) - rest)
    assert np.median(error) < 1e-4


def test_a_file_with_another_matmul_is_refused():
    data = hr.to_bytes(made("maf"))
    with pytest.raises(hr.FileFormatError, match="matmul: expected"):
        hr.from_bytes(_with_header(data, lambda header: header.update(matmul="fp8")))
    with pytest.raises(hr.FileFormatError, match="matmul"):
        hr.from_bytes(_with_header(data, lambda header: header["transforms"][0].update(matmul="bf16")))


def _with_header(data, change):
    """Return a file's bytes with a changed header, in format 1, which has no checksum."""
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    header = json.loads(entries["__metadata__"]["headrace"])
    change(header)
    header["format"] = 1
    entries["__metadata__"] = {"headrace": json.dumps(header)}
    first = json.dumps(entries).encode()
    first += b" " * (-len(first) % 8)
    return len(first).to_bytes(8, "little") + first + data[8 + length :]


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_bf16_is_refused_in_float64_and_elsewhere(tmp_path):
    flow = hr.MAF(3, hidden=(8,))
    for wrong in ("tf32", "3xtf32", "bf16x2", "fp8", None):
        with pytest.raises(ValueError, match=r"matmul: expected 'exact', .* or 'bf16x6_tiles' on the CPU, got"):
            flow.to("cpu", matmul=wrong)
    with pytest.raises(ValueError, match=r"matmul: expected 'exact', .* or 'bf16x6_tiles' on the CPU, got 'tf32'"):
        hr.MAF(3, matmul="tf32")
    for matmul in PARTS:
        with pytest.raises(ValueError, match=rf"matmul: expected .*'exact'.*'tf32'.*, got '{matmul}'"):
            flow.to("cuda", matmul=matmul)
        message = rf"dtype, matmul: expected float32 or 'exact', got float64 and '{matmul}'; call .*, or .to\('cpu'\)"
        for wrong in (
            lambda m=matmul: hr.MAF(3, dtype="float64", matmul=m),
            lambda m=matmul: flow.astype("float64").to("cpu", m),
            lambda m=matmul: flow.to("cpu", m).astype("float64"),
        ):
            with pytest.raises(ValueError, match=message):
                wrong()
    mixed = [hr.transforms.MaskedAutoregressive(3, (5,)).to("cpu", matmul) for matmul in ("exact", "bf16")]
    with pytest.raises(ValueError, match=r"transforms: expected one matmul, got \['exact', 'bf16'\]; use .to"):
        hr.Flow(mixed)
    assert hr.Flow(mixed[:1], matmul="bf16").matmul == "bf16"
    pytest.importorskip("onnx")
    for matmul in PARTS:
        with pytest.raises(ValueError, match=f"matmul: expected 'exact', as in a graph, got '{matmul}'"):
            flow.to("cpu", matmul).to_onnx(tmp_path / "flow.onnx")


def test_exact_flows_keep_their_bits():
    """Flows without `matmul`, and flows without a hidden layer, have exact products."""
    x = cases.rows(50, 4, "float32")
    for flow in (
        hr.MAF(4, hidden=(), link="linear"),
        hr.Flow([hr.transforms.Linear(4)]),
        hr.PlanarFlow(4, transforms=3),
    ):
        cases.randomise(flow)
        for matmul in PARTS:
            cases.assert_same_bits(flow.to("cpu", matmul).log_prob(x), flow.log_prob(x))
