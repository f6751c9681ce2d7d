"""Whole runs of programs with their flows and with headrace's: ``python -m bench.downstream [--quick]``.

Run the command in an environment that has headrace and the programs; those that are not installed are left out.
``--only NAME`` runs one program, and ``--ours`` leaves the programs' own flows out. Each program runs with its own flow
and with headrace's, from the same seeds, one run after the other, in one process and on one thread. A run whose
evidence, posterior or calibration is wrong makes the benchmark fail: the right values are known, or are the results of
the program's own flow. A time is that of a single run: only large differences of times mean anything.

The samplers are in `samplers.py`, simulation-based inference and models in `models.py`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from bench.downstream.runs import Runs

OWN = (", its own", ", flowjax")  # ends of the labels of runs with a program's own flow


@dataclass(frozen=True)
class Case:
    """Runs of one program on one problem."""

    program: str
    """The module that has to be installed."""
    problem: str
    runs: Callable[[bool, int], Runs]
    """A function from ``(quick, seed)`` to labels and runs."""


def cases() -> dict[str, Case]:
    """All cases by name."""
    from bench.downstream import models, samplers

    return {
        "pocomc": Case("pocomc", "Rosenbrock's function, 10-D", samplers.pocomc_runs),
        "nessai": Case("nessai", "Rosenbrock's function, 10-D", samplers.nessai_runs),
        "nessai-mixture": Case("nessai", "two normal densities, 10-D", samplers.nessai_mixture_runs),
        "aspire": Case("aspire", "its basic example, 16-D", samplers.aspire_runs),
        "flowmc": Case("flowMC", "Rosenbrock's function, 10-D", samplers.flowmc_runs),
        "sbi-two-moons": Case("sbi", "two moons", models.two_moons_runs),
        "sbi-slcp": Case("sbi", "simple likelihood, complex posterior", models.slcp_runs),
        "numpyro": Case("numpyro", "NUTS with a prior that was learned, 4-D", models.numpyro_runs),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the programs that are installed; return 1 if a result is wrong."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small problems, to see that it runs")
    parser.add_argument("--only", choices=list(known), help="one case")
    parser.add_argument("--ours", action="store_true", help="no runs with the programs' own flows")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    one_thread()
    failed = False
    for name, case in known.items():
        if args.only not in (None, name):
            continue
        if importlib.util.find_spec(case.program) is None:
            print(f"{name}: {case.program} is not installed")
            continue
        print(f"{name}: {'a small problem' if args.quick else case.problem}")
        for label, run in case.runs(args.quick, args.seed):
            if args.ours and label.endswith(OWN):
                continue
            got = run()
            failed |= bool(got.wrong)
            print(
                f"  {label:28s} {got.seconds:8.1f} s  {got.summary}  {got.wrong and 'WRONG: ' + got.wrong}", flush=True
            )
    return int(failed)


def one_thread() -> None:
    """Set one thread for headrace, and for PyTorch where it is installed; the caller sets OMP_NUM_THREADS and
    XLA_FLAGS."""
    import headrace as hr

    hr.set_num_threads(1)
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
