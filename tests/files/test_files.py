"""Files: saved objects come back, bit for bit, and read without headrace; files of older versions still load."""

import inspect
import json
import pathlib
import pickle
import re
import warnings

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import cases
import file_cases
import headrace as hr
import reference
import safetensors_reader
from headrace import files
from headrace._base import stored as _stored
from headrace.sequences.sequential import Sequential

EXAMPLES = file_cases.EXAMPLES
every_example = pytest.mark.parametrize("name", EXAMPLES)
OLD = sorted(pathlib.Path(__file__).parent.glob("*/*.safetensors"))
# Each version has a file of each of its kinds; a version in development needs no files beyond the previous version's.
IN_DEVELOPMENT = hr.__version__.endswith(".dev0")
ASK_FOR_FILES = "tests/files lacks some of this version: run tests/files/make.py once for it"


def header_of(path):
    with safetensors.safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["headrace"])


def saved_and_loaded(module, folder):
    path = folder / "saved.safetensors"
    module.save(path)
    return hr.load(path)


def assert_same(got, want):
    """Check that two objects have one class, and equal conventions, parameters and results, bit for bit."""
    assert type(got) is type(want)
    assert got.dtype == want.dtype
    assert repr(got) == repr(want)
    for name, array in want.named_parameters().items():
        cases.assert_same_bits(got.named_parameters()[name], array)
    if not isinstance(want, hr.Ensemble):
        cases.assert_same_bits(got.parameters, want.parameters)
    x, context = file_cases.inputs_of(want)
    for rows in (x, x[:2]):  # fewer than 3 rows take another path
        given = None if context is None else context[: len(rows)]
        results = file_cases.results_of(got, rows, given), file_cases.results_of(want, rows, given)
        for key, array in results[1].items():
            cases.assert_same_bits(results[0][key], array)


# ---- back and forth -------------------------------------------------------------------------------------------------


@every_example
def test_a_saved_module_is_loaded_bit_for_bit(name, dtype, tmp_path):
    module = EXAMPLES[name](dtype)
    loaded = saved_and_loaded(module, tmp_path)
    assert_same(loaded, module)
    assert files.to_bytes(loaded) == files.to_bytes(module)


@pytest.mark.parametrize("cls", [hr.Flow, hr.MAF, hr.Ensemble, hr.WaveNet, hr.transforms.Standardize])
def test_the_load_of_a_class_takes_its_own_files_alone(cls, tmp_path):
    made = {
        hr.MAF: hr.MAF(2, transforms=1, hidden=(4,)),
        hr.Ensemble: hr.Ensemble([hr.MAF(2, transforms=1, hidden=(4,))]),
        hr.WaveNet: hr.WaveNet(layers=2, channels=4),
        hr.transforms.Standardize: hr.transforms.Standardize([0.0], [2.0]),
    }
    for kind, module in made.items():
        path = tmp_path / f"{kind.__name__}.safetensors"
        module.save(path)
        if issubclass(kind, cls):
            assert type(cls.load(path)) is kind
        else:
            expected = rf"{kind.__name__}\.safetensors: expected {cls.__name__}, got {kind.__name__}; use "
            with pytest.raises(hr.FileFormatError, match=expected):
                cls.load(path)


@every_example
def test_saving_twice_gives_the_same_bytes(name):
    assert files.to_bytes(EXAMPLES[name]("float32")) == files.to_bytes(EXAMPLES[name]("float32"))


@pytest.mark.parametrize("name", cases.NETWORKS)
@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
@pytest.mark.parametrize("outputs", [("shift", "scale"), ("scale", "shift")])
def test_foreign_networks_keep_masks_zeros_dead_units_and_the_order_of_their_rows(name, layout, outputs, tmp_path):
    dense = cases.made(**cases.NETWORKS[name], layout=layout, outputs=outputs).astype("float32")
    module = hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays, outputs=outputs, layout=layout, context=dense.context, activation="tanh"
    )
    loaded = saved_and_loaded(module, tmp_path)
    assert_same(loaded, module)
    for got, want in zip(loaded.to_dense(), module.to_dense(), strict=True):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
    assert all((a == b).all() for a, b in zip(loaded.to_dense()[2], dense.masks, strict=True))


@pytest.mark.parametrize("map", reference.MAPS)
@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
def test_every_map_keeps_its_rows(map, layout, tmp_path):
    outputs = reference.MAPS[map].parameters[::-1]
    dense = cases.made(4, (8,), outputs=outputs, layout=layout, bins=5, map=map, gain=0.7).astype("float64")
    module = hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays, map=map, bins=5, outputs=outputs, layout=layout
    )
    assert_same(saved_and_loaded(module, tmp_path), module)


@pytest.mark.parametrize("hidden", [(5, 7, 4), (100, 3), (3, 100), (1,), ()])
@pytest.mark.parametrize("context", [0, 2])
def test_a_constructed_network_keeps_its_structure(hidden, context, tmp_path):
    """The structure is kept even where masks alone would give another structure: for degrees that no unit of the layer
    below has, and for units that are not read.
    """
    module = hr.transforms.MaskedAutoregressive(
        12, hidden, context=context, order=[3, *range(3), *range(4, 12)], seed=3
    )
    loaded = saved_and_loaded(cases.randomise(module), tmp_path)
    assert_same(loaded, module)
    assert loaded.parameters.size == module.parameters.size


def test_header_numbers_come_back_exactly(tmp_path):
    generator = cases.rng("exact")
    mean = generator.standard_normal(50) * 10.0 ** generator.integers(-300, 300, 50)
    std = np.exp(generator.uniform(-700, 700, 50))
    std[:2], mean[:3] = [np.finfo(float).tiny, np.finfo(float).max], [-0.0, 5e-324, -np.finfo(float).max]
    loaded = saved_and_loaded(hr.transforms.Standardize(mean, std), tmp_path)
    cases.assert_same_bits(loaded.mean, mean)
    cases.assert_same_bits(loaded.std, std)
    scale = (mean[:2], std[2:4])
    flow = hr.Flow([hr.transforms.Coupling(2, [0], (4,), context=2, slope=1 / 3)], standardize_context=scale)
    loaded = saved_and_loaded(flow, tmp_path)
    for got, want in zip(loaded.standardize_context, scale, strict=True):
        cases.assert_same_bits(got, want)
    assert loaded.transforms[0]._settings.slope == 1 / 3


def test_results_of_a_fit_are_in_the_file_of_the_flow(tmp_path):
    flow = file_cases.fitted(hr.RealNVP(3, 2, transforms=2, hidden=(8,)), "goes along")
    loaded = saved_and_loaded(flow, tmp_path)
    assert not loaded.transforms[-1].is_identity
    x, context = file_cases.inputs_of(flow)
    before = loaded.transforms[-1].mean.copy()
    assert loaded.fit(10.0 + x, context, epochs=1, progress=False, seed=0).best_epoch is not None
    np.testing.assert_array_equal(loaded.transforms[-1].mean, before)  # a second fit keeps the mean


def test_a_loaded_flow_can_be_changed_sliced_and_converted(tmp_path):
    flow = EXAMPLES["maf"]("float32")
    loaded = saved_and_loaded(flow, tmp_path)
    assert type(loaded[:1]) is hr.Flow
    assert loaded.astype("float64").dtype == np.float64
    loaded.set_parameter("transforms.0.layers.0.bias", np.ones(7))
    assert not (flow.named_parameters()["transforms.0.layers.0.bias"] == 1).any()


def test_a_flow_in_another_dtype_than_its_transforms_is_saved_in_its_own(tmp_path):
    flow = hr.Flow([hr.transforms.Coupling(3, [0], (4,), dtype="float32")], dtype="float64")
    flow.parameters = cases.rng("wide").standard_normal(flow.parameters.size)
    assert_same(saved_and_loaded(flow, tmp_path), flow)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_load_only_if_that_is_allowed(value, tmp_path):
    flow = hr.Flow([hr.transforms.Coupling(3, [0], (4,)), hr.transforms.Coupling(3, [1], (4,))], hr.Normal(3))
    for name in ("base.log_scale", "transforms.1.layers.0.bias"):
        flow.set_parameter(name, np.full(flow.named_parameters()[name].shape, value))
    flow.save(tmp_path / "odd")
    message = r"odd: base\.log_scale and 1 more: expected finite numbers; allow_non_finite=True"
    with pytest.raises(hr.FileFormatError, match=message):
        hr.load(tmp_path / "odd")
    with pytest.raises(hr.FileFormatError, match=r"data: .*finite"):
        hr.from_bytes(hr.to_bytes(flow))
    for loaded in (
        hr.load(tmp_path / "odd", allow_non_finite=True),
        hr.from_bytes(hr.to_bytes(flow), allow_non_finite=True),
        pickle.loads(pickle.dumps(flow)),
    ):
        cases.assert_same_bits(loaded.parameters, flow.parameters)


def test_a_trainable_base_of_any_scale_comes_back(tmp_path):
    flow = hr.Flow([], hr.Normal(3), dtype="float64")
    flow.set_parameter("base.log_scale", np.array([-1e4, 1e-300, 1 / 3]))  # exp(-1e4) underflows to 0
    loaded = saved_and_loaded(flow, tmp_path)
    cases.assert_same_bits(loaded.parameters, flow.parameters)
    cases.assert_same_bits(loaded[:0].parameters, flow.parameters)


def test_parameters_are_found_under_their_names(tmp_path):
    flow = EXAMPLES["everything"]("float32")
    flow.save(tmp_path / "flow")
    tensors = safetensors.numpy.load_file(tmp_path / "flow")
    named = flow.named_parameters()
    assert set(tensors) == set(named) | {name.replace("weight", "mask") for name in named if "weight" in name}
    for name, array in named.items():
        cases.assert_same_bits(tensors[name], array)
    for name in tensors:
        if name.endswith("mask"):
            assert tensors[name].dtype == bool
            assert not tensors[name.replace("mask", "weight")][~tensors[name]].any()


# ---- every kind -----------------------------------------------------------------------------------------------------


def kinds_in(header):
    """All kinds that a header names, at any depth."""
    if isinstance(header, list):
        return set().union(*map(kinds_in, header)) if header else set()
    if not isinstance(header, dict):
        return set()
    return {header[key] for key in ("kind",) if key in header} | kinds_in(list(header.values()))


def public_kinds():
    classes = [thing for thing in (vars(hr) | vars(hr.transforms) | vars(hr.ascent)).values() if inspect.isclass(thing)]
    families = (hr.transforms.Transform, hr.Base, hr.Flow, hr.Ensemble)
    return {c.__name__ for c in classes if issubclass(c, families)} - {"Transform", "Base"}


def test_every_public_transform_base_and_flow_can_be_saved():
    of_rows = {name for name, kind in _stored.KINDS.items() if not issubclass(kind, Sequential)}
    of_rows -= {"MixedDensity"}  # tests/tables saves this class, because no other reader has it
    assert of_rows == public_kinds(), "a class lacks @storable, _header and _from_file"


def newest_kept():
    return max({path.parent for path in OLD}, key=lambda p: [int(n) for n in p.name.split(".")])


def test_every_kind_has_an_example_and_a_file_of_the_newest_version(tmp_path):
    seen = set()
    for example in EXAMPLES.values():
        example("float32").save(tmp_path / "one")
        seen |= kinds_in(header_of(tmp_path / "one"))
    assert seen == public_kinds(), "file_cases.EXAMPLES lacks a kind"
    kept = set().union(*(kinds_in(header_of(path)) for path in newest_kept().glob("*.safetensors")))
    assert kept <= public_kinds()
    assert IN_DEVELOPMENT or (newest_kept().name == hr.__version__ and kept == public_kinds()), ASK_FOR_FILES


def test_a_class_of_the_caller_is_refused(tmp_path):
    class Own(hr.MAF):
        pass

    class OwnTransform(hr.transforms.Permutation):
        pass

    for module, name in ((Own(2), "Own"), (hr.Flow([OwnTransform([0, 1])]), "OwnTransform")):
        with pytest.raises(
            TypeError, match=rf"^{name}: expected one of the classes that files know \(.*Coupling, .*MAF"
        ):
            module.save(tmp_path / "own")
    assert not list(tmp_path.iterdir())


# ---- without headrace, and from older versions -----------------------------------------------------------------------


def assert_results_close(got, want, dtype):
    """Compare results up to the rounding of nine layers in three networks, relative to magnitudes of summed terms."""
    magnitude = max(np.square(want["z"]).max(), 1.0)
    for key, array in got.items():
        cases.assert_close(array.astype(dtype), want[key], magnitude=magnitude, depth=12)


def judged(path, module, x, context):
    """The results of a file for these rows by the reference, which reads it by docs/files.md alone."""
    judge = safetensors_reader.read(path)
    if isinstance(module, hr.Ensemble):
        z = judge.members[0].to_latent(x, context)[0]
        return {"log_prob": judge.log_prob(x, context), "spread": judge.spread(x, context), "z": z}
    if isinstance(module, hr.Flow):
        z, log_det = judge.to_latent(x, context)
        return {"log_prob": judge.log_prob(x, context), "z": z, "log_det": log_det}
    z, log_det = judge.inverse(x, context)
    forward, forward_log_det = judge.forward(x, context)
    return {"z": z, "log_det": log_det, "forward": forward, "forward_log_det": forward_log_det}


@every_example
def test_a_file_reads_without_headrace(name, dtype, tmp_path):
    module = EXAMPLES[name](dtype)
    module.save(tmp_path / "file")
    x, context = file_cases.inputs_of(module)
    results = file_cases.results_of(module, x, context)
    assert_results_close(results, judged(tmp_path / "file", module, x, context), dtype)


def test_the_documentation_shows_a_true_header_and_computes_the_density():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "files.md").read_text()
    header = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])
    fresh = hr.MAF(2, 1, transforms=1, hidden=(3,))
    chain = [*fresh.transforms[:-1], hr.transforms.Standardize([10.0, -3.0], [2.0, 0.5])]
    flow = hr.Flow(chain, standardize_context=(np.array([0.25]), np.array([1.5])))
    cases.randomise(flow, 0.4, "documentation")
    made = files.to_bytes(flow)
    want = json.loads(json.loads(made[8 : 8 + int.from_bytes(made[:8], "little")])["__metadata__"]["headrace"])
    assert header == {**want, "kind": "MAF", "version": "0.4.0"}
    tensors = safetensors.numpy.load(made)
    table = dict(re.findall(r"`(transforms\S+)` \| (\w+ \([\d, ]+\))", page))
    names = {"float32": "F32", "bool": "BOOL"}
    assert table == {name: f"{names[t.dtype.name]} {t.shape}" for name, t in tensors.items()}
    masks = [json.loads(text) for text in re.findall(r"BOOL .*`(\[\[.*\]\])`", page)]
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(tensors[f"transforms.0.layers.{i}.mask"], np.array(mask, bool))
    x, context = file_cases.inputs_of(flow)
    y = (x - [10.0, -3.0]) / [2.0, 0.5]
    layers = [[tensors[f"transforms.0.layers.{i}.{what}"] for i in range(2)] for what in ("weight", "bias", "mask")]
    out = reference.Network(*layers, "tanh")(np.hstack([y, (context - 0.25) / 1.5])).reshape(-1, 2, 2)
    shift, log_s = out[..., 0], out[..., 1] / (1 + np.abs(out[..., 1]) / np.log(1000))
    z = (y - shift) / np.exp(log_s)
    log_prob = (-(z**2) / 2 - np.log(2 * np.pi) / 2 - log_s).sum(axis=1) - np.log(2 * 0.5)
    assert_results_close({"log_prob": flow.log_prob(x, context)}, {"log_prob": log_prob, "z": z}, "float32")


@pytest.mark.parametrize("path", OLD, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_files_of_every_version_have_their_recorded_results(path):
    """Results agree up to rounding, because other instruction sets and versions may round differently."""
    module = hr.load(path)
    expected = json.loads(path.with_suffix(".json").read_text())
    dtype = np.dtype(path.stem.split("-")[-1])
    assert header_of(path)["version"] == path.parent.name
    x = np.array(expected.pop("x")).astype(dtype)
    context = expected.pop("context")
    context = None if context is None else np.array(context).astype(dtype)
    got = file_cases.results_of(module, x, context)
    assert set(got) == set(expected)
    assert_results_close(got, expected, dtype)
    assert_results_close(got, judged(path, module, x, context), dtype)


def test_kept_files_are_small_and_complete():
    kept = {path.stem for path in newest_kept().glob("*.safetensors")}
    names = {stem.rsplit("-", 1)[0] for stem in kept} if IN_DEVELOPMENT else set(EXAMPLES)
    assert kept == {f"{name}-{dtype}" for name in names for dtype in ("float32", "float64")}, ASK_FOR_FILES
    assert names <= EXAMPLES.keys()
    for path in OLD:
        assert path.stat().st_size < 32_000
        assert path.with_suffix(".json").stat().st_size < 32_000


def test_objects_beyond_the_limits_of_files_are_refused_by_save(tmp_path):
    huge = hr.transforms.Standardize(np.zeros(_stored.MOST_FEATURES + 1), 1.0)
    with pytest.raises(ValueError, match=r"Standardize: expected at most 131072 features in a file, got 131073"):
        huge.save(tmp_path / "huge")
    nested = hr.transforms.Permutation([1, 0])
    for _ in range(70):
        nested = hr.transforms.Inverse(nested)
    with pytest.raises(ValueError, match=r"Inverse: expected transforms nested less deeply"):
        nested.save(tmp_path / "deep")
    wide = hr.transforms.Standardize(np.full(20_000, 1 / 3), 1 / 3)
    with pytest.raises(ValueError, match=r"Flow: expected a header of at most 16777216 bytes"):
        hr.Flow([wide] * 25).save(tmp_path / "long")
    assert not list(tmp_path.iterdir())


def test_the_largest_number_of_features_is_saved_and_loaded(tmp_path):
    order = np.roll(np.arange(_stored.MOST_FEATURES), 7).tolist()
    assert saved_and_loaded(hr.transforms.Permutation(order), tmp_path).order == tuple(order)


def test_bytes_have_the_contents_of_files():
    module = EXAMPLES["nsf"]("float32")
    assert_same(files.from_bytes(files.to_bytes(module)), module)
    with pytest.raises(hr.FileFormatError, match=r"^data: truncated"):
        files.from_bytes(files.to_bytes(module)[:-1])


def test_loading_gives_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved_and_loaded(EXAMPLES["everything"]("float32"), tmp_path)
