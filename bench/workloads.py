"""The workloads that all benchmarks share, and the arithmetic that each of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

FAMILIES = ("maf", "iaf", "realnvp")
VERBS = ("log_prob", "sample")


@dataclass(frozen=True)
class Workload:
    """One model and one call of it; `aim` is how many times as fast as the best peer it should be."""

    family: str
    features: int
    hidden: tuple[int, ...]
    transforms: int
    verb: str
    rows: int
    aim: float = 1.0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES or self.verb not in VERBS:
            raise ValueError(f"unknown family or verb: {self.family!r}, {self.verb!r}")

    @property
    def model(self) -> str:
        """The name of the model, for example ``maf 64 5x[256,256]``."""
        return f"{self.family} {self.features} {self.transforms}x[{','.join(map(str, self.hidden))}]"

    @property
    def name(self) -> str:
        """The name of the workload, for example ``maf 64 5x[256,256] log_prob 10000``."""
        return f"{self.model} {self.verb} {self.rows}"

    @property
    def sequential(self) -> bool:
        """Whether the conditioner reads the side that the call builds."""
        return (self.family, self.verb) in (("maf", "sample"), ("iaf", "log_prob"))

    @property
    def mirrored(self) -> Workload:
        """The same model and rows in the other direction."""
        return replace(self, verb=VERBS[1 - VERBS.index(self.verb)])

    @property
    def flops(self) -> int:
        """Floating-point operations that one call needs in matrix products."""
        return needed_flops(self.family, self.features, self.hidden, self.transforms, self.rows)

    def to_dict(self) -> dict:
        """The workload as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> Workload:
        """The inverse of `to_dict`."""
        return cls(**{**fields, "hidden": tuple(fields["hidden"])})


@dataclass(frozen=True)
class Ratio:
    """The time of one call over the time of another, both in headrace, and the largest ratio aimed at."""

    numerator: Workload
    denominator: Workload
    limit: float

    @property
    def name(self) -> str:
        """For example ``maf 64 5x[256,256] sample / log_prob 10000``."""
        return f"{self.numerator.model} {self.numerator.verb} / {self.denominator.verb} {self.numerator.rows}"


def hidden_degrees(features: int, width: int) -> list[int]:
    """Degrees of a masked layer's units: spread evenly over 1, ..., features - 1."""
    return [1 + unit * (features - 1) // width if features > 1 else 0 for unit in range(width)]


def masked_weights(features: int, hidden: Sequence[int], parameters: int = 2) -> int:
    """Weights that exist in the masked network of one autoregressive transform without context.

    Coordinate i = 1, ..., features has level i. A hidden unit sees units and coordinates up to its own degree; the
    parameters of coordinate i see the hidden units of degree i - 1 and less.
    """
    below = list(range(1, features + 1))
    total = 0
    for width in hidden:
        degrees = hidden_degrees(features, width)
        total += _count(below, degrees)
        below = degrees
    return total + parameters * _count(below, range(features))


def _count(below: Sequence[int], above: Sequence[int]) -> int:
    """Pairs of units whose lower one has at most the degree of the upper one."""
    top = max([*below, *above], default=0)
    up_to = [0] * (top + 1)
    for degree in below:
        up_to[degree] += 1
    for degree in range(1, top + 1):
        up_to[degree] += up_to[degree - 1]
    return sum(up_to[degree] for degree in above)


def coupling_weights(features: int, hidden: Sequence[int], parameters: int = 2) -> int:
    """Weights in the dense network of one coupling that keeps half of the coordinates (rounded down)."""
    kept = features // 2
    sizes = [kept, *hidden, parameters * (features - kept)]
    return sum(lower * upper for lower, upper in pairwise(sizes))


def needed_flops(family: str, features: int, hidden: Sequence[int], transforms: int, rows: int) -> int:
    """Multiplications and additions of the existing weights, each used once a row: the least any direction needs."""
    weights = coupling_weights if family == "realnvp" else masked_weights
    return 2 * rows * transforms * weights(features, hidden)


MAF_64 = Workload("maf", 64, (256, 256), 5, "log_prob", 10_000, aim=2.4)
MAF_43 = Workload("maf", 43, (512, 512), 5, "log_prob", 10_000, aim=2.4)
IAF_64 = Workload("iaf", 64, (256, 256), 5, "log_prob", 10_000, aim=140)
MAF_784 = Workload("maf", 784, (1024,), 5, "sample", 100, aim=800)
REALNVP_64 = Workload("realnvp", 64, (256, 256), 8, "log_prob", 10_000, aim=1.25)
REALNVP_2 = Workload("realnvp", 2, (64, 64), 8, "log_prob", 100_000, aim=2.2)

WORKLOADS: tuple[Workload, ...] = (
    MAF_64,
    replace(MAF_64, rows=100, aim=3),
    replace(MAF_64, rows=1, aim=8),
    MAF_43,
    replace(MAF_43, verb="sample", aim=95),
    replace(MAF_43, verb="sample", rows=100, aim=80),
    replace(MAF_43, verb="sample", rows=1, aim=40),
    replace(MAF_64, verb="sample", aim=140),
    IAF_64,
    MAF_784,
    REALNVP_64,
    replace(REALNVP_64, verb="sample", aim=1.5),
    *(replace(REALNVP_64, verb=verb, rows=rows, aim=aim) for rows, aim in ((100, 2), (1, 8)) for verb in VERBS),
    REALNVP_2,
    replace(REALNVP_2, verb="sample"),
)

# Sampling, random numbers included, over density evaluation of the same flow: at most so much.
SEQUENTIAL_LIMIT = 1.15

RATIOS: tuple[Ratio, ...] = tuple(
    Ratio(replace(model, verb="sample"), model, SEQUENTIAL_LIMIT) for model in (MAF_64, MAF_43)
)

# Masked transforms that bench_masked.py times: features, hidden sizes.
MASKED_SHAPES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (6, (100, 100)),
    (43, (512, 512)),
    (64, (256, 256)),
    (784, (1024,)),
)

# Couplings that bench_coupling.py times: features, hidden sizes.
COUPLING_SHAPES: tuple[tuple[int, tuple[int, ...]], ...] = ((2, (64, 64)), (64, (256, 256)))
