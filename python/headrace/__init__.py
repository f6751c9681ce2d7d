"""headrace: normalising flows at one network pass in both directions."""

from headrace import ops
from headrace._core import cpu as _cpu_module
from headrace.bases import Base, Logistic, Normal, StandardNormal
from headrace.config import get_num_threads, info, set_num_threads
from headrace.dual_ascent import AscentFlow, AscentHistory, DualAscentFlow
from headrace.elementwise import Elementwise
from headrace.files import FileFormatError, load
from headrace.flow import Flow
from headrace.flows import IAF, MAF, NSF, PlanarFlow, RadialFlow, RealNVP
from headrace.rotation import Rotation
from headrace.training import Adam, History
from headrace.transforms import Coupling, Inverse, MaskedAutoregressive, Permutation, Standardize, Transform
from headrace.vector_transforms import Planar, Radial

__version__: str = _cpu_module.__version__

__all__ = [
    "IAF",
    "MAF",
    "NSF",
    "Adam",
    "AscentFlow",
    "AscentHistory",
    "Base",
    "Coupling",
    "DualAscentFlow",
    "Elementwise",
    "FileFormatError",
    "Flow",
    "History",
    "Inverse",
    "Logistic",
    "MaskedAutoregressive",
    "Normal",
    "Permutation",
    "Planar",
    "PlanarFlow",
    "Radial",
    "RadialFlow",
    "RealNVP",
    "Rotation",
    "StandardNormal",
    "Standardize",
    "Transform",
    "get_num_threads",
    "info",
    "load",
    "ops",
    "set_num_threads",
]
