"""headrace: normalising flows at one network pass in both directions.

Flows and their parts are imported at once, all that lies above them when it is first used.
"""

from typing import TYPE_CHECKING, Any

from headrace import _core
from headrace._base.moved import PUBLIC, find_moved_modules
from headrace._core import CudaUnavailable
from headrace._flow.bases import Base, Logistic, Normal, StandardNormal
from headrace._flow.conditional import Conditional
from headrace._flow.flow import Flow
from headrace._flow.flows import IAF, MAF, NSF, PlanarFlow, RadialFlow, RealNVP
from headrace._flow.tails import Independent, NormalMixture, StudentT, Uniform
from headrace._flow.transforms.act_norm import ActNorm
from headrace._flow.transforms.elementwise import Elementwise
from headrace._flow.transforms.fixed import Permutation, Standardize
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.inverse import Inverse
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.masked import Coupling, MaskedAutoregressive
from headrace._flow.transforms.network import Layer, Network
from headrace._flow.transforms.on_columns import OnColumns
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.support import Support
from headrace._flow.transforms.transform import Transform
from headrace._flow.transforms.vector import Planar, Radial
from headrace.config import get_num_threads, include, info, set_num_threads, threads
from headrace.files import FileFormatError, to_bytes

if TYPE_CHECKING:
    from headrace import ascent as ascent
    from headrace import continuum as continuum
    from headrace import convert as convert
    from headrace import dask as dask
    from headrace import densities as densities
    from headrace import distributed as distributed
    from headrace import ops as ops
    from headrace import plot as plot
    from headrace import rows as rows
    from headrace import sequences as sequences
    from headrace import sklearn as sklearn
    from headrace import torch as torch
    from headrace import training as training
    from headrace import variational as variational
    from headrace._fit.ensemble import Ensemble
    from headrace._fit.many import fit_many
    from headrace._tables.density import TableDensity as TableDensity
    from headrace._tables.density import from_bytes, load
    from headrace.ascent.dual_ascent import DualAscentFlow
    from headrace.ascent.flow import AscentFlow, AscentHistory
    from headrace.choosing import Choice, auto
    from headrace.diagnosis import Diagnosis, SequenceDiagnosis, diagnose, recalibrate
    from headrace.integrations._accelerate import accelerate as accelerate
    from headrace.sequences.continuation import Continuation
    from headrace.sequences.convolution import CausalConvolution
    from headrace.sequences.flow import SequenceFlow
    from headrace.sequences.prediction import LinearPrediction
    from headrace.sequences.stream import Stream
    from headrace.sequences.wavenet import WaveNet
    from headrace.training import Adam, History, Muon
    from headrace.variational.descent import StepHistory
    from headrace.variational.distill import Distillation, Speed, distill
    from headrace.variational.fit import DensityFit, FreeEnergy, fit_to_density, free_energy
    from headrace.variational.over_time import SequenceDistillation

find_moved_modules()
__version__: str = _core.cpu.__version__

__all__ = [
    "IAF",
    "MAF",
    "NSF",
    "ActNorm",
    "Adam",
    "AscentFlow",
    "AscentHistory",
    "Base",
    "CausalConvolution",
    "Choice",
    "Conditional",
    "Continuation",
    "Coupling",
    "CudaUnavailable",
    "DensityFit",
    "Diagnosis",
    "Distillation",
    "DualAscentFlow",
    "Elementwise",
    "Ensemble",
    "FileFormatError",
    "Flow",
    "FreeEnergy",
    "Gaussianize",
    "History",
    "Independent",
    "Inverse",
    "Layer",
    "Linear",
    "LinearPrediction",
    "Logistic",
    "MaskedAutoregressive",
    "Muon",
    "Network",
    "Normal",
    "NormalMixture",
    "OnColumns",
    "Permutation",
    "Planar",
    "PlanarFlow",
    "Radial",
    "RadialFlow",
    "RealNVP",
    "Rotation",
    "SequenceDiagnosis",
    "SequenceDistillation",
    "SequenceFlow",
    "Speed",
    "StandardNormal",
    "Standardize",
    "StepHistory",
    "Stream",
    "StudentT",
    "Support",
    "Transform",
    "Uniform",
    "WaveNet",
    "auto",
    "densities",
    "diagnose",
    "distill",
    "fit_many",
    "fit_to_density",
    "free_energy",
    "from_bytes",
    "get_num_threads",
    "include",
    "info",
    "load",
    "ops",
    "recalibrate",
    "rows",
    "set_num_threads",
    "threads",
    "to_bytes",
]

_LATER = {
    "integrations._accelerate": ("accelerate",),
    "_tables.density": ("TableDensity", "from_bytes", "load"),
    "ascent.dual_ascent": ("DualAscentFlow",),
    "ascent.flow": ("AscentFlow", "AscentHistory"),
    "choosing": ("Choice", "auto"),
    "diagnosis": ("Diagnosis", "SequenceDiagnosis", "diagnose", "recalibrate"),
    "_fit.ensemble": ("Ensemble",),
    "_fit.many": ("fit_many",),
    "sequences.continuation": ("Continuation",),
    "sequences.convolution": ("CausalConvolution",),
    "sequences.flow": ("SequenceFlow",),
    "sequences.prediction": ("LinearPrediction",),
    "sequences.stream": ("Stream",),
    "sequences.wavenet": ("WaveNet",),
    "training": ("Adam", "History", "Muon"),
    "variational.descent": ("StepHistory",),
    "variational.distill": ("Distillation", "Speed", "distill"),
    "variational.fit": ("DensityFit", "FreeEnergy", "fit_to_density", "free_energy"),
    "variational.over_time": ("SequenceDistillation",),
}
"""Public names by the modules that are imported when one of them is first used."""
_MODULE_OF = {name: module for module, names in _LATER.items() for name in names}
_MODULES = (
    "ascent choosing continuum convert dask densities diagnosis distributed jax ops plot rows sequences "
    "sklearn torch training variational"
)
"""Public modules that are imported when they are first used."""


def __getattr__(name: str) -> Any:
    """Import what lies above flows when it is first used."""
    import importlib

    if name in _MODULES.split() or f"headrace.{name}" in PUBLIC:
        return importlib.import_module(f"headrace.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"headrace.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names, and the public modules that can be used without an import of their own."""
    return sorted({*__all__, *_MODULES.split(), "__version__"})
