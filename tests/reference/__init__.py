"""The reference: normalising flows in float64 NumPy, written from the equations of the lecture notes.

The reference is slow and plain on purpose. The reference shares neither code nor tricks with the library: a direction
in which the conditioner reads its own results is solved by running the whole network once per coordinate.

Conventions: *forward* is latent to data (eq. 26), ``z`` is latent, ``x`` is data, and every call returns the value and
the log-determinant of the direction called.
"""

from .activations import ACTIVATIONS
from .additive_spline import additive_knots
from .autoregressive import MaskedAutoregressive
from .bases import Independent, Logistic, Normal, NormalMixture, StandardNormal, StudentT, Uniform
from .bf16 import RoundedNetwork, parts_of, rounded, rounded_product, rounded_sums, sorted_units
from .causal import CausalFlow, CausalNetwork, CausalTransform, LinearPrediction, PerStep, SequenceFlow
from .coupling import Coupling
from .derivatives import STEP, along, gradient, row_gradient
from .flow import Flow
from .gaussianize import Gaussianize
from .inverse import Inverse
from .jacobian import jacobian, log_det_by_differences
from .linear import Linear
from .maps import MAPS, Map, Options, apply_map, coupling_forward, coupling_inverse
from .mixture import Mixture
from .network import Hidden, Network, reads
from .on_columns import OnColumns
from .permutation import Permutation
from .planar import Planar
from .positive import excess, positive
from .radial import Radial
from .random import philox, philox_block
from .rq_spline import find_bin, spline_bin, spline_knots
from .scales import LOG_SCALES
from .standardize import Standardize
from .support import Support

VECTOR_MAPS = {"planar": Planar, "radial": Radial}

__all__ = [
    "ACTIVATIONS",
    "LOG_SCALES",
    "MAPS",
    "STEP",
    "VECTOR_MAPS",
    "CausalFlow",
    "CausalNetwork",
    "CausalTransform",
    "Coupling",
    "Flow",
    "Gaussianize",
    "Hidden",
    "Independent",
    "Inverse",
    "Linear",
    "LinearPrediction",
    "Logistic",
    "Map",
    "MaskedAutoregressive",
    "Mixture",
    "Network",
    "Normal",
    "NormalMixture",
    "OnColumns",
    "Options",
    "PerStep",
    "Permutation",
    "Planar",
    "Radial",
    "RoundedNetwork",
    "SequenceFlow",
    "StandardNormal",
    "Standardize",
    "StudentT",
    "Support",
    "Uniform",
    "additive_knots",
    "along",
    "apply_map",
    "coupling_forward",
    "coupling_inverse",
    "excess",
    "find_bin",
    "gradient",
    "jacobian",
    "log_det_by_differences",
    "parts_of",
    "philox",
    "philox_block",
    "positive",
    "reads",
    "rounded",
    "rounded_product",
    "rounded_sums",
    "row_gradient",
    "sorted_units",
    "spline_bin",
    "spline_knots",
]
