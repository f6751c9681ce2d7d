"""headrace: normalising flows at one network pass in both directions."""

from typing import TYPE_CHECKING, Any

from headrace import _core, densities, ops
from headrace._core import CudaUnavailable
from headrace._descent import StepHistory
from headrace.ascent_flow import AscentFlow, AscentHistory
from headrace.bases import Base, Logistic, Normal, StandardNormal
from headrace.config import get_num_threads, info, set_num_threads, threads
from headrace.distillation import Distillation, Speed, distill
from headrace.dual_ascent import DualAscentFlow
from headrace.elementwise import Elementwise
from headrace.files import FileFormatError, from_bytes, load, to_bytes
from headrace.flow import Flow
from headrace.flows import IAF, MAF, NSF, PlanarFlow, RadialFlow, RealNVP
from headrace.rotation import Rotation
from headrace.training import Adam, History
from headrace.transforms import Coupling, Inverse, MaskedAutoregressive, Permutation, Standardize, Transform
from headrace.variational import DensityFit, FreeEnergy, fit_to_density, free_energy
from headrace.vector_transforms import Planar, Radial

if TYPE_CHECKING:
    from headrace import continuum as continuum

__version__: str = _core.cpu.__version__

__all__ = [
    "IAF",
    "MAF",
    "NSF",
    "Adam",
    "AscentFlow",
    "AscentHistory",
    "Base",
    "Coupling",
    "CudaUnavailable",
    "DensityFit",
    "Distillation",
    "DualAscentFlow",
    "Elementwise",
    "FileFormatError",
    "Flow",
    "FreeEnergy",
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
    "Speed",
    "StandardNormal",
    "Standardize",
    "StepHistory",
    "Transform",
    "densities",
    "distill",
    "fit_to_density",
    "free_energy",
    "from_bytes",
    "get_num_threads",
    "info",
    "load",
    "ops",
    "set_num_threads",
    "threads",
    "to_bytes",
]


def __getattr__(name: str) -> Any:
    """`continuum` and `jax` on first use: they alone need SciPy and JAX."""
    if name in ("continuum", "jax"):
        import importlib

        return importlib.import_module(f"headrace.{name}")
    raise AttributeError(f"module 'headrace' has no attribute {name!r}")
