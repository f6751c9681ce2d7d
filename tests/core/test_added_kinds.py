"""A conditioner and a step that are only in the emulation's lists support all operations.

An addition that needs more than its recipe (docs/notes/recipes.md) fails here. The conditioner and the step are in
tests/cuda_emulation/added and tests/support/added_kinds.py.
"""

import re
from pathlib import Path

import numpy as np
import pytest

import added_kinds
import cases
import gradients
import headrace as hr
import reference
from added_kinds import Bend, BendReference, Echo, Echoes, EchoReference
from pairs import pairwise

ROOT = Path(__file__).resolve().parents[2]
UNITS = 4


@pytest.fixture(autouse=True)
def core(request):
    if "emu" not in request.fixturenames:
        yield None
        return
    with added_kinds.added(request.getfixturevalue("emu")) as found:
        yield found


def weights_of(echoes, dtype="float64"):
    generator = cases.rng("echoes", echoes.units)
    return {name: 0.6 * generator.standard_normal(shape).astype(dtype) for name, shape in echoes.core.tensors}


def subject_of(echoes, features, dtype="float64"):
    named = weights_of(echoes, dtype)
    transform = Echo(features, echoes, echoes.pack_named(named))
    judge = lambda arrays: EchoReference(arrays, echoes.reads, echoes.slope)  # noqa: E731
    return gradients.Subject(transform, list(named.values()), judge)


# --- a conditioner over time ------------------------------------------------------------------------------------------


@pairwise(reads=cases.READS, dtype=cases.DTYPES, rows=[1, 7, 33])
def test_rows_of_three_and_of_three_hundred_steps_by_the_same_network(reads, dtype, rows, emu):
    """Both directions are right with 300 steps: a sequential run keeps a ring of the last ones, a parallel run all."""
    echoes = Echoes(UNITS, reads)
    for features in (3, 1, 300):
        subject = subject_of(echoes, features, dtype)
        assert subject.library.parameters.size == echoes.size
        given = cases.rows(rows, features, dtype)
        cases.check_directions(subject.library, subject.judge(subject.arrays), given, None, dtype, depth=features + 16)


def test_a_step_depends_on_no_later_one(emu):
    transform = subject_of(Echoes(UNITS), 9).library
    x = cases.rows(5, 9, "float64")
    changed = x.copy()
    changed[:, 6:] += 1.0
    for run in (transform.forward, transform.inverse):
        before, after = run(x)[0], run(changed)[0]
        cases.assert_same_bits(after[:, :6], before[:, :6])
        assert (after[:, 6:] != before[:, 6:]).all()


@pairwise(reads=cases.READS, verb=gradients.TRANSFORM_VERBS, features=[1, 2, 7])
def test_gradients_of_inputs_and_of_weights_that_all_steps_share(reads, verb, features, emu):
    subject = subject_of(Echoes(UNITS, reads), features)
    gradients.check(subject, verb, cases.rows(6, features, "float64"))


@pytest.mark.parametrize("reads", cases.READS)
def test_gradients_of_a_long_row(reads, emu):
    subject = subject_of(Echoes(UNITS, reads), 60)
    gradients.check(subject, gradients.TRANSFORM_VERBS[0], cases.rows(2, 60, "float64"))


# --- a step -----------------------------------------------------------------------------------------------------------


@pairwise(dtype=cases.DTYPES, features=[1, 3, 40], rows=[1, 33])
def test_a_step_in_both_directions(dtype, features, rows, emu):
    strength = np.linspace(0.5, 1.5, features)
    given = cases.rows(rows, features, dtype)
    for transform, judge in ((Bend(strength), BendReference(strength)),):
        cases.check_directions(transform, judge, given, None, dtype, depth=32)
        back, log_det = hr.transforms.Inverse(transform).forward(given)
        want, want_log_det = judge.inverse(given)
        cases.assert_close(back, want, magnitude=8.0)
        cases.assert_close(log_det, want_log_det, magnitude=8.0 * features)


@pytest.mark.parametrize("verb", gradients.TRANSFORM_VERBS)
def test_gradients_of_a_step(verb, emu):
    strength = [0.5, 1.0, 1.5]
    subject = gradients.Subject(Bend(strength), [], lambda _: BendReference(strength))
    given = cases.rows(6, 3, "float64")
    gradients_by = gradients.cotangents(verb, len(given), 3)
    got = gradients.call(subject.library, verb, given, None)["inputs"]
    judge = subject.judge([])
    want = reference.row_gradient(lambda x: gradients.VERBS[verb](judge, x, None), given, gradients_by, gradients.STEP)
    gradients.assert_rows_near(got, want)


# --- the added kinds among other transforms, and in files -------------------------------------------------------------


def chain(dtype):
    masked = cases.randomise(hr.transforms.MaskedAutoregressive(4, (6,), dtype=dtype), 0.3, "added")
    echoes = [subject_of(Echoes(UNITS, reads), 4, dtype).library for reads in cases.READS]
    return hr.Flow(
        [echoes[0], hr.transforms.Permutation([2, 0, 3, 1]), Bend([0.5, 0.7, 0.9, 1.1]), masked, echoes[1]], dtype=dtype
    )


def test_a_flow_of_the_added_parts_is_inverted_and_has_gradients(emu):
    flow = chain("float64")
    z = cases.rows(9, 4, "float64")
    x, log_det = flow.to_data(z)
    back, log_det_back = flow.to_latent(x)
    np.testing.assert_allclose(back, z, rtol=0, atol=1e-11)
    np.testing.assert_allclose(log_det_back, -log_det, rtol=0, atol=1e-11)
    loss, gradient = flow.nll_and_grad(x)
    start, direction = flow.parameters, cases.rng("direction").standard_normal(flow.parameters.size)
    losses = []
    for step in (1e-5, -1e-5):
        flow.parameters = start + step * direction
        losses.append(flow.nll_and_grad(x)[0])
    flow.parameters = start
    moved = flow.nll_and_grad(x)[0]
    assert moved == loss
    weights = gradient * direction
    assert abs((losses[0] - losses[1]) / 2e-5 - weights.sum()) < 1e-6 * np.linalg.norm(weights) + 1e-7


def test_files(emu, tmp_path):
    flow = chain("float32")
    flow.save(tmp_path / "added.safetensors")
    loaded = hr.load(tmp_path / "added.safetensors")
    assert repr(loaded) == repr(flow)
    cases.assert_same_bits(loaded.parameters, flow.parameters)
    x = cases.rows(7, 4, "float32")
    cases.assert_same_bits(loaded.log_prob(x), flow.log_prob(x))
    assert [*flow.transforms[0].named_parameters()] == ["first.weight", "first.bias", "second.weight", "second.bias"]


def test_the_library_itself_lacks_the_added_parts():
    assert not hasattr(hr._core.cpu, "EchoTransform")
    assert not hasattr(hr._core.cpu, "BendStep")


# --- the recipes ------------------------------------------------------------------------------------------------------

HOOKS = {  # hooks of the core, and whether conditioners or steps are added by them
    "HEADRACE_MORE_CONDITIONERS": {"conditioner"},
    "HEADRACE_MORE_CONDITIONER_KERNELS": {"conditioner"},
    "HEADRACE_MORE_CPU_KERNELS": {"conditioner"},
    "HEADRACE_MORE_STEPS": {"step"},
    "HEADRACE_MORE_STEP_KERNELS": {"step"},
    "HEADRACE_MORE_SPECS": {"step"},
    "HEADRACE_MORE_PLACING": {"conditioner"},
    "HEADRACE_MORE_BINDINGS": {"conditioner"},
}
HEADINGS = {"conditioner": "### Another kind of conditioner\n", "step": "### A step of a chain\n"}
MOST = {"conditioner": 8, "step": 7}  # the most existing files that a recipe may name


def hooks():
    """Return the hooks of the core, each with the files that have it."""
    found = {}
    for path in sorted((*(ROOT / "cpp").rglob("*"), *(ROOT / "cuda").rglob("*"))):
        if path.is_file():
            for name in re.findall(r"#ifdef (HEADRACE_MORE_\w+)", path.read_text()):
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def recipe(kind):
    """Return the files in the recipe of a conditioner or a step: existing files, and new ones."""
    text = (ROOT / "docs" / "notes" / "recipes.md").read_text(encoding="utf-8")
    listed = text.split(HEADINGS[kind])[1].split("\n#")[0]
    named = re.findall(r"`([\w./<>{},-]+\.\w+|[\w./<>{},-]+\})`", listed)
    expanded = set()
    for name in named:
        match = re.fullmatch(r"(.*)\{([\w.,<>-]+)\}(.*)", name)
        expanded |= {f"{match[1]}{one}{match[3]}" for one in match[2].split(",")} if match else {name}
    return {n for n in expanded if "<" not in n}, {n for n in expanded if "<" in n}


@pytest.mark.parametrize("kind", HEADINGS)
def test_the_recipe_names_every_file_that_a_kind_needs(kind):
    found = hooks()
    assert set(found) - {"HEADRACE_MORE_MAPS"} == set(HOOKS)
    present, new = recipe(kind)
    needed = set().union(*(found[name] for name, kinds in HOOKS.items() if kind in kinds))
    assert needed <= present, f"docs/notes/recipes.md does not name {sorted(needed - present)}"
    for name in sorted(present):
        assert (ROOT / name).exists(), name
    assert len(present) <= MOST[kind], sorted(present)
    assert new


def test_python_of_added_kinds_changes_only_the_list_of_kinds_in_files():
    text = (ROOT / "tests" / "support" / "added_kinds.py").read_text()
    assert set(re.findall(r"patch\.set\w+\((\S+?),", text)) == {"_stored.KINDS"}
