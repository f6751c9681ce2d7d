"""The text of a flow contains its sizes, and each run of equal transforms once."""

import pytest

import headrace as hr
from headrace._flow.flow import _repeated


def test_a_flow_prints_its_sizes_and_each_kind_of_transform_once():
    text = repr(hr.NSF(3, context=2, transforms=4, dtype="float64"))
    assert text.startswith("<NSF of 3 features, 2 of context, float64\n  base StandardNormal(3)\n  4 x MaskedAuto")
    assert text.count("MaskedAutoregressive") == 1
    assert "hidden=(64, 64)" in text
    both = repr(hr.RealNVP(3, transforms=6))
    assert "\n  3 x (\n    Coupling(3, passive=[0, 2]" in both
    assert both.count("Coupling") == 2


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", ""),
        ("a", "a"),
        ("aaa", "3 x a"),
        ("abab", "2 x (|  a|  b|)"),
        ("aab", "2 x a|b"),
        ("abaab", "a|b|2 x a|b"),
        ("aabb", "2 x a|2 x b"),
        ("ababc", "2 x (|  a|  b|)|c"),
    ],
)
def test_runs(lines, expected):
    assert "|".join(_repeated(list(lines))) == expected
