"""Ranks as threads of one process, with the fits that tests of `headrace.distributed` compare on different ranks."""

import hashlib
import threading
from contextlib import ExitStack
from unittest import mock

import numpy as np

import cases
import headrace as hr
from fitting import gaussian
from headrace._fit import plan as _plan
from headrace.ascent import competing_fits as _contest
from headrace.distributed import run as _run

SIZES = (200, 37, 0, 400, 1, 262)  # rows of each shard
ROWS = sum(SIZES)
FIRST = np.cumsum(SIZES) - SIZES

# The shards of each rank, by the name of the assignment.
ASSIGNMENTS = {
    "one": [[0, 1, 2, 3, 4, 5]],
    "two": [[0, 1, 2], [3, 4, 5]],
    "an empty one": [[], [5, 3, 0, 1, 4, 2]],
    "three": [[3], [0, 4, 2], [5, 1]],
}
CHUNK = 32  # rows of a chunk, in place of 512


class Rank:
    """One rank of a group of threads: an exchange stores the values of all ranks side by side, and every
    rank waits for all others before and after it."""

    def __init__(self, rank, size, slots, barrier):
        self.rank, self.size, self.slots, self.barrier = rank, size, slots, barrier
        self.sent = []  # sizes of the sums in bytes

    def _all(self, part):
        self.slots[self.rank] = np.array(part)
        self.barrier.wait(20)
        found = list(self.slots)
        self.barrier.wait(20)
        assert len({(one.shape, one.dtype) for one in found}) == 1
        return found

    def sum(self, part):
        assert part.dtype == np.int64
        assert part.flags.c_contiguous
        self.sent.append(part.nbytes)
        found = self._all(part)
        order = np.random.default_rng(len(self.sent)).permutation(self.size)  # every rank uses the same order
        total = np.zeros_like(part)
        for i in order:
            total += found[i]
        part[...] = -1  # a wrong value, so that a second read is noticed
        return total

    def maximum(self, part):
        return np.max(self._all(part), axis=0)

    def broadcast(self, part, root=0):
        return self._all(part)[root]


def on_ranks(size, work):
    """The results or errors of ``work(group)`` on each of `size` ranks."""
    slots, barrier, found = [None] * size, threading.Barrier(size), [None] * size

    def one(rank):
        try:
            found[rank] = work(Rank(rank, size, slots, barrier))
        except BaseException as error:  # the caller gets the exception
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def together(assignment, work):
    """The results of ``work(group, shards)`` on each rank of an assignment; an error of one rank is raised."""
    found = on_ranks(len(assignment), lambda group: work(group, assignment[group.rank]))
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, threading.BrokenBarrierError):
            raise one
    return found


def cut(array, numbers):
    """The shards of a table with the given indices."""
    return {i: array[FIRST[i] : FIRST[i] + SIZES[i]] for i in numbers}


def small_chunks():
    """A ``with`` block of chunks with few rows, so that a batch has several, and of short joint trainings and fits."""
    stack = ExitStack()
    stack.enter_context(mock.patch.object(_contest, "REFINE_STEPS", 40))
    stack.enter_context(mock.patch.object(_run, "CHUNK_ROWS", CHUNK))
    stack.enter_context(mock.patch.object(_plan, "MOST_EPOCHS", 4))  # for fits without the argument `epochs`
    stack.enter_context(mock.patch.object(_plan, "MANY_FOR_COSINE", 100))
    stack.enter_context(mock.patch("headrace._fit.fit.STEPS", 60))  # steps of trials
    return stack


# ---- fits ------------------------------------------------------------------------------------------------------------

BATCH = {"batch_size": 3 * CHUNK, "progress": False}


def rows(*key):
    return gaussian(ROWS, *key)


def weights():
    found = cases.rng("shared weights").uniform(0.0, 1.5, ROWS)
    return np.where(found < 0.2, 0.0, found)


def context():
    return cases.rng("shared context").normal(2.0, 3.0, (ROWS, 2))


def _flow_with_links(dtype):
    return hr.MAF(3, 2, 2, (12,), dropout=0.2, link="linear", dtype=dtype, seed=3)


def _flow_with_act_norm(dtype):
    maf = hr.MAF(3, transforms=2, hidden=(12,), dtype=dtype)
    return hr.Flow([*maf.transforms[:-1], hr.transforms.ActNorm(3, dtype=dtype), maf.transforms[-1]])


# The fits by name: the flow, the arguments of its fit, and words for further arguments: "weights", "context", and
# "judge" for validation rows.
FITS = {
    "MAF": (lambda t: hr.MAF(3, 2, 2, (12,), dtype=t), {"epochs": 3}, "weights context"),
    "NSF": (lambda t: hr.NSF(3, transforms=2, hidden=(12,), dtype=t), {"epochs": 3, "schedule": "cosine"}, "judge"),
    "Muon": (
        lambda t: hr.NSF(3, transforms=1, hidden=(12, 12), dtype=t),
        {"epochs": 3, "optimizer": "muon"},
        "weights",
    ),
    "RealNVP": (
        lambda t: hr.RealNVP(3, transforms=2, hidden=(12,), dtype=t),
        {"epochs": 3, "validation": None},
        "weights",
    ),
    "IAF": (
        lambda t: hr.IAF(3, transforms=2, hidden=(12,), dtype=t),
        {"epochs": 2, "weight_decay": 0.1},
        "judge weights",
    ),
    "planar": (lambda t: hr.PlanarFlow(3, 4, dtype=t), {"epochs": 2, "average": None, "clip": None}, ""),
    "dropout": (_flow_with_links, {"epochs": 3}, "context"),
    "ActNorm": (
        _flow_with_act_norm,
        {"epochs": 8, "patience": 2, "schedule": "plateau", "learning_rate": 0.1},
        "weights",
    ),
    "bounds": (lambda t: hr.MAF(3, hidden=(8,), bounds=[(-50, 50), None, (-30, None)], dtype=t), {"epochs": 2}, ""),
    "staged decay": (
        lambda t: hr.MAF(3, hidden=(8,), dtype=t),
        {"epochs": 14, "patience": 4, "learning_rate": 2e-2},
        "",
    ),
    "a cosine": (lambda t: hr.NSF(3, transforms=2, hidden=(8,), dtype=t), {"learning_rate": 2e-2}, "weights"),
    "a Gaussian": (lambda t: hr.MAF(3, hidden=(8,), dtype=t), {"patience": 1, "weight_decay": 1.0}, "weights"),
}


def fitted(name, dtype, group, numbers, **more):
    """The flow and the history of a fit on one rank, which has the shards with the given indices."""
    make, arguments, parts = FITS[name]
    flow = make(dtype)
    given = {"context": context, "weights": weights}
    given = {key: cut(of(), numbers) for key, of in given.items() if key in parts}
    if "judge" in parts:
        other = {key: one for key, one in given.items() if key == "weights"}
        given["validation"] = (cut(rows("judge"), numbers), given.get("context"), other.get("weights"))
    history = flow.fit(cut(rows(), numbers), group=group, **{**BATCH, **arguments, **given, **more})
    return flow, history


ASCENTS = {
    "notes": lambda t: hr.DualAscentFlow.notes(steps=12, dtype=t),
    "sliced": lambda t: hr.DualAscentFlow.notes(steps=6, kinks=2, directions="sliced", rule="gradient", dtype=t),
    "splines": lambda t: hr.DualAscentFlow(steps=5, refine=False, dtype=t),
    "refined": lambda t: hr.DualAscentFlow(steps=3, refine=True, copies=2, dtype=t),
    "bounds": lambda t: hr.DualAscentFlow.notes(steps=4, bounds=[(-50, 50), None, (-30, None)], dtype=t),
}


def ascended(name, dtype, group, numbers, weighted=True):
    """The flow and the history of an ascent on one rank, which has the shards with the given indices."""
    x = rows()
    x[:, 1] = np.round(x[:, 1], 1)  # values repeat
    model = ASCENTS[name](dtype)
    more = {"weights": cut(weights(), numbers)} if weighted else {}
    flow = model.fit(cut(x, numbers), progress=False, group=group, **more)
    return flow, model.history


def digest(found):
    """A digest of all results of a fit: parameters, standardised columns, and the history without its times."""
    flow, history = found
    entries = [
        repr(history.__dict__[name])
        for name in sorted(history.__dict__)
        if name not in ("seconds", "cpu_seconds", "elapsed", "refinement")
    ]
    parts = [flow.parameters.tobytes(), hr.to_bytes(flow), *(one.encode() for one in entries)]
    return [hashlib.sha256(part).hexdigest()[:16] for part in parts]
