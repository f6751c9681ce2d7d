"""The same fit, bit for bit, on any number of processes or machines: ``flow.fit(shards, group=group)``.

A `Group` represents the processes of a fit: `local` this process only, `from_torch` a PyTorch process group (torchrun),
`from_mpi` an MPI communicator, `from_dask` Dask workers (`headrace.dask` starts the ranks of such a group). Each
rank holds some shards of the table (numbered blocks of rows); the result is the same for any distribution of the
shards. docs/scale.md explains how to start distributed fits.
"""

from headrace._base.group import Group
from headrace.distributed._dask import from_dask
from headrace.distributed._mpi import from_mpi
from headrace.distributed._torch import from_torch
from headrace.distributed.groups import GroupError, local
from headrace.distributed.shards import shards

__all__ = ["Group", "GroupError", "from_dask", "from_mpi", "from_torch", "local", "shards"]
