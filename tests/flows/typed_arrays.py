"""Types of results for mypy and pyright: a result has the type of the arrays in the call."""

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import assert_type

import headrace as hr

Tables: TypeAlias = hr.MixedDensity | hr.TableDensity
OverTime: TypeAlias = hr.SequenceFlow | hr.CausalConvolution | hr.LinearPrediction


def accepted(x: NDArray[np.float32], y: NDArray[np.float64], params: NDArray[np.float32], flow: hr.Flow) -> None:
    assert_type(flow.log_prob(x), NDArray[np.float32])
    assert_type(flow.log_prob(y), NDArray[np.float64])
    assert_type(flow.to_latent(x), tuple[NDArray[np.float32], NDArray[np.float32]])
    assert_type(flow.to_data(x), tuple[NDArray[np.float32], NDArray[np.float32]])
    assert_type(flow.sample(5), NDArray[Any])
    assert_type(flow.sample(5, x, seed=1), NDArray[np.float32])
    assert_type(hr.Ensemble([flow]).log_prob(x), NDArray[np.float32])
    assert_type(flow.log_prob(x.astype(np.int64)), NDArray[Any])
    assert_type(flow.log_prob(x > 0), NDArray[Any])
    assert_type(flow.log_prob([[1.0, 2.0], [3, 4]]), NDArray[Any])
    assert_type(flow.to_latent([[1.0, 2.0]]), tuple[NDArray[Any], NDArray[Any]])
    assert_type(flow.to_data(x.astype(np.int32)), tuple[NDArray[Any], NDArray[Any]])
    assert_type(flow.sample(5, 3), NDArray[Any])
    assert_type(flow.sample(5, [[0.0]] * 5), NDArray[Any])
    assert_type(hr.Ensemble([flow]).log_prob([[1.0]]), NDArray[Any])
    assert_type(flow.feature_names, tuple[str, ...] | None)
    hr.NSF(["age", "mass"], bounds={"mass": (0.0, None)}, periodic={0: (0.0, 1.0)})
    assert_type(hr.load("path"), hr.Flow | hr.Ensemble | Tables | hr.transforms.Transform | OverTime)
    assert_type(hr.Flow.load("path").log_prob(x), NDArray[np.float32])
    assert_type(hr.MAF.load("path"), hr.MAF)
    assert_type(hr.Ensemble.load("path"), hr.Ensemble)
    assert_type(hr.SequenceFlow.load("path"), hr.SequenceFlow)
    assert_type(hr.TableDensity.load("path"), hr.TableDensity)
    assert_type(hr.diagnose(flow, x, training=x), hr.diagnosis.Diagnosis)
    assert_type(hr.diagnose(hr.auto(x), x), hr.diagnosis.Diagnosis)
    assert_type(hr.diagnose_sequences(hr.WaveNet(), x), hr.diagnosis.SequenceDiagnosis)
    value, log_det = hr.ops.coupling(x, params)
    hr.ops.coupling_vjp(x, params, value, log_det)


def tensors(t: torch.Tensor, flow: hr.Flow) -> None:
    result: torch.Tensor = flow.log_prob(t)
    z, log_det = flow.to_latent(t)
    both: tuple[torch.Tensor, torch.Tensor] = (z, log_det)
    draws: torch.Tensor = flow.sample(3, t)
    hr.ops.coupling(result, both[0])
    hr.ops.coupling(draws, both[1])


def refused(flow: hr.Flow) -> None:
    flow.log_prob("rows")  # type: ignore[call-overload]
    flow.sample(5, random_state=0)  # type: ignore[call-overload]
    flow.to_latent("x")  # type: ignore[call-overload]
    hr.ops.coupling([1.0], [2.0])  # type: ignore[type-var]
    hr.diagnose(hr.WaveNet(), 0, training=0)  # type: ignore[arg-type]
    hr.load("path").log_prob(np.zeros(3))  # type: ignore[union-attr]
