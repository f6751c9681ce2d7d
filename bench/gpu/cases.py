"""Workloads that `bench.gpu` measures on a card, their aims, and the libraries that take part."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.peers.run import OURS, OWN
from bench.workloads import MAF_43, MAF_64, PLANAR, RADIAL, REALNVP_64, VECTORS, Workload

LIBRARIES = (*OWN, "zuko", "zuko_compiled", "nflows", "normflows", "flowjax")


@dataclass(frozen=True)
class Case:
    """A workload and its aims: a factor over the best peer's speed, and a share of the copy rate; None means no aim."""

    workload: Workload
    ratio: float | None = None
    share: float | None = None

    @property
    def libraries(self) -> tuple[str, ...]:
        """The libraries that take part; compiling with torch takes long, and is done only for workloads with an aim."""
        if self.workload.family in VECTORS:
            return OURS, "normflows", "flowjax"
        left_out = {"normflows"}
        if not self.workload.hidden:
            left_out |= {*OWN[1:]}
        if not self.ratio:
            left_out.add("zuko_compiled")
        return tuple(name for name in LIBRARIES if name not in left_out)


MANY = 1 << 22  # rows of 16 features, 256 MB, which exceed every cache

MAF = replace(MAF_64, rows=100_000)
COUPLING_MAP = Workload("coupling_map", 8, (), 1, "forward", MANY)
ASCENT = Workload("ascent", 10, (), 1, "step", 10_000_000)
WAVENET = Workload("wavenet", 16_000, (), 16, "log_prob", 64)  # a million steps
# Two fits, whose times differ by the time of 100 steps.
FITS = tuple(replace(ASCENT, verb="fit", transforms=steps) for steps in (20, 120))

# The chains that should reach the copy rate are short: in longer chains the arithmetic takes longer than the copy, as
# the report's floors show.
CASES: tuple[Case, ...] = (
    Case(replace(MAF, verb="sample"), ratio=30),
    Case(MAF, ratio=2),
    Case(replace(PLANAR, transforms=4, rows=MANY), share=0.7),
    Case(replace(RADIAL, transforms=4, rows=MANY), share=0.7),
    Case(COUPLING_MAP, share=0.7),
    Case(replace(COUPLING_MAP, verb="inverse"), share=0.7),
    Case(Workload("dual_ascent", 10, (), 1, "inverse", MANY), share=0.7),
    Case(Workload("dual_ascent", 2, (), 2, "inverse", 4 * MANY), share=0.7),
    Case(ASCENT, share=1 / 1.5),
    *(Case(fit) for fit in FITS),
    Case(WAVENET),
    Case(replace(WAVENET, verb="sample", features=1000, rows=1024)),  # enough streams for all multiprocessors
    *(Case(replace(model, verb="train", rows=rows)) for model in (MAF_43, REALNVP_64) for rows in (1000, 100_000)),
    *(Case(replace(REALNVP_64, verb=verb, rows=100_000)) for verb in ("log_prob", "sample")),
    *(Case(replace(model, rows=1)) for model in (MAF_64, replace(MAF_64, verb="sample"), REALNVP_64)),
    Case(PLANAR),
    Case(RADIAL),
    Case(replace(PLANAR, transforms=4, rows=MANY, verb="inverse")),
    Case(replace(RADIAL, transforms=4, rows=MANY, verb="inverse")),
    Case(Workload("dual_ascent", 10, (), 100, "inverse", 100_000)),
)


def tiny(workload: Workload) -> Workload:
    """A workload of the same kind with tiny sizes, for a dry run."""
    transforms = workload.transforms // 10 if workload.verb == "fit" else min(workload.transforms, 2)
    return replace(
        workload,
        features=min(workload.features, 4),
        hidden=(8,) * len(workload.hidden),
        transforms=transforms,
        rows=min(workload.rows, 64),
    )


def fit_step(short: Workload, long: Workload) -> Workload:
    """The workload of one step of a fit."""
    return replace(long, transforms=1, rows=short.rows)
