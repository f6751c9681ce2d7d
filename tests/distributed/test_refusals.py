"""A fit with a group refuses wrong arguments on all ranks, in the same words."""

import threading

import numpy as np
import pytest

import headrace as hr
import ranks
from headrace.distributed.groups import local, together
from ranks import ASSIGNMENTS, FIRST, ROWS, cut, on_ranks

TWO = ASSIGNMENTS["two"]


def refused(error, *words, x=None, flow=None, each=None, **arguments):
    """Check that the errors of all ranks contain all words; `each(rank, shards)` returns other arguments for a rank."""

    def work(group):
        mine = TWO[group.rank]
        given = {
            "x": cut(ranks.rows() if x is None else x, mine),
            "group": group,
            "epochs": 1,
            **ranks.BATCH,
            **arguments,
        }
        given |= {} if each is None else each(group.rank, mine)
        made = hr.MAF(3, hidden=(8,)) if flow is None else flow(group.rank)
        return made.fit(given.pop("x"), **given)

    for found in on_ranks(2, work):
        assert isinstance(found, error), found
        assert not isinstance(found, threading.BrokenBarrierError)
        for word in words:
            assert word in str(found)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("shard", [0, 3, 5])
def test_a_row_that_is_not_finite_has_its_number_in_the_table(value, shard):
    x = ranks.rows()
    x[[FIRST[shard], ROWS - 1], [1, 2]] = value
    refused(
        ValueError,
        f"x: expected finite numbers, got NaN or infinity in 2 of {ROWS} rows, first in row {FIRST[shard]}",
        x=x,
    )


def test_context_and_weights_that_are_not_finite_or_negative():
    c, w = ranks.context(), ranks.weights()
    c[250, 0], w[333] = np.nan, -1.0
    flow = lambda rank: hr.MAF(3, 2, hidden=(8,))  # noqa: E731
    refused(
        ValueError, "context: expected finite", "row 250", flow=flow, each=lambda rank, mine: {"context": cut(c, mine)}
    )
    refused(
        ValueError,
        "weights: expected numbers of at least 0",
        "row 333",
        each=lambda rank, mine: {"weights": cut(w, mine)},
    )
    zeros = np.zeros(ROWS)
    refused(ValueError, "weights", "1e-300", each=lambda rank, mine: {"weights": cut(zeros, mine)})


def test_rows_beyond_bounds():
    flow = lambda rank: hr.MAF(3, hidden=(8,), bounds=[(-50, 0.9), None, None])  # noqa: E731
    refused(ValueError, "between their bounds", "shard", flow=flow)


def test_an_error_of_one_rank_is_raised_on_all():
    wrong = lambda rank, mine: {"x": {3: np.zeros((10, 2))}} if rank else {}  # noqa: E731
    refused(ValueError, "x of shard 3: expected shape (rows, 3), got (10, 2)", each=wrong)
    wrong = lambda rank, mine: {"x": {3: np.full((10, 3), "a")}} if rank else {}  # noqa: E731
    refused(TypeError, "x of shard 3", each=wrong)


class OwnError(Exception):
    """An exception class of the test."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("gone"), OSError),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "gone"), ValueError),
        (hr.FileFormatError("gone"), hr.FileFormatError),
        (OwnError("gone"), RuntimeError),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else None,
)
def test_an_error_is_of_its_kind_on_all_ranks(error, kind):
    def work(group):
        with together(group):
            if group.rank == 1:
                raise error

    first, second = on_ranks(2, work)
    assert type(first) is kind
    assert "rank 1: " in str(first)
    assert "gone" in str(first)
    assert second is error


def test_a_checkpoint_that_cannot_be_written_is_an_os_error_on_all_ranks(tmp_path):
    """Only rank 0 opens the file, whose folder does not exist."""
    refused(OSError, "checkpoint: expected an existing folder", checkpoint=tmp_path / "none" / "fit.state")


def test_shards_on_no_rank_or_on_two_ranks_are_refused():
    one = np.zeros((10, 3))
    refused(ValueError, "shard 0 on 2", each=lambda rank, mine: {"x": {0: one}})
    refused(ValueError, "shard 1 on 0", each=lambda rank, mine: {"x": {2 * rank: one}})
    refused(ValueError, "at least one shard", each=lambda rank, mine: {"x": {}})
    refused(ValueError, "at least one row", each=lambda rank, mine: {"x": {rank: one[:0]}})
    refused(ValueError, "number of a shard", each=lambda rank, mine: {"x": {-1 if rank else 0: one}})
    refused(ValueError, "weights: expected the shards of x", each=lambda rank, mine: {"weights": {7: one[:, 0]}})
    some = lambda rank, mine: {"weights": cut(ranks.weights(), mine)} if rank else {}  # noqa: E731
    refused(ValueError, "weights: expected weights of all shards or of none", each=some)
    refused(TypeError, "headrace.distributed.shards", each=lambda rank, mine: {"x": one})


def test_ranks_with_different_arguments():
    refused(ValueError, "seed: 0 there, 1 on rank 1", each=lambda rank, mine: {"seed": rank})
    refused(ValueError, "epochs: 3 there, 4 on rank 1", each=lambda rank, mine: {"epochs": 3 + rank})
    refused(
        ValueError, "validation: 0.1 there, 0.2 on rank 1", each=lambda rank, mine: {"validation": 0.1 + 0.1 * rank}
    )
    refused(ValueError, "parameters at the start", flow=lambda rank: hr.MAF(3, hidden=(8,), seed=rank))
    refused(ValueError, "structure of the flow", flow=lambda rank: hr.MAF(3, hidden=(8 + rank,)))


def test_arguments_that_no_group_takes():
    refused(ValueError, "time_budget", time_budget=1.0)
    arguments = {"validation": 0.01, "epochs": None}
    refused(ValueError, "epochs: expected a number with a group", **arguments)


def test_other_objects_than_groups_are_refused():
    for group in (3, "gloo", object()):
        with pytest.raises(TypeError, match=r"group: expected a Group of local\(\), from_torch\(\) or from_mpi\(\)"):
            hr.MAF(3).fit(ranks.rows(), group=group)
        with pytest.raises(TypeError, match=r"group: expected a Group of local\(\), from_torch\(\) or from_mpi\(\)"):
            hr.DualAscentFlow().fit(ranks.rows(), group=group)


def test_a_batch_of_fewer_chunks_than_ranks_is_warned_of():
    with pytest.warns(RuntimeWarning, match="give batch_size=1024 or more"):
        found = on_ranks(
            2, lambda group: hr.MAF(3).fit(cut(ranks.rows(), TWO[group.rank]), epochs=1, group=group, progress=False)
        )
    assert not any(isinstance(one, BaseException) for one in found)


def test_arguments_that_an_ascent_of_a_group_refuses():
    x = ranks.rows()
    with pytest.raises(ValueError, match="context: expected None"):
        hr.DualAscentFlow().fit(x, context=x, group=local())
    with pytest.raises(ValueError, match="copies"):
        hr.DualAscentFlow.notes(copies=2).fit(x, group=local())
    x[7, 1] = np.nan
    with pytest.raises(ValueError, match="first in row 7"):
        hr.DualAscentFlow.notes().fit(x, group=local())
