"""Derivatives of flows of sequences: gradients from one run forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._arrays.caller import Array
from headrace._base.moved import renamed
from headrace._fit.optimizer import VectorAdam, VectorMuon
from headrace._flow.program.evaluation import WRT, kinds_of
from headrace.sequences.program import slices
from headrace.sequences.runs import Backward
from headrace.sequences.sequential import Sequential

if TYPE_CHECKING:
    from headrace.sequences.runs import Run

_KINDS = ("inputs", "parameters", "context", "covariates")
Gradients = tuple[Any, ...]
Given = Array | Sequence[Array]
MOST_OF_MATRIX = 2**15  # matrices for Muon have fewer rows and fewer columns


class SequenceDerivatives(Sequential):
    """The derivatives of a `SequenceFlow`.

    In the direction in which a `CausalConvolution` computes all steps at once, data to latent if it reads data and
    latent to data if it reads latent values, gradients are computed in windows of steps. In the sequential direction,
    steps are computed one after another, and gradients from the last step to the first.
    """

    _run_of: Callable[..., Run]
    _refuse_device: Callable[[str], None]

    def _optimiser(self, *options: float, momentum: float | None = None) -> VectorAdam:
        """The optimiser in NumPy: Muon with a `momentum`, else Adam; weight decay is for matrices of networks.

        For Muon, the matrix of a convolution has a row for each unit, and a column for each input and tap. The
        parameters of an inner flow are updated by Adam.
        """
        self._refuse_device("flow")
        decays, blocks = np.zeros(self._program.n_weights, bool), [block for _, block in self._blocks()]
        matrices = []
        for block, part in zip(blocks, slices(*(block.size for block in blocks)), strict=True):
            if getattr(block, "is_network", False):
                indices = block.named(np.arange(part.start, part.stop, dtype=np.float64))  # exact below 2^53
                named = {name: np.full_like(array, array.ndim > 1, self._dtype) for name, array in indices.items()}
                decays[part] = block.pack_named(named) != 0
                if getattr(block, "has_dense_matrices", False):
                    weights = (array for array in indices.values() if array.ndim > 1)
                    matrices += [array.reshape(len(array), -1).astype(np.intp) for array in weights]
        if momentum is None:
            return VectorAdam(self, decays, *options)
        if (most := max((max(matrix.shape) for matrix in matrices), default=0)) >= MOST_OF_MATRIX:
            raise ValueError(f"flow: expected fewer than {MOST_OF_MATRIX} inputs times taps for Muon, got {most}")
        return VectorMuon(self, matrices, momentum, decays, *options)

    def log_prob_vjp(
        self,
        x: Given,
        grad_log_prob: Array,
        context: Array | None = None,
        covariates: Given | None = None,
        *,
        lengths: Sequence[int] | None = None,
        wrt: Sequence[str] = WRT,
        parameters: Array | None = None,
        values: bool = False,
    ) -> Gradients:
        """Vector-Jacobian product of `log_prob`: gradients of a scalar from its gradient with respect to log densities.

        Apart from the results, memory does not grow with the number of sequences: each sequence is computed in parts,
        and values of layers are stored only at the end of each part. Gradients have the same bits for any number of
        threads, and the gradient of a sequence's values has the same bits whatever the other sequences are.

        Args:
            x, context, covariates, lengths, parameters: As in `log_prob`.
            grad_log_prob: The gradient with respect to log densities of sequences, shape (rows,), or of steps, (rows,
                steps), with zero for steps that are only the past of others.
            wrt: The gradients to return, in this order: "inputs", in the shape of x; "parameters", (n,) as in
                `parameters`; "context" and "covariates", in their shapes. The gradient of an array that sequences share
                is the sum over them.
            values: Whether to return ``(log_prob, gradients)`` from a single run; `log_prob` has the shape of
                `grad_log_prob`.

        Returns:
            A tuple of arrays, in the dtype of the flow.

        Raises:
            TypeError, ValueError: as in `log_prob`; or a gradient has a wrong shape, or `wrt` has unknown names.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.WaveNet(layers=4, channels=8)
        >>> grad_x, grad_parameters = flow.log_prob_vjp(np.zeros((2, 50, 1)), np.ones(2))
        >>> grad_x.shape, grad_parameters.shape == flow.parameters.shape
        ((2, 50, 1), True)
        >>> log_prob, (grad_x,) = flow.log_prob_vjp(np.zeros((2, 50, 1)), np.ones((2, 50)), wrt="inputs", values=True)
        >>> log_prob.shape
        (2, 50)
        """
        back = self._back(wrt, True, "x", x, context, covariates, parameters, lengths)
        log_prob = back.log_prob("grad_log_prob", grad_log_prob)
        gradients = back.gradients()
        return (log_prob, gradients) if values else gradients

    log_prob_and_vjp = renamed("log_prob_and_vjp", "log_prob_vjp", values=True)

    def log_prob_and_score(
        self,
        x: Given,
        context: Array | None = None,
        covariates: Given | None = None,
        *,
        parameters: Array | None = None,
    ) -> tuple[Array, Any]:
        """``(log_prob, score)``: the log density of each sequence, and its gradient with respect to x, in x's shape.

        >>> import numpy as np, headrace as hr
        >>> flow = hr.WaveNet(layers=4, channels=8)
        >>> log_prob, score = flow.log_prob_and_score(np.zeros((2, 50, 1)))
        >>> log_prob.shape, score.shape
        ((2,), (2, 50, 1))
        """
        back = self._back("inputs", True, "x", x, context, covariates, parameters)
        return back.log_prob("", None), back.gradients()[0]

    def nll_and_grad(
        self,
        x: Given,
        context: Array | None = None,
        covariates: Given | None = None,
        weights: Array | None = None,
        *,
        lengths: Sequence[int] | None = None,
        wrt: Sequence[str] = ("parameters",),
        parameters: Array | None = None,
    ) -> tuple[Any, ...]:
        """The mean negative log-likelihood **of a step** in nats, and its gradient with respect to `parameters`, (n,).

        A step's density depends on at most `field` earlier steps. Crops of long sequences, preceded by `field` steps of
        weight zero, have the same terms and gradients as in the whole sequences.

        Args:
            x, context, covariates, lengths, parameters: As in `log_prob`; at least one sequence.
            weights: Weights of the mean, at least 0, shape (rows,) for sequences, or (rows, steps) for steps.
            wrt: The gradients to return after the mean, in this order; see `log_prob_vjp`.

        >>> import numpy as np, headrace as hr
        >>> flow, x = hr.WaveNet(layers=4, channels=8), np.random.default_rng(0).normal(size=(4, 100, 1))
        >>> nll, gradient = flow.nll_and_grad(x)
        >>> gradient.shape == flow.parameters.shape
        True
        """
        back = self._back(wrt, True, "x", x, context, covariates, parameters, lengths)
        return back.mean("weights", weights), *back.gradients()

    def to_latent_vjp(
        self,
        x: Given,
        grad_z: Given | None,
        grad_log_det: Array | None,
        context: Array | None = None,
        covariates: Given | None = None,
        *,
        wrt: Sequence[str] = WRT,
        parameters: Array | None = None,
    ) -> Gradients:
        """Vector-Jacobian product of `to_latent`.

        Args:
            x, context, covariates, parameters: As in `to_latent`.
            grad_z: The gradient with respect to z, in the shape of z; None for zero.
            grad_log_det: The gradient with respect to log_det, shape (rows,); None for zero.
            wrt: See `log_prob_vjp`.
        """
        back = self._back(wrt, True, "x", x, context, covariates, parameters)
        return back.of_sides("grad_z", grad_z, grad_log_det)

    def to_data_vjp(
        self,
        z: Given,
        grad_x: Given | None,
        grad_log_det: Array | None,
        context: Array | None = None,
        covariates: Given | None = None,
        *,
        wrt: Sequence[str] = WRT,
        parameters: Array | None = None,
    ) -> Gradients:
        """Vector-Jacobian product of `to_data`; see `to_latent_vjp`.

        >>> import numpy as np, headrace as hr
        >>> flow, z = hr.WaveNet(reads="latent", layers=4, channels=8, map="affine"), np.zeros((2, 50, 1))
        >>> grad_z, grad_parameters = flow.to_data_vjp(z, np.ones((2, 50, 1)), None)
        >>> grad_z.shape, grad_parameters.shape == flow.parameters.shape
        ((2, 50, 1), True)
        """
        back = self._back(wrt, False, "z", z, context, covariates, parameters)
        return back.of_sides("grad_x", grad_x, grad_log_det)

    def _back(self, wrt: Any, inverse: bool, *arguments: Any) -> Backward:
        """A `Backward`, which computes the gradients `wrt`, for a call with the given `arguments` of `Run.opened`."""
        kinds = kinds_of(wrt, _KINDS)
        return Backward(self._run_of(*arguments), kinds, inverse)
