"""One call of MAF 64 on the device, for a profiler: ``ncu ... python -m bench.gpu_profile log_prob|sample|train``."""

from __future__ import annotations

import sys
from dataclasses import replace

from bench.gpu_cases import MAF
from bench.peers import headrace_peer
from bench.peers.worker import Service


def run(verb: str, device: str = "cuda") -> None:
    """Build it and call it; the profiler sees the first launches of its kernels."""
    service = Service("headrace", 1, device)
    headrace_peer.setup(1, device)
    service.prepare({"workload": replace(MAF, verb=verb).to_dict(), "warm_up": 60.0})


if __name__ == "__main__":
    run(sys.argv[1])
