"""The workloads that all benchmarks share, and the number of operations that each workload needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

VECTORS = ("planar", "radial")
KERNELS = ("coupling_map", "dual_ascent", "ascent", "wavenet")  # families of which only headrace has models
FAMILIES = ("maf", "maf_residual", "iaf", "realnvp", "nsf", "nsf_coupling", *VECTORS, *KERNELS)
VERBS = ("log_prob", "sample", "train", "forward", "inverse", "fit_to_normal", "step", "fit")
COUPLINGS = ("realnvp", "nsf_coupling")
SPLINES = ("nsf", "nsf_coupling")

# Settings of all splines, and of the optimiser steps that "train" and "fit_to_normal" time.
BINS = 8
BOUND = 5.0
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Workload:
    """One model and one call of the model; `aim` is the factor by which the call should be faster than the best peer's.

    ``maf_residual`` is a MAF in which each hidden size is a residual block of two layers, after a first layer. ``nsf``
    is the autoregressive spline flow, ``nsf_coupling`` the spline flow of couplings. The verb ``train`` is one step of
    an optimiser: mean negative log-likelihood of the rows, its gradient, and the update of the weights. ``planar`` and
    ``radial`` have no hidden layers; ``forward`` and ``inverse`` return rows and log-determinants, and
    ``fit_to_normal`` is one step on the mean of -log_det - log N(x; 0, 1) over latent rows: a fit to a density, which
    other libraries use for these flows.

    ``coupling_map`` is the affine map of couplings alone, with given parameters; ``dual_ascent`` a chain of maps and
    rotations; ``ascent`` a fit of such a chain: a ``step`` of the points, or a ``fit`` of `transforms` steps. These
    three families have no layers. A row of ``wavenet`` is a sequence of `features` steps, and its transforms are the
    layers of one network.
    """

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
        """The name of the model, for example ``maf 64 5x[256,256]`` or ``planar 16 32``."""
        if self.family in (*VECTORS, *KERNELS):
            return f"{self.family} {self.features} {self.transforms}"
        return f"{self.family} {self.features} {self.transforms}x[{','.join(map(str, self.hidden))}]"

    @property
    def name(self) -> str:
        """The name of the workload, for example ``maf 64 5x[256,256] log_prob 10000``."""
        return f"{self.model} {self.verb} {self.rows}"

    @property
    def sequential(self) -> bool:
        """Whether the conditioner reads the side that the call builds."""
        if self.family == "iaf":
            return self.verb != "sample"
        return self.family in ("maf", "maf_residual", "nsf") and self.verb == "sample"

    @property
    def mirrored(self) -> Workload:
        """The workload of the other direction, with the same model and rows."""
        return replace(self, verb="log_prob" if self.verb == "sample" else "sample")

    @property
    def flops(self) -> int:
        """The floating-point operations that one call needs in matrix products."""
        return needed_flops(self.family, self.features, self.hidden, self.transforms, self.rows, self.verb)

    @property
    def operations(self) -> int:
        """The `flops`, plus two for each vector operation of maps without networks, which takes as long as a
        multiply-add."""
        verb = "inverse" if self.verb in ("log_prob", "inverse") else "forward"
        per_row = self.transforms * VECTOR_OPERATIONS.get(self.family, 0)
        if self.family in ELEMENT_OPERATIONS:
            per_row = self.transforms * self.features * ELEMENT_OPERATIONS[self.family][verb]
        return self.flops + 2 * self.rows * per_row

    @property
    def nbytes(self) -> int:
        """The bytes (float32) that one call must move: rows and weights in, results out, each once.

        An optimiser reads a gradient, and reads and writes a weight and its two moments. For a step of an ascent only
        the rows count, read and written.
        """
        rows, numbers = self.rows, self.rows * self.features
        weights = existing_weights(self.family, self.features, self.hidden, self.transforms)
        return (
            4
            * {
                "log_prob": numbers + rows + weights,
                "sample": numbers + weights,
                "train": numbers + 7 * weights,
                "forward": (4 if self.family == "coupling_map" else 2) * numbers + rows,
                "inverse": (4 if self.family == "coupling_map" else 2) * numbers + rows,
                "fit_to_normal": numbers,
                "step": 2 * numbers,
                "fit": 2 * numbers * self.transforms,
            }[self.verb]
        )

    def to_dict(self) -> dict:
        """The workload as a dict for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> Workload:
        """The inverse of `to_dict`."""
        return cls(**{**fields, "hidden": tuple(fields["hidden"])})


@dataclass(frozen=True)
class Ratio:
    """The time of one call over the time of another, both in headrace, and the aim for this ratio."""

    numerator: Workload
    denominator: Workload
    limit: float

    @property
    def name(self) -> str:
        """The name of the ratio, for example ``maf 64 5x[256,256] sample / log_prob 10000``."""
        return f"{self.numerator.model} {self.numerator.verb} / {self.denominator.verb} {self.numerator.rows}"


def hidden_degrees(features: int, width: int) -> list[int]:
    """The degrees of a masked layer's units: spread evenly over 1, ..., features - 1."""
    return [1 + unit * (features - 1) // width if features > 1 else 0 for unit in range(width)]


def masked_layers(features: int, hidden: Sequence[int], parameters: int = 2) -> list[int]:
    """The number of existing weights in each layer of the masked network of one autoregressive transform without
    context.

    Coordinate i = 1, ..., features has level i. A hidden unit sees units and coordinates up to its own degree; the
    parameters of coordinate i see the hidden units of degree i - 1 and less.
    """
    below = list(range(1, features + 1))
    layers = []
    for width in hidden:
        degrees = hidden_degrees(features, width)
        layers.append(_count(below, degrees))
        below = degrees
    return [*layers, parameters * _count(below, range(features))]


def masked_weights(features: int, hidden: Sequence[int], parameters: int = 2) -> int:
    """The sum of `masked_layers`."""
    return sum(masked_layers(features, hidden, parameters))


def _count(below: Sequence[int], above: Sequence[int]) -> int:
    """The number of pairs of units whose lower one has at most the degree of the upper one."""
    top = max([*below, *above], default=0)
    up_to = [0] * (top + 1)
    for degree in below:
        up_to[degree] += 1
    for degree in range(1, top + 1):
        up_to[degree] += up_to[degree - 1]
    return sum(up_to[degree] for degree in above)


def coupling_layers(features: int, hidden: Sequence[int], parameters: int = 2) -> list[int]:
    """The number of weights in each layer of the dense network of one coupling that keeps half of the coordinates
    (rounded down)."""
    kept = features // 2
    sizes = [kept, *hidden, parameters * (features - kept)]
    return [lower * upper for lower, upper in pairwise(sizes)]


def coupling_weights(features: int, hidden: Sequence[int], parameters: int = 2) -> int:
    """The sum of `coupling_layers`."""
    return sum(coupling_layers(features, hidden, parameters))


def map_parameters(family: str) -> int:
    """The number of values that a network computes for one coordinate: shift and scale, or widths, heights and inner
    slopes."""
    return 3 * BINS - 1 if family in SPLINES else 2


def existing_layers(family: str, features: int, hidden: Sequence[int]) -> list[int]:
    """The number of weights in each layer of one transform's network."""
    if family == "maf_residual":
        hidden = [hidden[0], *(width for width in hidden for _ in range(2))]
    layers_of = coupling_layers if family in COUPLINGS else masked_layers
    return layers_of(features, hidden, map_parameters(family))


def existing_weights(family: str, features: int, hidden: Sequence[int], transforms: int) -> int:
    """The number of weights of all networks; 0 for families without networks, whose few parameters move hardly any
    memory."""
    return 0 if family in (*VECTORS, *KERNELS) else transforms * sum(existing_layers(family, features, hidden))


def needed_flops(
    family: str, features: int, hidden: Sequence[int], transforms: int, rows: int, verb: str = "log_prob"
) -> int:
    """The operations of the existing weights, each used once a row: the least that any direction needs.

    For planar and radial transforms, the sum over the coordinates and the coordinates' move count; for dual ascent, the
    rotations; for a causal network, its weights, once a step.

    A training step uses weights three times: forward, for the gradient of the units below, and for the weights'
    gradient. The gradient of the data is not needed, so that the first layer of the transform that reads the data is
    used twice.
    """
    if family in VECTORS:
        flops = VECTOR_FLOPS[family] * features * transforms * rows
        return 3 * flops if verb == "fit_to_normal" else flops
    if family == "wavenet":
        return 2 * rows * features * wavenet_weights(transforms)
    if family in KERNELS:
        return 0 if family == "coupling_map" else 2 * features**2 * transforms * rows
    layers = existing_layers(family, features, hidden)
    uses = transforms * sum(layers)
    if verb == "train":
        uses = 3 * uses - layers[0]
    return 2 * rows * uses


def wavenet_weights(layers: int, channels: int = 32, outputs: int = 31) -> int:
    """The number of weights in products of `hr.WaveNet` with two taps, as many skip units as channels and two inputs a
    step."""
    each = 2 * channels * 2 * channels + 2 * channels**2
    return layers * each - channels**2 + 2 * 2 * channels + channels**2 + channels * outputs


# Operations for a coordinate: a product and an addition for the sum and for the move; a radial transform also subtracts
# its center before the sum and the move.
VECTOR_FLOPS = {"planar": 4, "radial": 6}

# Vector operations of one transform for a row that belong to no coordinate, counted in planar.hpp and radial.hpp of
# cpp/math/vector_maps, where a division or square root counts as eight: tanh and its slope, or the distance and the
# stretch; the determinant; the product.
VECTOR_OPERATIONS = {"planar": 35, "radial": 32}

# Vector operations of one map for a coordinate, counted in cpp/maps, where a division, square root or exponential
# counts as eight; for a step of an ascent with its logarithms and sums, those in cpp/kernels/dual_ascent-inl.hpp. An
# ascent flow's maps are formulas in the direction to latent.
ELEMENT_OPERATIONS = {
    "coupling_map": {"forward": 21, "inverse": 21},
    "dual_ascent": {"forward": 56, "inverse": 22},
    "ascent": {"forward": 37},
}

PLANAR = Workload("planar", 16, (), 32, "forward", 100_000, aim=15)
RADIAL = replace(PLANAR, family="radial")
MAF_64 = Workload("maf", 64, (256, 256), 5, "log_prob", 10_000, aim=2.4)
MAF_43 = Workload("maf", 43, (512, 512), 5, "log_prob", 10_000, aim=2.4)
IAF_64 = Workload("iaf", 64, (256, 256), 5, "log_prob", 10_000, aim=140)
MAF_784 = Workload("maf", 784, (1024,), 5, "sample", 100, aim=800)
REALNVP_64 = Workload("realnvp", 64, (256, 256), 8, "log_prob", 10_000, aim=1.25)
REALNVP_2 = Workload("realnvp", 2, (64, 64), 8, "log_prob", 100_000, aim=2.2)
RESIDUAL_43 = Workload("maf_residual", 43, (256, 256), 5, "log_prob", 1000, aim=2.2)
NSF_16 = Workload("nsf", 16, (128, 128), 5, "log_prob", 10_000, aim=4)

WORKLOADS: tuple[Workload, ...] = (
    MAF_64,
    replace(MAF_64, rows=100, aim=3),
    replace(MAF_64, rows=1, aim=8),
    MAF_43,
    replace(MAF_43, verb="sample", aim=95),
    replace(MAF_43, verb="sample", rows=100, aim=80),
    replace(MAF_43, verb="sample", rows=1, aim=40),
    replace(MAF_64, verb="sample", aim=140),
    RESIDUAL_43,
    replace(RESIDUAL_43, verb="sample", rows=100, aim=80),
    replace(RESIDUAL_43, verb="train", aim=2),
    IAF_64,
    MAF_784,
    REALNVP_64,
    replace(REALNVP_64, verb="sample", aim=1.5),
    *(
        replace(REALNVP_64, verb=verb, rows=rows, aim=aim)
        for rows, aim in ((100, 2), (1, 8))
        for verb in ("log_prob", "sample")
    ),
    REALNVP_2,
    replace(REALNVP_2, verb="sample"),
    replace(NSF_16, family="nsf_coupling", aim=1.7),
    NSF_16,
    replace(NSF_16, verb="sample", aim=60),
    Workload("maf", 6, (100, 100), 5, "train", 512, aim=3.5),
    replace(MAF_43, verb="train", rows=100, aim=2.8),
    replace(MAF_43, verb="train", rows=1000, aim=2.5),
    replace(REALNVP_64, verb="train", rows=1000, aim=1.4),
    *(
        replace(model, verb=verb, rows=rows, aim=aim)
        for model in (PLANAR, RADIAL)
        for verb, rows, aim in (
            ("forward", 100_000, 15),
            ("forward", 1, 1),
            ("inverse", 100_000, 1),
            ("fit_to_normal", 1000, 1),
        )
    ),
)

# The largest ratio of the time of sampling, random numbers included, to that of the density of the same flow.
SEQUENTIAL_LIMIT = 1.15

# The inverse of a planar transform is the root of an equation; the inverse of a radial transform takes one more square
# root.
VECTOR_LIMITS = {"planar": 4.0, "radial": 2.0}

RATIOS: tuple[Ratio, ...] = (
    *(Ratio(replace(model, verb="sample"), model, SEQUENTIAL_LIMIT) for model in (MAF_64, MAF_43)),
    *(Ratio(replace(model, verb="inverse"), model, VECTOR_LIMITS[model.family]) for model in (PLANAR, RADIAL)),
)

# The shapes of masked transforms that bench_masked.py times: features, hidden sizes.
MASKED_SHAPES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (6, (100, 100)),
    (43, (512, 512)),
    (64, (256, 256)),
    (784, (1024,)),
)

# The shapes of couplings that bench_coupling.py times: features, hidden sizes.
COUPLING_SHAPES: tuple[tuple[int, tuple[int, ...]], ...] = ((2, (64, 64)), (64, (256, 256)))

# The shapes of flows of couplings that bench_links.py times with each kind of link: features, hidden sizes, transforms.
LINK_SHAPES: tuple[tuple[int, tuple[int, ...], int], ...] = ((64, (64, 64), 8), (64, (256, 256), 8), (8, (64, 64), 8))


def linear_weights(features: int) -> int:
    """The number of multiplications of a row with the two triangular factors and the diagonal of a linear link."""
    return features**2
