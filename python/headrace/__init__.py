"""headrace: normalising flows at one network pass in both directions."""

from headrace import densities, ops
from headrace._core import cpu as _cpu_module
from headrace.bases import Base, Logistic, Normal, StandardNormal
from headrace.config import get_num_threads, info, set_num_threads
from headrace.distillation import Distillation, Speed, distill
from headrace.flow import Flow
from headrace.flows import IAF, MAF, NSF, RealNVP
from headrace.training import Adam, History
from headrace.transforms import Coupling, Inverse, MaskedAutoregressive, Permutation, Standardize, Transform
from headrace.variational import DensityFit, FreeEnergy, fit_to_density, free_energy

__version__: str = _cpu_module.__version__

__all__ = [
    "IAF",
    "MAF",
    "NSF",
    "Adam",
    "Base",
    "Coupling",
    "DensityFit",
    "Distillation",
    "Flow",
    "FreeEnergy",
    "History",
    "Inverse",
    "Logistic",
    "MaskedAutoregressive",
    "Normal",
    "Permutation",
    "RealNVP",
    "Speed",
    "StandardNormal",
    "Standardize",
    "Transform",
    "densities",
    "distill",
    "fit_to_density",
    "free_energy",
    "get_num_threads",
    "info",
    "ops",
    "set_num_threads",
]
