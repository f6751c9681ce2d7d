"""Every kind of step is in every list of kinds; a kind that a list lacks fails these tests.

Compilers report a kernel that is called but missing. Compilers do not find a kind that a device mistakes for another, a
missing path for small batches (kernels/steps-inl.hpp asks whether one exists), or a kind that no test judges.
"""

import re
from pathlib import Path

import pytest

import file_cases
import headrace as hr
import reference
from headrace import _core
from headrace._base import stored as _stored
from headrace._flow.transforms.transform import Transform

ROOT = Path(__file__).resolve().parents[2]

# The test file of each kind's reference, and the transforms that are made of the kind.
JUDGES = {
    "network": ("tests/reference/network.py", {"MaskedAutoregressive", "Coupling"}),
    "elementwise": ("tests/reference/maps.py", {"Elementwise", "ActNorm"}),
    "vector": ("tests/support/cases/vector_cases.py", {"Planar", "Radial"}),
    "rotation": ("tests/vector/test_rotation.py", {"Rotation"}),
    "scale": ("tests/reference/standardize.py", {"Standardize"}),
    "support": ("tests/reference/support.py", {"Support"}),
    "marginal": ("tests/reference/gaussianize.py", {"Gaussianize"}),
    "density": ("tests/reference/bases.py", set()),  # densities of bases
    "move": ("tests/reference/permutation.py", {"Permutation"}),
}
MADE_IN = {"marginal": "cpp/core/shared_maps.hpp"}  # the file that makes steps of a kind, if not lowering.cpp
ARRAYS_IN = {"rotation": "cuda/host/placing.cpp"}  # arrays that a device lays out differently
COMBINED = {"Inverse", "Linear", "OnColumns"}  # transforms that make steps of several kinds, or of any kind


def kinds_in(text):
    """The names and structs in the list of cpp/steps/steps.hpp."""
    lines = text[text.index("#define HR_STEPS(X)") :].split("\n\n")[0]
    return re.findall(r"X\((\w+), (\w+)\)", lines)


def lacking(read):
    """The missing parts of kinds, in words. ``read`` returns the text of a file of the project, or "" for a missing
    file."""
    kinds = kinds_in(read("cpp/steps/steps.hpp"))
    found = []
    for name, struct in kinds:
        own, kernels = f"cpp/steps/{name}.hpp", f"cpp/kernels/steps/{name}-inl.hpp"
        wanted = {
            own: [f"struct {struct} "],
            "cpp/steps/steps.hpp": [f'#include "{name}.hpp"'],
            kernels: [rf"\b{way}\(const {struct}<T>&" for way in ("run_step", "record_step", "backward_step")],
            "cpp/kernels/steps-inl.hpp": [f'#include "steps/{name}-inl.hpp"'],
            MADE_IN.get(name, "cpp/core/lowering.cpp"): [rf"\b{struct}<T>(\{{| \w+\{{| \w+::lowered)"],
            "cuda/kernels/steps.cuh": [f'#include "steps/{name}.cuh"'],
            f"cuda/kernels/steps/{name}.cuh": [
                rf"\b({ways})\([^{{]*\b{struct}<T>"
                for ways in ("record_step|run_in_place", "backward_step|back_in_place")
            ],
        }
        wanted.setdefault(ARRAYS_IN.get(name, own), []).append(rf"_arrays\({struct}<T>&")
        for path, patterns in wanted.items():
            found += [f"{path}: {name}: {p}" for p in patterns if not re.search(p, read(path))]
        if name not in JUDGES or not read(JUDGES[name][0]):
            found.append(f"tests: {name}: nothing judges it")
    return found + [f"cpp/steps/steps.hpp: {name}: not in the list" for name in JUDGES.keys() - dict(kinds).keys()]


def text_of(path):
    return (ROOT / path).read_text() if (ROOT / path).exists() else ""


def test_every_kind_of_step_has_all_that_a_kind_has():
    assert len(kinds_in(text_of("cpp/steps/steps.hpp"))) == len(JUDGES)
    assert lacking(text_of) == []


@pytest.mark.parametrize("kind", JUDGES)
@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("cpp/steps/steps.hpp", r"    X\({kind}, "),
        ("cpp/steps/steps.hpp", '#include "{kind}.hpp"'),
        ("cpp/kernels/steps/{kind}-inl.hpp", r"run_step\("),
        ("cpp/kernels/steps/{kind}-inl.hpp", r"record_step\("),
        ("cpp/kernels/steps/{kind}-inl.hpp", r"backward_step\("),
        ("cpp/kernels/steps-inl.hpp", "steps/{kind}-inl.hpp"),
        ("{arrays}", r"void \w+_arrays\("),
        ("cuda/kernels/steps.cuh", "steps/{kind}.cuh"),
        ("cuda/kernels/steps/{kind}.cuh", r"record_step\(|run_in_place\("),
        ("cuda/kernels/steps/{kind}.cuh", r"backward_step\(|back_in_place\("),
    ],
)
def test_a_missing_line_is_reported(kind, path, line):
    path = path.format(kind=kind, arrays=ARRAYS_IN.get(kind, f"cpp/steps/{kind}.hpp"))
    line = line.format(kind=kind)

    def read(other):
        text = text_of(other)
        return "\n".join(own for own in text.split("\n") if not re.search(line, own)) if other == path else text

    assert any(missed.startswith(f"{path}: {kind}: ") for missed in lacking(read))


def test_a_new_kind_is_reported_by_every_list():
    def read(path):
        text = text_of(path)
        return text.replace("    X(move, MoveStep)", "    X(move, MoveStep) X(twist, TwistStep)")

    missed = [one for one in lacking(read) if ": twist: " in one]
    # Three files lack several parts of the new kind: the struct's file two, the CPU's kernels three, a device's two.
    assert len(missed) == len({one.split(": twist: ")[0] for one in missed}) + 1 + 2 + 1


def test_every_transform_has_a_tested_kind_and_an_example():
    transforms = {name for name, kind in _stored.KINDS.items() if issubclass(kind, Transform)}
    assert transforms == set().union(COMBINED, *(names for _, names in JUDGES.values()))
    chained = {type(t).__name__ for make in file_cases.EXAMPLES.values() for t in parts_of(make("float32"))}
    assert transforms <= chained


def parts_of(module):
    """A transform with all transforms inside it, or the transforms of a flow or an ensemble."""
    if isinstance(module, hr.Ensemble):
        return [part for flow in module for part in parts_of(flow)]
    if isinstance(module, hr.Flow):
        return [part for t in module.transforms for part in parts_of(t)]
    return [
        module,
        *(parts_of(module.transform) if isinstance(module, (hr.transforms.Inverse, hr.transforms.OnColumns)) else []),
    ]


def test_every_activation_is_in_every_list():
    """Activations are the nonlinearities of a conditioner's units."""
    assert sorted(_core.cpu.activations()) == sorted(reference.ACTIVATIONS)
    page = text_of("docs/files.md")
    assert [name for name in reference.ACTIVATIONS if f"`{name}`" not in page and f'"{name}"' not in page] == []
