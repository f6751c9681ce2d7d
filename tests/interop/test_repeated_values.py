"""Columns of floats whose values repeat: samples lie on the grid of these values, or on the frequent values."""

import json

import numpy as np
import pytest

from headrace._tables import repeats
from headrace._tables.table import SPREAD, Column, Table, about_repeats, kept_in, note

RNG = np.random.default_rng(5)
NORMAL = RNG.standard_normal(600)
GRIDS = {
    "tenths": (np.round(NORMAL, 1), 0.1),
    "tenths in float32": (np.round(NORMAL, 1).astype("f4"), 0.1),
    "fives": (5.0 * np.round(10.0 * NORMAL) + 1002.0, 5.0),
    "sevenths": (np.round(7.0 * NORMAL) / 7.0, 1 / 7),
    "hundredths far from zero": (np.round(NORMAL, 2) + 4321.0, 0.01),
    "a step without decimals": (0.3 * np.round(9.0 * NORMAL) + 0.05, 0.3),
}


def smallest_gap(x):
    gaps = np.diff(np.unique(x.astype("f8")))
    return gaps[gaps > 1e-9].min()


def noisy(x, width):
    """Values with noise that stays within the values' cells."""
    return (x + 0.98 * width * (RNG.random(len(x)) - 0.5)).astype(x.dtype)


@pytest.mark.parametrize("name", GRIDS)
def test_values_come_back_to_their_grid(name):
    x, step = GRIDS[name]
    width = smallest_gap(x)
    own = repeats.learn(x, width)
    assert own["step"] == pytest.approx(step, rel=1e-6)
    back = Column("float", width, **own).back(noisy(x, width))
    assert back.dtype == x.dtype
    if "decimals" in name:
        np.testing.assert_allclose(back, x, rtol=1e-12)
    else:
        np.testing.assert_array_equal(back, x)


def test_without_a_grid_frequent_values_come_back():
    x = np.where(RNG.random(600) < 0.4, 0.0, np.round(RNG.exponential(size=600), 3) * np.pi + 0.1)
    width = smallest_gap(x)
    own = repeats.learn(x, width)
    assert own == {"frequent": (0.0,)}
    given = noisy(x, width)
    back = Column("float", width, **own).back(given)
    np.testing.assert_array_equal(back[x == 0.0], 0.0)
    np.testing.assert_array_equal(back[x != 0.0], given[x != 0.0])


def test_noise_wider_than_the_gaps_stays():
    x, _ = GRIDS["tenths"]
    assert repeats.learn(x, 0.25) == {"frequent": ()}
    assert repeats.learn(x, 0.05)["step"] == 0.1
    assert repeats.learn(np.ones(9), 0.1) == {}


def test_draws_stay_within_bounds():
    column = Column("float", 0.1, 0.0, bounds=(0.0, 1.0), step=0.1)
    np.testing.assert_array_equal(column.back(np.array([-0.26, 0.04, 0.16, 1.2])), [0.0, 0.0, 0.2, 1.0])


def test_files_keep_grids_and_frequent_values():
    table = Table((Column("float", 0.1, 0.5, step=0.1), Column("float", 0.1, frequent=(0.0, 2.5)), Column()))
    again = kept_in({"table": note(table, None)}, 3)
    assert again == table
    plain = json.loads(note(table, None))["columns"][2]
    assert set(plain) == {"kind", "width", "offset", "constant"}  # older readers of files know no other keys


def test_the_warning_counts_and_names_columns():
    rows = np.stack([np.where(np.arange(2000) % 2 == 0, NORMAL[np.arange(2000) % 600], i) for i in range(5)], axis=1)
    (text,) = about_repeats(rows, Table((Column(),) * 5), None)
    assert text == f"values repeat in column 0, column 1, column 2, column 3, column 4: {SPREAD}"
    rare = np.concatenate([np.repeat(np.arange(400.0), 2), np.arange(1000.0, 1700.0)])
    (text,) = about_repeats(rare[:, None], Table((Column(),)), ["mass"])
    assert text.startswith("values repeat in column 'mass': ")
    (text,) = about_repeats(rare[:, None], Table((Column("float", 1.0),)), ["mass"], "--", spread=True)
    assert text.endswith("column 'mass': spread by noise as wide as their gaps, --spread none keeps them")
    assert about_repeats(rare[:, None], Table((Column("float", 1.0),)), ["mass"]) == []


@pytest.mark.parametrize("value", [0.0, -99.0])
def test_the_warning_of_one_frequent_value_has_advice_of_its_own(value):
    """Where a frequent value is mixed with continuous ones, noise as wide as a gap would leave a spike; the advice is
    to fit rows with that value separately."""
    rain = np.where(np.arange(600) % 5 < 2, value, np.exp(NORMAL))
    both = np.stack([rain, np.round(NORMAL, 1)], axis=1)
    repeated, spiked = about_repeats(both, Table((Column(), Column())), ["rain", "wind"])
    assert "values repeat in column 'wind'" in repeated
    assert "rain" not in repeated
    assert spiked.startswith(f"one value is frequent in column 'rain' ({value:g} in 240 of 600 rows): ")
    assert "FlowDensity of splines gives it a probability (docs/tables.md)" in spiked
    rounded = np.where(np.arange(600) % 5 < 2, 0.0, np.round(np.exp(NORMAL), 1))
    assert not any("frequent" in one for one in about_repeats(rounded[:, None], Table((Column(),)), None))
