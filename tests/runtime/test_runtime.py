"""The header headrace.hpp: results from files in C++ agree with those of Python."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cases
import file_cases
import headrace as hr
import runtime_library
from runtime_library import ROOT, Refused

pytestmark = pytest.mark.programs

KEPT = sorted((ROOT / "tests" / "files").glob("*/*.safetensors"))
every_example = pytest.mark.parametrize("name", file_cases.EXAMPLES)


def magnitude_of(*arrays):
    """The magnitude of terms in sums of rows, as in the tests of files."""
    return max([1.0, *(np.square(a).max(initial=0.0) for a in arrays)])


def assert_alike(runtime, module, source, dtype):
    """Compare the results of every verb, in the flow's precision."""
    loaded = runtime.load(source, dtype)
    x, context = file_cases.inputs_of(module)
    if isinstance(module, hr.Ensemble):
        want = module.log_prob(x, context)
        cases.assert_close(loaded.log_prob(x, context).astype(dtype), want, magnitude=magnitude_of(want), depth=12)
        for refused in (loaded.to_latent, loaded.to_data):
            with pytest.raises(Refused, match="an ensemble, which has no latent space"):
                refused(x, context)
        drawn = module.sample(len(x), context, seed=7)
        rows, log_prob = loaded.sample(len(x), module.features, 7, context)
        cases.assert_close(rows.astype(dtype), drawn, magnitude=magnitude_of(drawn), depth=12)
        want = module.log_prob(drawn, context)
        cases.assert_close(log_prob.astype(dtype), want, magnitude=magnitude_of(want), depth=12)
        return
    is_flow = isinstance(module, hr.Flow)
    to_latent, to_data = (module.to_latent, module.to_data) if is_flow else (module.inverse, module.forward)
    z, log_det = to_latent(x, context)
    back, log_det_back = to_data(z, context)
    size = magnitude_of(z)
    pairs = [((z, log_det), loaded.to_latent(x, context)), ((back, log_det_back), loaded.to_data(z, context))]
    for want, got in pairs:
        for w, g in zip(want, got, strict=True):
            cases.assert_close(g.astype(dtype), w, magnitude=max(size, np.abs(w).max()), depth=12)
    if is_flow:
        cases.assert_close(
            loaded.log_prob(x, context).astype(dtype), module.log_prob(x, context), magnitude=size, depth=12
        )
        wide = [loaded.log_prob(x.astype("float64"), context), *loaded.to_latent(x.astype("float64"), context)]
        for w, g in zip([loaded.log_prob(x, context), *loaded.to_latent(x, context)], wide, strict=True):
            cases.assert_close(g.astype(dtype), w.astype(dtype), magnitude=size, depth=12)
        n = len(x)
        drawn, density = module.sample_and_log_prob(n, context, seed=7)
        rows, log_prob = loaded.sample(n, module.features, 7, context)
        cases.assert_close(rows.astype(dtype), drawn, magnitude=max(size, np.abs(drawn).max()), depth=12)
        cases.assert_close(log_prob.astype(dtype), density, magnitude=magnitude_of(density), depth=12)


# ---- the header itself ----------------------------------------------------------------------------------------------


def test_the_header_is_joined_of_its_parts():
    sys.path.insert(0, str(ROOT / "runtime"))
    try:
        import join
    finally:
        sys.path.pop(0)
    assert (Path(hr.config.include()) / "headrace.hpp").read_text() == join.joined(), "build headrace again"


def test_the_command_line_prints_its_folder(capsys, monkeypatch):
    from headrace._cli.cli import main

    monkeypatch.setenv("COLUMNS", "20")  # a long path is not wrapped
    assert main(["--include"]) == 0
    assert capsys.readouterr().out == hr.config.include() + "\n"


# ---- every file -----------------------------------------------------------------------------------------------------


@every_example
def test_every_kind_has_the_results_of_python(runtime, name, dtype):
    module = file_cases.EXAMPLES[name](dtype)
    assert_alike(runtime, module, hr.to_bytes(module), module.dtype or "float64")


def test_names_of_columns_are_left_out(runtime):
    flow = hr.MAF(["age", "mass"], transforms=2, hidden=(8,))
    source = hr.to_bytes(flow)
    assert b"mass" in source
    x = cases.rows(20, 2, "float32")
    got = runtime.load(source, "float32").log_prob(x, None).astype("float32")
    cases.assert_close(got, flow.log_prob(x), magnitude=magnitude_of(x), depth=12)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_files_of_every_version_have_their_recorded_results(runtime, path):
    expected = json.loads(path.with_suffix(".json").read_text())
    dtype = np.dtype(path.stem.split("-")[-1])
    loaded = runtime.load(path, dtype)
    x = np.array(expected["x"])
    context = None if expected["context"] is None else np.array(expected["context"])
    if "spread" in expected:  # a result of an ensemble, whose members have no names in the header
        got, others = {}, {"spread", "z"}
    else:
        got, others = dict(zip(("z", "log_det"), loaded.to_latent(x, context), strict=True)), set()
    if "log_prob" in expected:
        got["log_prob"] = loaded.log_prob(x, context)
    else:
        got |= dict(zip(("forward", "forward_log_det"), loaded.to_data(x, context), strict=True))
    assert set(got) | {"x", "context"} | others == set(expected)
    for key, array in got.items():
        cases.assert_close(
            array.astype(dtype), np.array(expected[key]), magnitude=magnitude_of(np.array(expected["z"])), depth=12
        )


@every_example
def test_single_files_in_double_have_more_digits(runtime, name):
    """A float32 file that is computed in double agrees with the float64 flow of equal parameters."""
    module = file_cases.EXAMPLES[name]("float32")
    if module.dtype is None or isinstance(module, hr.Ensemble):
        return
    wide = runtime.load(hr.to_bytes(module), "float64")
    x, context = file_cases.inputs_of(module)
    judge = module.astype("float64")
    want = judge.to_latent(x, context) if isinstance(judge, hr.Flow) else judge.inverse(x, context)
    for w, g in zip(want, wide.to_latent(x, context), strict=True):
        cases.assert_close(g, w, magnitude=max(magnitude_of(want[0]), np.abs(w).max()), depth=12)


# ---- hard inputs ----------------------------------------------------------------------------------------------------


@every_example
def test_rows_that_are_not_finite_or_overflow_spoil_only_themselves(runtime, name, dtype):
    module = file_cases.EXAMPLES[name](dtype)
    if isinstance(module, hr.Ensemble):
        return  # members of ensembles are flows, which are tested by themselves
    rows, context = file_cases.inputs_of(module)
    loaded = runtime.load(hr.to_bytes(module), rows.dtype)
    is_flow = isinstance(module, hr.Flow)
    latent = loaded.to_latent(rows, context)[0]
    for verb, own, given in (("to_latent", "inverse", rows), ("to_data", "forward", latent)):
        given = given.astype(rows.dtype)
        given[1, 0], given[3, -1], given[5, 0], given[7] = np.nan, np.inf, np.finfo(rows.dtype).max, 1e3
        want = getattr(module, verb if is_flow else own)(given, context)
        got = getattr(loaded, verb)(given, context)
        good = [r for r in range(len(rows)) if r not in (1, 3, 5, 7)]
        for w, g in zip(want, got, strict=True):
            assert np.isnan(g[[1, 3]]).all()
            cases.assert_close(
                g[good].astype(rows.dtype),
                w[good],
                magnitude=max(magnitude_of(latent), np.abs(w[good]).max()),
                depth=12,
            )
            assert np.isfinite(g[7]).all() == np.isfinite(w[7]).all()
            if np.isfinite(w[7]).all():
                cases.assert_close(g[[7]].astype(rows.dtype), w[[7]], magnitude=max(1e6, np.abs(w[7]).max()), depth=12)
    if is_flow:
        rows = rows.copy()
        rows[1, 0], rows[3, -1], rows[5, 0], rows[7] = np.nan, np.inf, np.finfo(rows.dtype).max, 1e3
        with np.errstate(all="ignore"):
            want, got = module.log_prob(rows, context), loaded.log_prob(rows, context).astype(rows.dtype)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
    if context is not None:
        context = context.copy()
        context[2, 0] = np.nan
        value, log_det = loaded.to_latent(rows, context)
        assert np.isnan(value[2]).all()
        assert np.isnan(log_det[2])


@pytest.mark.parametrize("context", [0, 1])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-3, 3.0, 1e4])
def test_hard_planar_transforms(runtime, scale, context, dtype):
    """If w·u is far below -1, most of u cancels, and the remainder along w has to agree with the formula's."""
    w, u = scale * np.array([1.0, -0.5, 0.25]), np.array([0.3, -0.1, 0.2])
    x = 3.0 * cases.rows(50, 3, dtype, "planar")
    given = np.zeros((50, 1), dtype) if context else None
    for along in (-1e5, -8.0, -1.0, 0.0, 1e-4, 50.0):
        moved = u + (along / 1.3125 / scale / scale * w if scale >= 1e-3 else 0.0)
        t = hr.transforms.Planar(3, context=context, hidden=(), dtype=dtype)
        if context:
            t.set_parameter("layers.0.weight", np.zeros((7, 1), dtype))
            t.set_parameter("layers.0.bias", np.concatenate([w, moved, [0.1]]).astype(dtype))
        else:
            for name, value in (("w", w), ("u", moved), ("b", np.array([0.1]))):
                t.set_parameter(name, value.astype(dtype))
        loaded, judge = runtime.load(hr.to_bytes(t), dtype), t.astype("float64")
        for verb, own in (("to_latent", "inverse"), ("to_data", "forward")):
            for got, core, want in zip(
                getattr(loaded, verb)(x, given), getattr(t, own)(x, given), getattr(judge, own)(x, given), strict=True
            ):
                error = np.abs(core - want).max()  # where the problem is ill-conditioned, the core has an error, too
                least = cases.tolerance(dtype) * max(1.0, np.abs(want).max())
                assert np.abs(got - want).max() <= max(8.0 * error, least), (along, verb)


def test_far_rows_have_a_log_prob_of_minus_infinity(runtime):
    flow = hr.Flow([hr.transforms.Permutation([1, 0])], dtype="float32")
    loaded = runtime.load(hr.to_bytes(flow), "float32")
    x = np.array([[1e30, 0.0], [0.0, 1.0]])
    assert loaded.log_prob(x)[0] < np.finfo("float32").min
    wide = runtime.load(hr.to_bytes(flow.astype("float64")), "float64")
    assert wide.log_prob(np.array([[1e200, 0.0]]))[0] == -np.inf


def test_one_context_serves_all_rows_and_no_rows_are_fine(runtime):
    flow = file_cases.EXAMPLES["maf-context"]("float64")
    loaded = runtime.load(hr.to_bytes(flow), "float64")
    x, context = file_cases.inputs_of(flow)
    cases.assert_close(loaded.log_prob(x, context[0]), flow.log_prob(x, context[0]), depth=12)
    assert loaded.log_prob(x[:0], context[:0]).shape == (0,)
    assert loaded.log_prob(x[:0], context[:1]).shape == (0,)


def test_wrong_arguments_are_refused(runtime):
    flow = file_cases.EXAMPLES["maf-context"]("float64")
    loaded = runtime.load(hr.to_bytes(flow), "float64")
    x, context = file_cases.inputs_of(flow)
    for bad in (None, context[:3]):
        with pytest.raises(Refused, match=r"^other: context: expected 1 row or 20"):
            loaded.log_prob(x, bad)
    alone = runtime.load(hr.to_bytes(hr.transforms.Permutation([1, 0])), "float64")
    with pytest.raises(Refused, match="expected a flow for a density or a sample, got a transform alone"):
        alone.log_prob(np.ones((1, 2)))
    with pytest.raises(Refused, match="context: expected none"):
        alone.to_data(np.ones((1, 2)), np.ones((1, 1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: hr.MAF(5, 2, transforms=1, hidden=(33, 20), matmul="bf16"),
        lambda: hr.MAF(5, 2, transforms=3, hidden=(33, 20), matmul="bf16"),
        lambda: hr.NSF(4, 1, transforms=2, hidden=(16,), residual=True, matmul="bf16"),
        lambda: hr.RealNVP(4, 1, transforms=2, hidden=(16, 16), link="linear", matmul="bf16"),
        lambda: hr.PlanarFlow(3, 2, context=2, hidden=(8,), matmul="bf16"),
        lambda: hr.MAF(5, 2, transforms=3, hidden=(33, 20), matmul="bf16x3"),
        lambda: hr.MAF(5, 2, transforms=3, hidden=(33, 20), matmul="bf16x6"),
        lambda: hr.MAF(5, 2, transforms=3, hidden=(33, 20), matmul="bf16_tiles"),
        lambda: hr.MAF(5, 2, transforms=3, hidden=(33, 20), matmul="bf16x6_tiles"),
    ],
    ids=["one", "maf", "nsf", "realnvp", "planar", "bf16x3", "bf16x6", "bf16_tiles", "bf16x6_tiles"],
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_products_in_bf16(runtime, make, precision):
    """Results agree up to rounding, except for a few rows in which a sum lies half way between two bf16 values."""
    flow = cases.randomise(make(), 0.2)
    loaded = runtime.load(hr.to_bytes(flow), precision)
    x, context = cases.rows(400, flow.features, "float32"), cases.rows(400, flow.context, "float32", "context")
    exact = flow.to("cpu")
    for found, want, other in (
        (loaded.log_prob(x, context), flow.log_prob(x, context), exact.log_prob(x, context)),
        (loaded.to_data(x, context)[0][:, 0], flow.to_data(x, context)[0][:, 0], exact.to_data(x, context)[0][:, 0]),
    ):
        error, change = np.abs(found - want), np.abs(other - want)
        assert np.median(error) < 1e-5
        assert (error < 1e-4).mean() > 0.85
        assert error.max() < 0.1
        if flow.matmul == "bf16":
            assert np.median(error) <= 0.3 * np.median(change)


# ---- samples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [hr.StandardNormal(5), hr.Logistic(5)], ids=["normal", "logistic"])
def test_a_sample_is_a_function_of_seed_row_and_column(runtime, base, dtype):
    flow = hr.Flow([], base, dtype=dtype)
    loaded = runtime.load(hr.to_bytes(flow), dtype)
    seed = 2**63 + 12345
    want = flow.sample(40, seed=seed)
    cases.assert_close(loaded.sample(40, 5, seed)[0].astype(dtype), want)
    later = loaded.sample(3, 5, seed, first_row=37)[0]
    np.testing.assert_array_equal(later, loaded.sample(40, 5, seed)[0][37:])
    far = loaded.sample(2, 5, 0, first_row=2**32 - 1)[0]
    assert (far[0] != far[1]).all()  # the upper half of a row's index matters
    assert (far[1] != loaded.sample(1, 5, 0)[0][0]).all()


# ---- the program ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("name", ["MAF", "ensemble"])
def test_a_sample_allocates_memory_for_its_rows_alone(runtime, name, dtype, tmp_path):
    flow = hr.MAF(3, transforms=1, hidden=(8,), dtype=dtype)
    flow = (
        hr.Ensemble([flow, hr.MAF(3, transforms=1, hidden=(8,), dtype=dtype, seed=1)]) if name == "ensemble" else flow
    )
    flow.save(tmp_path / "file")
    loaded = runtime.load(tmp_path / "file", dtype)
    cases.assert_same_bits(loaded.rows(50, 3, 5, dtype), loaded.sample(50, 3, 5, dtype=dtype)[0])
    cases.assert_close(loaded.rows(50, 3, 5, dtype).astype(dtype), flow.sample(50, seed=5), magnitude=10.0, depth=12)


NUMBERS = [
    "0",
    "-0.0",
    "1.5",
    "-12.25e3",
    "0.1",
    "1e-5",
    "2.5E+7",
    "123456789012345678901234",
    "1e308",
    "-1.7976931348623157e308",
]
NUMBERS += [
    "2.2250738585072014e-308",
    "0e5",
    "0.000",
    "9007199254740993",
    "5e-324",
    "-1.5e-310",
    "2.2250738585072011e-308",
    *map(repr, np.random.default_rng(0).normal(size=50).tolist()),
]


def test_files_are_read_without_from_chars_too(runtime):
    for text in NUMBERS:
        assert runtime.number(text, by_stream=True) == runtime.number(text, by_stream=False) == float(text)
        assert np.signbit(runtime.number(text, by_stream=True)) == text.startswith("-")
    for text in ("1e309", "-1e400", "1e-400", "-0.001e-999"):
        assert runtime.number(text, by_stream=True) is runtime.number(text, by_stream=False) is None


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if runtime_library.compiler() is None:
        pytest.skip("no C++ compiler")
    source = ROOT / "runtime/example.cpp"
    # The example is compiled without optimisation, because it scores few rows.
    return runtime_library.compiled_once(tmp_path_factory, "headrace_score", source, "-O0")


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.mark.costly
@pytest.mark.parametrize("names", [True, False])
def test_the_program_scores_a_table(program, tmp_path, names):
    flow = file_cases.EXAMPLES["realnvp"]("float64")
    x, context = file_cases.inputs_of(flow)
    flow.save(tmp_path / "density")
    table = np.hstack([x, context])
    header = ",".join("abcd") if names else ""
    np.savetxt(tmp_path / "rows.csv", table, delimiter=",", header=header, comments="", fmt="%.17g")
    done = run(program, tmp_path / "density", tmp_path / "rows.csv")
    assert done.returncode == 0, done.stderr
    got = np.array(done.stdout.split(), np.float64)
    cases.assert_close(got, flow.log_prob(x, context), depth=12)


def test_the_program_prints_errors(program, tmp_path):
    flow = file_cases.EXAMPLES["maf"]("float64")
    flow.save(tmp_path / "density")
    (tmp_path / "rows.csv").write_text("1,2,3\n1,2\n")
    done = run(program, tmp_path / "density", tmp_path / "rows.csv")
    assert done.returncode == 1
    assert "rows.csv, line 2: expected 3 numbers with commas between them" in done.stderr
    (tmp_path / "broken").write_bytes(b"no file of headrace")
    done = run(program, tmp_path / "broken", tmp_path / "rows.csv")
    assert done.returncode == 1
    assert "broken: " in done.stderr
    for missing in (tmp_path / "nothing", tmp_path):
        assert run(program, missing, tmp_path / "rows.csv").returncode == 1
    assert run(program).returncode == 2
