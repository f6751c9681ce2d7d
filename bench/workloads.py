"""The workloads that all benchmarks share, and the arithmetic that each of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

FAMILIES = ("maf", "iaf", "realnvp")
VERBS = ("log_prob", "sample")


@dataclass(frozen=True)
class Aim:
    """What a workload should reach.

    `kind` is one of

    - ``"peak"``: the needed arithmetic runs at `limit` times the measured peak of the threads, or more;
    - ``"seconds"``: a call takes `limit` seconds or less;
    - ``"best peer"``: `limit` times as fast as the best peer or faster, over the whole band of rounds.
    """

    kind: str
    limit: float

    def __str__(self) -> str:
        if self.kind == "peak":
            return f"≥ {100 * self.limit:.0f} % of peak"
        if self.kind == "seconds":
            return f"≤ {1e6 * self.limit:.0f} µs"
        return f"≥ {self.limit:g} x best peer"


@dataclass(frozen=True)
class Workload:
    """One model and one call of it."""

    family: str
    features: int
    hidden: tuple[int, ...]
    transforms: int
    verb: str
    rows: int
    aim: Aim = Aim("best peer", 1.0)

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
        return cls(**{**fields, "hidden": tuple(fields["hidden"]), "aim": Aim(**fields["aim"])})


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
    """Degrees of a masked layer's units: 1, ..., features - 1, over and over (the order does not matter here)."""
    return [1 + unit % (features - 1) if features > 1 else 0 for unit in range(width)]


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


STAIRCASE = Aim("peak", 0.75)
SEQUENTIAL_LIMIT = 1.15
SEQUENTIAL = Aim("peak", 0.75 / SEQUENTIAL_LIMIT)
DENSE = Aim("peak", 0.80)


def _one_row(transforms: int) -> Aim:
    """6 µs a transform of 64 features and [256, 256] units, and 5 µs of Python a call."""
    return Aim("seconds", 6e-6 * transforms + 5e-6)


MAF_64 = Workload("maf", 64, (256, 256), 5, "log_prob", 10_000, STAIRCASE)
MAF_43 = Workload("maf", 43, (512, 512), 5, "log_prob", 10_000, STAIRCASE)
IAF_64 = Workload("iaf", 64, (256, 256), 5, "log_prob", 10_000, SEQUENTIAL)
MAF_784 = Workload("maf", 784, (1024,), 5, "sample", 100)
REALNVP_64 = Workload("realnvp", 64, (256, 256), 8, "log_prob", 10_000, DENSE)
REALNVP_2 = Workload("realnvp", 2, (64, 64), 8, "log_prob", 100_000)

FASTER = Aim("best peer", 1.0)

WORKLOADS: tuple[Workload, ...] = (
    MAF_64,
    replace(MAF_64, rows=100, aim=FASTER),
    replace(MAF_64, rows=1, aim=_one_row(5)),
    MAF_43,
    replace(MAF_64, verb="sample", aim=SEQUENTIAL),
    replace(MAF_43, verb="sample", aim=SEQUENTIAL),
    replace(MAF_43, verb="sample", rows=100, aim=FASTER),
    replace(MAF_43, verb="sample", rows=1, aim=FASTER),
    IAF_64,
    MAF_784,
    *(
        replace(REALNVP_64, verb=verb, rows=rows, aim=aim)
        for verb in VERBS
        for rows, aim in ((10_000, DENSE), (100, FASTER), (1, _one_row(8)))
    ),
    REALNVP_2,
    replace(REALNVP_2, verb="sample"),
)

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
