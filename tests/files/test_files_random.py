"""Files that are changed at random load or are refused, and loaded objects can be run."""

import copy
import itertools

import numpy as np
import pytest

import cases
import headrace as hr
import reference
from headrace import files
from headrace._core import cpu
from hostile_files import (
    EXAMPLES,
    drop,
    network_file,
    pack,
    set_at,
    unpack,
    unsealed,
)

SMALL = ("maf-context", "everything", "rotation-in-blocks", "coupling-alone", "normal", "nsf-coupling", "ensemble")


def try_to_load(data):
    """Load bytes, run and save the object, and return True; return False for bytes that are refused."""
    try:
        module = files.from_bytes(data, allow_non_finite=True)
    except hr.FileFormatError:
        return False
    x = np.ones((9, module.features))
    context = np.ones((9, module.context)) if module.context else None
    if isinstance(module, (hr.Flow, hr.Ensemble)):
        module.log_prob(x, context)
        module.sample(9, context, seed=0)
    else:
        module.forward(x, context)
        module.inverse(x[:1], None if context is None else context[:1])
    files.to_bytes(module)
    return True


@pytest.mark.parametrize("name", SMALL)
def test_flipped_bytes_load_or_are_refused(name):
    data = unsealed(EXAMPLES[name]("float32"))
    generator = cases.rng("flips", name)
    loaded = 0
    for _ in range(600):
        changed = bytearray(data)
        for _ in range(generator.integers(1, 4)):
            changed[generator.integers(len(changed))] = generator.integers(256)
        loaded += try_to_load(bytes(changed))
    assert 0 < loaded < 600


@pytest.mark.parametrize("name", SMALL)
def test_cut_repeated_and_exchanged_parts_load_or_are_refused(name):
    data = unsealed(EXAMPLES[name]("float64"))
    generator = cases.rng("parts", name)
    for _ in range(300):
        a, b, c = sorted(generator.integers(0, len(data) + 1, 3))
        for changed in (
            data[:a],
            data[:a] + data[b:],
            data[:b] + data[a:],
            data[:a] + data[b:c] + data[a:b] + data[c:],
        ):
            if changed != data:
                try_to_load(changed)


NASTY = (
    None, True, False, -1, 0, 1, 2, 3, 64, 65, 2**31 - 1, 2**31, 2**32, 2**63, 10**12, 10**19, 0.0, -0.0, 1e-320, 0.5,
    1.0, 5e300, "", "x", "affine", "rq_spline", "additive", "MAF", "Normal", "Inverse", "Standardize", "float64",
    "latent", [], [0], [1, 0], [[]], [1e308] * 3, ["shift"], {},
    {"kind": "Permutation", "features": 3, "order": [2, 0, 1]},
)  # fmt: skip


how_many = pytest.mark.parametrize("most", [400, pytest.param(1500, marks=pytest.mark.nightly)])


def some(items, most, *key):
    """A random choice of at most `most` items; a choice of more items begins with the choice of fewer."""
    items = list(items)
    return [items[i] for i in cases.rng(*key).permutation(len(items))[:most]]


def places(value, path=()):
    """Paths to all values inside a JSON value, at any depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


@pytest.mark.long
@how_many
@pytest.mark.parametrize("name", SMALL)
def test_headers_with_anything_anywhere_load_or_are_refused(name, most):
    """Values of the header are replaced by hostile ones, or left out."""
    entries, header, tensors = unpack(files.to_bytes(EXAMPLES[name]("float32")))
    loaded = 0
    for path, value in some(itertools.product(places(header), (*NASTY, drop)), most, "headers", name):
        changed = copy.deepcopy(header)
        (drop(*path) if value is drop else set_at(*path, to=value))(changed)
        loaded += try_to_load(pack(entries, changed, tensors))
    assert loaded > 0


@how_many
@pytest.mark.parametrize("name", SMALL)
def test_entries_with_anything_anywhere_load_or_are_refused(name, most):
    entries, header, tensors = unpack(files.to_bytes(EXAMPLES[name]("float32")))
    del entries["__metadata__"]
    values = (*NASTY, "F32", "BOOL", [0, 4], [2**62, 4])
    for path, value in some(itertools.product(places(entries), values), most, "entries", name):
        changed = copy.deepcopy(entries)
        set_at(*path, to=value)(changed)
        try_to_load(pack(changed, header, tensors))


@pytest.mark.parametrize("seed", range(60))
def test_any_staircase_loads_and_computes_by_its_masks(seed):
    """Random levels and degrees determine masks, and results are computed with these masks."""
    generator = cases.rng("staircase", seed)
    features, context = int(generator.integers(1, 6)), int(generator.integers(0, 3))
    hidden = generator.integers(1, 12, generator.integers(0, 4)).tolist()
    levels = generator.integers(1, features + 1, features).tolist()
    degrees = [generator.integers(0, features + 1, n).tolist() for n in hidden]
    example = hr.transforms.MaskedAutoregressive(features, hidden, context=context, dtype="float64")
    options = cpu.MaskedOptions(**example._settings.options(range(features), range(features)))
    masks = cpu.MaskedTransform(options, levels, degrees).masks()
    dense = cases.fill(masks, generator)
    data = network_file(
        features,
        zip(dense.weights, dense.biases, masks, strict=True),
        levels,
        degrees,
        context=context,
        dtype="float64",
    )
    module = files.from_bytes(data)
    judge = reference.MaskedAutoregressive(reference.Network(dense.weights, dense.biases, masks))
    x = generator.standard_normal((20, features))
    cases.check_directions(module, judge, x, generator.standard_normal((20, context)) if context else None, "float64")


@pytest.mark.parametrize("seed", range(60))
def test_random_masks_load_exactly_if_no_coordinate_depends_on_itself(seed):
    generator = cases.rng("masks", seed)
    features = int(generator.integers(1, 5))
    widths = [features, *generator.integers(0, 6, generator.integers(0, 3)).tolist(), 2 * features]
    masks = [generator.random((out, into)) < 0.25 for into, out in itertools.pairwise(widths)]
    reach = reference.reads(masks).reshape(features, 2, features).any(axis=1)
    closed = np.linalg.matrix_power(np.eye(features, dtype=int) + reach, features) > 0
    acyclic = not (reach.diagonal().any() or (closed & closed.T & ~np.eye(features, dtype=bool)).any())
    layers = [(np.ones(m.shape, "f"), np.ones(len(m), "f"), m) for m in masks]
    assert try_to_load(network_file(features, layers)) == acyclic
