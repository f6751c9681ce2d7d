"""Transforms, which are the parts of a `headrace.Flow` and map rows from latent to data and back."""

from headrace._flow.transforms.act_norm import ActNorm
from headrace._flow.transforms.around import Inverse
from headrace._flow.transforms.elementwise import Elementwise
from headrace._flow.transforms.fixed import Permutation, Standardize
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.masked import Coupling, MaskedAutoregressive
from headrace._flow.transforms.on_columns import OnColumns
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.support import Support
from headrace._flow.transforms.transform import Transform
from headrace._flow.transforms.vector import Planar, Radial

__all__ = [
    "ActNorm",
    "Coupling",
    "Elementwise",
    "Gaussianize",
    "Inverse",
    "Linear",
    "MaskedAutoregressive",
    "OnColumns",
    "Permutation",
    "Planar",
    "Radial",
    "Rotation",
    "Standardize",
    "Support",
    "Transform",
]
