"""A group of MPI with ranks that do not answer, over a communicator that the tests simulate."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import headrace as hr
from headrace.distributed import groups as _groups
from headrace.distributed.groups import GroupError


class Request:
    """A request that ends at once, or only when it is cancelled."""

    def __init__(self, ends):
        self.ends, self.cancelled, self.over = ends, False, False

    def Test(self):
        self.over = self.over or self.ends
        return self.ends

    def Cancel(self):
        self.cancelled = True

    def Wait(self):
        assert self.ends or self.cancelled, "it would wait for ever"
        self.over = True


class Comm:
    """The communicator of rank 0 among a number of ranks, some of which never answer."""

    def __init__(self, size, silent, sends=True):
        self.size, self.silent, self.sends = size, silent, sends
        self.asked, self.received, self.sent = [], {}, {}

    def Dup(self):
        return self

    def Get_rank(self):
        return 0

    def Get_size(self):
        return self.size

    def Iallreduce(self, in_place, array, operation):
        return self._all()

    def Ibcast(self, array, root):
        return self._all()

    def _all(self):
        self.asked.append(Request(not self.silent))
        return self.asked[-1]

    def Irecv(self, buffer, rank, tag):
        self.received[rank] = Request(rank not in self.silent)
        return self.received[rank]

    def Isend(self, buffer, rank, tag):
        self.sent[rank] = Request(self.sends or rank not in self.silent)
        return self.sent[rank]


@pytest.fixture(autouse=True)
def mpi(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=SimpleNamespace(IN_PLACE=0, SUM=1, MAX=2)))
    monkeypatch.setattr(_groups, "GRACE", 0.0)


def test_other_objects_than_communicators_are_refused():
    with pytest.raises(TypeError, match="comm: expected a communicator of mpi4py, got int"):
        hr.distributed.from_mpi(3)


def test_a_rank_that_does_not_answer_is_named_and_nothing_is_left_to_wait_for():
    comm = Comm(4, silent={1, 3})
    group = hr.distributed.from_mpi(comm, timeout=0.02)
    part = np.ones(3, np.int64)
    with pytest.raises(GroupError, match=r"expected all 4 ranks to answer within 0.02 s, got nothing from rank 1, 3$"):
        group.sum(part)
    assert [(rank, one.cancelled, one.over) for rank, one in comm.received.items()] == [
        (1, True, True),
        (2, False, True),
        (3, True, True),
    ]
    assert all(one.over for one in comm.sent.values())


def test_memory_that_a_late_rank_may_still_write_to_is_kept():
    comm = Comm(2, silent={1}, sends=False)
    group = hr.distributed.from_mpi(comm, timeout=0.02)
    part = np.ones(3, np.int64)
    with pytest.raises(GroupError):
        group.sum(part)
    kept = [of for one in group._left for of in (one if isinstance(one, tuple) else [one])]
    assert any(one is part for one in kept)
    assert {id(comm.asked[0]), id(comm.sent[1])} <= set(map(id, kept))


def test_a_broken_group_sends_no_more_messages():
    comm = Comm(2, silent={1})
    group = hr.distributed.from_mpi(comm, timeout=0.02)
    for call in (group.sum, group.maximum, group.broadcast):
        with pytest.raises(GroupError, match="got nothing from rank 1"):
            call(np.ones(3, np.int64))
    assert len(comm.asked) == 1


def test_ranks_that_answer_late_are_not_named():
    comm = Comm(2, silent=())
    group = hr.distributed.from_mpi(comm, timeout=0.02)
    assert group.sum(np.ones(1, np.int64)).tolist() == [1]
    comm.Iallreduce = lambda *arguments: Request(False)
    with pytest.raises(GroupError, match=r"^group: some rank let the others wait for 0.02 s, but all answer now$"):
        group.sum(np.ones(1, np.int64))
