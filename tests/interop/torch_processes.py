"""A program for test_torch_use, which runs headrace in processes that PyTorch forks.

python torch_processes.py loader KIND
python torch_processes.py halves DIRECTORY GROUPS

"loader": workers of a DataLoader compute log densities, by a "module" or an "accelerated" model of nflows. "halves":
two processes train with half of each batch, and must agree with one process that has the whole batch, with "one group"
of parameters or with several "groups".
"""

import sys
import warnings
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / "support" / "cases")]

import torch
from torch.utils.data import DataLoader, Dataset

import headrace as hr
from headrace.torch import FlowModule
from torch_cases import Posterior, rows, simulated, trained


class Scored(Dataset):
    """A data set of rows with their log densities, which a worker computes."""

    def __init__(self, module, x):
        self.module, self.x = module, x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        with torch.no_grad():
            return self.x[i], self.module.log_prob(self.x[i : i + 1])[0]


def accelerated():
    """A model of nflows that `hr.accelerate` has changed."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import MaskedAffineAutoregressiveTransform

    return hr.accelerate(Flow(MaskedAffineAutoregressiveTransform(3, 8), StandardNormal([3])))


def loader(kind):
    """Check that workers of a loader compute the log densities of this process."""
    module = accelerated() if kind == "accelerated" else FlowModule(hr.MAF(3, transforms=1, hidden=(8,), seed=0))
    x = rows(40, 3)
    module.log_prob(x)  # this call starts threads before the fork
    workers = DataLoader(Scored(module, x), batch_size=10, num_workers=2, multiprocessing_context="fork", timeout=100)
    found = [torch.cat(parts) for parts in zip(*workers, strict=True)]
    assert torch.equal(found[0], x)
    torch.testing.assert_close(found[1], module.log_prob(x).detach(), rtol=1e-5, atol=1e-5)


def one_of_two(rank, directory, groups):
    """Train with half of each batch, as one of two processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    module, (theta, x) = Posterior(), simulated(64)
    optimiser = optimiser_of(module, groups)
    parallel = torch.nn.parallel.DistributedDataParallel(module)
    half = slice(rank * 32, rank * 32 + 32)
    trained(parallel, theta[half], x[half], 5, optimiser)
    torch.save(module.state_dict(), f"{directory}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def optimiser_of(module, groups):
    """An optimiser with one group of parameters, or with groups for the encoder and for parts of the flow."""
    if not groups:
        return torch.optim.Adam(module.parameters(), 1e-2)
    return torch.optim.AdamW(
        [{"params": list(module.encoder.parameters())}, *module.flow.parameter_groups(weight_decay=0.1)], 1e-2
    )


def halves(directory, groups):
    """Check that two processes reach equal weights, which are those of one process that has the whole batch."""
    torch.multiprocessing.start_processes(one_of_two, (directory, groups), nprocs=2, start_method="fork")
    first, second = (torch.load(f"{directory}/{rank}.pt") for rank in range(2))
    module, (theta, x) = Posterior(), simulated(64)
    trained(module, theta, x, 5, optimiser_of(module, groups))
    for name, value in module.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        if value.dtype == torch.float32:
            torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # newer Pythons warn of forks
    if sys.argv[1] == "loader":
        loader(sys.argv[2])
    else:
        halves(sys.argv[2], sys.argv[3] == "groups")
