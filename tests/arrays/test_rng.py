"""The argument ``rng=`` beside ``seed=``, of every public function that takes a seed (SPEC 7 of Scientific Python)."""

import importlib
import inspect

import numpy as np
import pytest

import headrace as hr
from headrace._base.rng import seed_of

MODULES = (
    "headrace",
    "headrace.transforms",
    "headrace.plot",
    "headrace.rows",
    "headrace.variational",
    "headrace.diagnosis",
    "headrace.choosing",
    "headrace.sequences",
    "headrace.ascent",
)


def with_seed():
    """The public functions, methods and constructors that take a seed, by name."""
    found = {}
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing):
                members = {one: getattr(thing, one) for one in dir(thing) if not one.startswith("_")}
                found |= {f"{name}.{one}": member for one, member in members.items() if inspect.isroutine(member)}
            if callable(thing):
                found[name] = thing
    signed = {}
    for name, function in found.items():
        try:
            signed[name] = inspect.signature(function).parameters
        except ValueError:  # exception classes have no signature
            continue
    return {name: parameters for name, parameters in signed.items() if "seed" in parameters}


def test_every_function_that_takes_a_seed_takes_rng():
    functions = with_seed()
    assert len(functions) > 50
    assert {"Flow.sample", "NSF", "NSF.fit", "auto", "diagnose", "corner", "Stream.pull"} <= functions.keys()
    assert not [name for name, parameters in functions.items() if "rng" not in parameters]


def drawn(**key):
    return hr.MAF(2, transforms=1, hidden=(8,)).sample(4, **key)


def test_an_integer_has_the_bits_of_the_seed():
    assert (drawn(rng=7) == drawn(seed=7)).all()
    weights = hr.NSF(2, rng=7).parameters
    assert (weights == hr.NSF(2, seed=7).parameters).all()
    assert (hr.transforms.Planar(2, rng=7).parameters == hr.transforms.Planar(2, seed=7).parameters).all()
    rows = np.random.default_rng(0).standard_normal((600, 2))
    flows = [hr.MAF(2, transforms=1, hidden=(8,)) for _ in range(2)]
    for flow, key in zip(flows, ({"rng": 3}, {"seed": 3}), strict=True):
        flow.fit(rows, epochs=1, progress=False, **key)
    assert (flows[0].parameters == flows[1].parameters).all()
    assert hr.DualAscentFlow(rng=5).seed == 5


@pytest.mark.parametrize("make", [list, np.array, np.random.SeedSequence])
def test_a_sequence_has_the_same_bits_each_time(make):
    assert (drawn(rng=make([1, 2])) == drawn(rng=make([1, 2]))).all()
    assert (drawn(rng=make([1, 2])) == drawn(rng=[1, 2])).all()
    assert not (drawn(rng=make([1, 2])) == drawn(rng=[2, 1])).any()


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.PCG64])
def test_a_generator_draws_the_seed_and_advances(make):
    rng = make(0)
    first, second = drawn(rng=rng), drawn(rng=rng)
    assert not (first == second).any()
    assert (first == drawn(rng=make(0))).all()
    assert 0 <= seed_of(make(0), 31) < 2**31


def test_seed_and_rng_exclude_each_other():
    with pytest.raises(TypeError, match=r"rng: expected one of seed and rng in Density.sample, got both"):
        drawn(seed=1, rng=1)
    with pytest.raises(TypeError, match=r"rng: expected one of seed and rng in NSF.__init__, got both"):
        hr.NSF(2, seed=1, rng=1)
    assert drawn(rng=None).shape == (4, 2)


@pytest.mark.parametrize("value", [1.5, "seed", True, np.random.RandomState(0), -1])
def test_other_values_are_refused_by_name(value):
    with pytest.raises((TypeError, ValueError), match=r"rng: expected an integer"):
        drawn(rng=value)


@pytest.mark.parametrize("value", [[1.5], [[1, 2]], [-1]])
def test_other_sequences_are_refused_by_name(value):
    with pytest.raises((TypeError, ValueError), match=r"^rng"):
        drawn(rng=value)
