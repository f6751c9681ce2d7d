"""Every public default beside its fastest setting: ``python -m bench.defaults [--what REGEX] [--pairs 15]``.

A call in the form of its docstring's example has a ratio: its processor time over that of the same call in its fastest
setting, both in turn in one process. The fastest setting depends on the kind of the table's row:

- **lanes**: n rows, for n = 1, 7, 17 and 100, beside the next multiple of 16 rows, which fills the vectors of every
  instruction set. Ratios are those of whole calls, so that a partly filled vector may take three times as long as a
  full one.
- **many**: a row in a call of 1,000 rows beside one in a call of 112; a stream's step alone beside one in a call of 96.
- **given**: float64 rows in Fortran's order, lists, frames, and a result in given memory, beside
  float32 rows in C's order.
- **threads**: a process with the default number of threads beside one thread.
- **setting**: an object with default settings beside one with the fastest map or product; a default fit beside the
  fastest fit.
- **verb**: samples beside the density of as many rows, because both are one pass through the networks.
- **make**: an object made by its constructor, loaded or saved, beside the same object from or to bytes in memory; an
  object converted to float64 beside one of float32.
- **command**: a command with text as input and output beside the same command with .npy, and with a default voice
  beside an affine one.
- **process**: a new process beside one that imports less.

No ratio is above 3, except for at most five entries of `table.ABOVE`, which have a limit and a reason. Before every
block of calls `soil` leaves values of every magnitude in the memory that the maps use, so that a kernel that computes
with memory that it never wrote is always slow, and not only after some other call. `test_defaults.py` runs the same
calls a few times, and fails for a public name that has neither a table row nor a reason.
"""
