"""Densities of sequences: causal convolutions over time, flows of such convolutions, and streams."""

from headrace.sequences.continuation import Continuation, Forecast
from headrace.sequences.convolution import CausalConvolution
from headrace.sequences.flow import SequenceFlow
from headrace.sequences.prediction import AdaptivePrediction, LinearPrediction
from headrace.sequences.stream import Stream
from headrace.sequences.wavenet import WaveNet

__all__ = [
    "AdaptivePrediction",
    "CausalConvolution",
    "Continuation",
    "Forecast",
    "LinearPrediction",
    "SequenceFlow",
    "Stream",
    "WaveNet",
]
