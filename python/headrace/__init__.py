"""headrace: normalising flows whose densities and samples each cost one pass of the networks.

This package imports flows and their parts at once, and every other module on first use.
"""

from typing import TYPE_CHECKING, Any

from headrace import _core, transforms
from headrace._base.moved import NAMES, PUBLIC, find_moved_modules, warn_of
from headrace._core import CudaUnavailable
from headrace._flow.bases import Base, Logistic, Normal, StandardNormal
from headrace._flow.flow import Conditional, Flow
from headrace._flow.flows import IAF, MAF, NSF, PlanarFlow, RadialFlow, RealNVP
from headrace._flow.tails import Independent, NormalMixture, StudentT, Uniform
from headrace._flow.transforms.network import Layer, Network
from headrace.config import get_num_threads, info, set_num_threads, threads
from headrace.files import FileFormatError, to_bytes

if TYPE_CHECKING:
    from headrace import ascent as ascent
    from headrace import choosing as choosing
    from headrace import continuum as continuum
    from headrace import convert as convert
    from headrace import dask as dask
    from headrace import densities as densities
    from headrace import diagnosis as diagnosis
    from headrace import distributed as distributed
    from headrace import ops as ops
    from headrace import plot as plot
    from headrace import rows as rows
    from headrace import sequences as sequences
    from headrace import sklearn as sklearn
    from headrace import torch as torch
    from headrace import training as training
    from headrace import variational as variational
    from headrace._fit.ensemble import Ensemble, fit_many
    from headrace._tables.density import TableDensity as TableDensity
    from headrace._tables.density import from_bytes, load
    from headrace._tables.mixed import MixedDensity as MixedDensity
    from headrace.ascent.dual_ascent import DualAscentFlow
    from headrace.choosing import auto
    from headrace.diagnosis import diagnose, diagnose_sequences, recalibrate
    from headrace.integrations._accelerate import accelerate as accelerate
    from headrace.integrations._accelerate import restore as restore
    from headrace.integrations._libraries import accelerate_libraries as accelerate_libraries
    from headrace.sequences.convolution import CausalConvolution
    from headrace.sequences.flow import SequenceFlow
    from headrace.sequences.prediction import AdaptivePrediction, LinearPrediction
    from headrace.sequences.wavenet import WaveNet
    from headrace.training import Adam, Muon
    from headrace.variational.distill import distill
    from headrace.variational.fit import fit_to_density, free_energy
    from headrace.variational.over_time import distill_sequences

find_moved_modules()
__version__: str = _core.cpu.__version__

__all__ = [
    "IAF",
    "MAF",
    "NSF",
    "Adam",
    "AdaptivePrediction",
    "Base",
    "CausalConvolution",
    "Conditional",
    "CudaUnavailable",
    "DualAscentFlow",
    "Ensemble",
    "FileFormatError",
    "Flow",
    "Independent",
    "Layer",
    "LinearPrediction",
    "Logistic",
    "Muon",
    "Network",
    "Normal",
    "NormalMixture",
    "PlanarFlow",
    "RadialFlow",
    "RealNVP",
    "SequenceFlow",
    "StandardNormal",
    "StudentT",
    "Uniform",
    "WaveNet",
    "accelerate",
    "auto",
    "densities",
    "diagnose",
    "diagnose_sequences",
    "distill",
    "distill_sequences",
    "fit_many",
    "fit_to_density",
    "free_energy",
    "from_bytes",
    "get_num_threads",
    "info",
    "load",
    "ops",
    "recalibrate",
    "rows",
    "set_num_threads",
    "threads",
    "to_bytes",
    "transforms",
]

_LATER = {
    "integrations._accelerate": ("accelerate", "restore"),
    "integrations._libraries": ("accelerate_libraries",),
    "_tables.density": ("TableDensity", "from_bytes", "load"),
    "_tables.mixed": ("MixedDensity",),
    "ascent.dual_ascent": ("DualAscentFlow",),
    "choosing": ("auto",),
    "diagnosis": ("diagnose", "diagnose_sequences", "recalibrate"),
    "_fit.ensemble": ("Ensemble", "fit_many"),
    "sequences.convolution": ("CausalConvolution",),
    "sequences.flow": ("SequenceFlow",),
    "sequences.prediction": ("AdaptivePrediction", "LinearPrediction"),
    "sequences.wavenet": ("WaveNet",),
    "training": ("Adam", "Muon"),
    "variational.distill": ("distill",),
    "variational.fit": ("fit_to_density", "free_energy"),
    "variational.over_time": ("distill_sequences",),
}
"""Public names by the module that is imported when one of them is first used."""
_MODULE_OF = {name: module for module, names in _LATER.items() for name in names}
_MODULES = (
    "ascent choosing continuum convert dask densities diagnosis distributed jax ops plot rows sequences "
    "sklearn torch training transforms variational"
)
"""Public modules that are imported on first use."""
_INSTEAD = {
    "FlowDensity": "sklearn.FlowDensity",
    "FlowModule": "torch.FlowModule, or headrace.jax.FlowModule",
    "MaskedAutoregressiveFlow": "MAF",
    "NeuralSplineFlow": "NSF",
}
"""Names that users may try here, and the names of the objects that they mean."""


def __getattr__(name: str) -> Any:
    """A module of this package, or an object of such a module, imported on first use."""
    import importlib

    if name in _MODULES.split() or f"headrace.{name}" in PUBLIC:
        return importlib.import_module(f"headrace.{name}")
    if name in NAMES or name in transforms.__all__:
        place = f"headrace.{NAMES.get(name, 'transforms')}"
        warn_of(f"headrace.{name}", f"{place}.{name}")
        return getattr(importlib.import_module(place), name)
    if name not in _MODULE_OF:
        instead = f"; it is headrace.{_INSTEAD[name]}" if name in _INSTEAD else ""
        raise AttributeError(f"module 'headrace' has no attribute {name!r}{instead}")
    value = getattr(importlib.import_module(f"headrace.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names, and the public modules that need no import statement."""
    return sorted({*__all__, *_MODULES.split(), "__version__"})
