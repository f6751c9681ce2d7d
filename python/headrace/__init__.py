"""headrace: normalising flows at one network pass in both directions."""

from typing import TYPE_CHECKING, Any

from headrace import _core, densities, ops, rows
from headrace import _effort as _effort
from headrace._core import CudaUnavailable
from headrace._loading import from_bytes, load
from headrace.ascent.dual_ascent import DualAscentFlow
from headrace.ascent.flow import AscentFlow, AscentHistory
from headrace.bases import Base, Logistic, Normal, StandardNormal
from headrace.conditional import Conditional
from headrace.config import get_num_threads, include, info, set_num_threads, threads
from headrace.ensemble import Ensemble
from headrace.files import FileFormatError, to_bytes
from headrace.flow import Flow
from headrace.flows import IAF, MAF, NSF, PlanarFlow, RadialFlow, RealNVP
from headrace.many import fit_many
from headrace.network import Layer, Network
from headrace.sequences.continuation import Continuation
from headrace.sequences.convolution import CausalConvolution
from headrace.sequences.flow import SequenceFlow
from headrace.sequences.prediction import LinearPrediction
from headrace.sequences.stream import Stream
from headrace.sequences.wavenet import WaveNet
from headrace.tails import Independent, NormalMixture, StudentT, Uniform
from headrace.training import Adam, History, Muon
from headrace.transforms.act_norm import ActNorm
from headrace.transforms.elementwise import Elementwise
from headrace.transforms.fixed import Permutation, Standardize
from headrace.transforms.gaussianize import Gaussianize
from headrace.transforms.inverse import Inverse
from headrace.transforms.linear import Linear
from headrace.transforms.masked import Coupling, MaskedAutoregressive
from headrace.transforms.on_columns import OnColumns
from headrace.transforms.rotation import Rotation
from headrace.transforms.support import Support
from headrace.transforms.transform import Transform
from headrace.transforms.vector import Planar, Radial
from headrace.variational.descent import StepHistory
from headrace.variational.distill import Distillation, Speed, distill
from headrace.variational.fit import DensityFit, FreeEnergy, fit_to_density, free_energy
from headrace.variational.over_time import SequenceDistillation

if TYPE_CHECKING:
    from headrace import continuum as continuum
    from headrace import convert as convert
    from headrace import dask as dask
    from headrace import distributed as distributed
    from headrace import plot as plot
    from headrace import sklearn as sklearn
    from headrace import torch as torch
    from headrace._accelerate import accelerate as accelerate
    from headrace.choosing import Choice, auto
    from headrace.diagnosis import Diagnosis, SequenceDiagnosis, diagnose, recalibrate

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


def __getattr__(name: str) -> Any:
    """Import on first use the modules that need SciPy or JAX, and those that few programs use."""
    import importlib

    if name in ("continuum", "convert", "dask", "diagnosis", "distributed", "jax", "plot", "sklearn", "torch"):
        return importlib.import_module(f"headrace.{name}")
    if name in _LATER:
        return getattr(importlib.import_module(f"headrace.{_LATER[name]}"), name)
    raise AttributeError(f"module 'headrace' has no attribute {name!r}")


_LATER = {
    "accelerate": "_accelerate",
    "Choice": "choosing",
    "Diagnosis": "diagnosis",
    "SequenceDiagnosis": "diagnosis",
    "auto": "choosing",
    "diagnose": "diagnosis",
    "recalibrate": "diagnosis",
}
