"""A program for test_processes: one rank, of gloo or MPI, that does the work of its arguments and writes the results.

python rank.py DIRECTORY KIND RANK SIZE WORK

WORK is "fit", for all fits, or "ascent NAME"; with "ends STEP" or "stops STEP", for a key of STEPS, rank 1 ends or
hangs at this step; "stuck STEP" is like "ends STEP", and the shutdown of gloo hangs as well.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / name) for name in (".", "support", "support/cases")]

import headrace as hr
import ranks
from headrace._fit import run as _fit_run
from headrace.ascent.splines import SplineAscent
from headrace.distributed import GroupError
from headrace.distributed import groups as _groups
from headrace.ops._points import Chosen

TIMEOUT, GRACE, STEP = 2.0, 1.0, 37
WORK = [("MAF", "float32"), ("MAF", "float64"), ("NSF", "float32"), ("dropout", "float64"), ("ActNorm", "float32")]
LOST = ("ends", "stops", "stuck")
ASCENTS = [("notes", "float32"), ("notes", "float64"), ("refined", "float32")]


def group_of(kind, directory, rank, size, timeout):
    """A group over gloo, whose ranks meet in a file, or over MPI, or of this process alone."""
    _groups.GRACE = GRACE
    if kind == "local":
        return hr.distributed.local()
    if kind == "mpi":
        from mpi4py import MPI

        return hr.distributed.from_mpi(MPI.COMM_WORLD, timeout=timeout)
    import torch.distributed as distributed

    distributed.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=size)
    return hr.distributed.from_torch(timeout=timeout)


def bits(group, assignments):
    """The digests of fits, for each assignment of shards to as many ranks as the group has."""
    found = {}
    with ranks.small_chunks():
        for assignment, shards in assignments.items():
            mine = shards[group.rank]
            for name, dtype in WORK:
                found[f"{assignment} {name} {dtype}"] = ranks.digest(ranks.fitted(name, dtype, group, mine))
            for name, dtype in ASCENTS:
                found[f"{assignment} {name} {dtype}"] = ranks.digest(ranks.ascended(name, dtype, group, mine))
    return found


# For each kind of work, the step at which a rank is lost, as a class, a method and the number of a call; "refined"
# loses the rank in the joint training.
STEPS = {
    "fit": (_fit_run.Adam, "step", STEP),
    "notes": (Chosen, "kink", 5),
    "splines": (SplineAscent, "_curves", 3),
    "refined": (_fit_run.Adam, "step", 11),
}


def ends_early(group, how, name="fit"):
    """Run a fit or an ascent in which rank 1 ends, or hangs, at a step; write the messages and seconds of the other
    ranks.
    """
    of, called, last = STEPS[name]
    whole, steps = getattr(of, called), []

    def step(*given):
        steps.append(time.monotonic())
        if len(steps) == last and group.rank == 1:
            if how != "stops":
                os._exit(1)
            os.kill(os.getpid(), signal.SIGSTOP)
        return whole(*given)

    setattr(of, called, step)
    mine = [[0, 3], [1, 4], [5, 2]][group.rank] if group.size == 3 else [[0, 3, 5], [1, 4, 2]][group.rank]
    try:
        with ranks.small_chunks():
            if name == "fit":
                ranks.fitted("MAF", "float32", group, mine, epochs=100_000, patience=None)
            else:
                ranks.ascended(name, "float32", group, mine)
    except GroupError as error:
        return {"error": str(error), "steps": len(steps), "seconds": time.monotonic() - steps[-1]}
    return {"error": None}


def nan_row(group):
    """The message of a rank for a table in which a row of rank 1 has a NaN."""
    x = ranks.rows()
    x[ranks.FIRST[5] + 3, 1] = float("nan")
    mine = ranks.ASSIGNMENTS["two" if group.size == 2 else "three"][group.rank]
    try:
        hr.MAF(3).fit(ranks.cut(x, mine), group=group, epochs=1, **ranks.BATCH)
    except ValueError as error:
        return str(error)
    return None


def main():
    """Run the work of the command line, and write its results."""
    directory, kind, rank, size, work = sys.argv[1:]
    how, *name = work.split()
    group = group_of(kind, directory, int(rank), int(size), TIMEOUT if how in LOST else 60.0)
    if how == "stuck":
        import torch.distributed

        torch.distributed.destroy_process_group = lambda group: time.sleep(1e6)
    if how in LOST:
        found = ends_early(group, *work.split())
    elif how == "ascent":
        right = next(shards for shards in ranks.ASSIGNMENTS.values() if len(shards) == group.size)
        with ranks.small_chunks():
            found = {"bits": ranks.digest(ranks.ascended(name[0], "float32", group, right[group.rank]))}
    else:
        right = {name: shards for name, shards in ranks.ASSIGNMENTS.items() if len(shards) == group.size}
        found = {"bits": bits(group, right), "nan": nan_row(group), "repr": repr(group)}
    written = Path(directory, f"rank{group.rank}.part")
    written.write_text(json.dumps(found), encoding="utf-8")
    written.rename(written.with_suffix(".json"))  # a rename makes the file appear whole
    if kind == "gloo" and how in ("fit", "ascent"):
        import torch.distributed

        # Without this call, threads of the group may still run when the interpreter ends.
        torch.distributed.destroy_process_group()
    if kind == "mpi" and work == "stops":
        # MPI would wait for hanging ranks, and its launcher ends all ranks as soon as one has ended.
        until = time.monotonic() + 60.0
        others = [Path(directory, f"rank{other}.json") for other in range(group.size) if other != 1]
        while time.monotonic() < until and not all(path.exists() for path in others):
            time.sleep(0.05)
        os._exit(0)


if __name__ == "__main__":
    main()
