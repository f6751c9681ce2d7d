"""The model of large fits: its bytes are those of the code, and its limits agree with the formulas that it names."""

import random
from dataclasses import replace

import pytest

from bench.scale.model import MEASURED, Assumed, Model, bytes_of_a_step, changed, wire_ms
from headrace.distributed.exact import FixedSum
from headrace.distributed.run import CHUNK_ROWS
from headrace.distributed.shards import ROWS

CALM = replace(Assumed(), jitter=0.0, pauses=0.0)
NAME = "5 x [512, 512]"


def model(**changes):
    return Model(NAME, MEASURED, replace(CALM, **changes))


def test_bytes_of_a_step_are_those_of_the_code():
    assert bytes_of_a_step(1000) == FixedSum(1000).parts.nbytes
    assert (MEASURED["rows of a chunk"], MEASURED["rows of a shard"]) == (CHUNK_ROWS, ROWS)


def test_a_step_without_stragglers_is_work_and_sum():
    of, rng = model(chunks=3), random.Random(0)
    t = of.times
    own = 3 * (t["gradient"] / 6.0 + t["add"]) + t["read"] + t["adam"] + CALM.python
    assert of.own_ms == pytest.approx(own)
    wire = 126 * 0.03 + 126 / 64 * bytes_of_a_step(t["weights"]) / (25e9 / 8e3 * 0.7)
    assert wire_ms(t["weights"], CALM) == pytest.approx(wire)
    assert of.step_ms(rng) == pytest.approx(own + wire)
    assert model(slow=2.0).step_ms(rng) == pytest.approx(2.0 * model().own_ms + wire)
    assert wire - wire_ms(t["weights"], replace(CALM, ring=0)) == pytest.approx((126 - 12) * 0.03)


def test_stragglers_and_failures_only_cost():
    rng = random.Random(1)
    jittered = Model(NAME, MEASURED, Assumed())
    assert model().step_ms(rng) < jittered.step_ms(rng) < 1.5 * model().step_ms(rng)
    assert model(failures=1e12).whole_s(3600.0, rng) == (3600.0 + model().start_s(), 0)
    found = [model(failures=1.0).whole_s(3600.0, rng) for _ in range(300)]
    restarts = sum(count for _, count in found) / 300
    assert 64 / 24 * 0.9 < restarts < 64 / 24 * 1.3  # 64 workers, each with one failure in 24 hours
    least = 3600.0 + (1 + restarts) * model().start_s() + restarts * CALM.launch
    assert sum(seconds for seconds, _ in found) / 300 > least


def test_assumptions_are_changed_by_name():
    assert changed(Assumed(), ["workers=8", "rows=1e6"]) == replace(Assumed(), workers=8, rows=1e6)
    with pytest.raises(SystemExit, match="--set: expected one of rows, workers"):
        changed(Assumed(), ["wrokers=8"])
