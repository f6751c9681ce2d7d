"""Fits of flows to unnormalised densities, and distillation of flows that sample slowly into fast students."""

from headrace.variational.descent import StepHistory
from headrace.variational.distill import Distillation, Speed
from headrace.variational.fit import DensityFit, FreeEnergy
from headrace.variational.over_time import SequenceDistillation

__all__ = ["DensityFit", "Distillation", "FreeEnergy", "SequenceDistillation", "Speed", "StepHistory"]
