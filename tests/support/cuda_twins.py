"""A transform or flow of the library as a program of a device, called with NumPy arrays like the library itself.

Checks of the CPU's transforms (cases.check_directions, gradients.check) can be applied to a `Twin`. Every call runs in
one order of the emulation's threads, which the test's name and the commit choose, or in all orders, whose results must
have the same bits (tests/support/cuda_arrays.py).
"""

import copy

import numpy as np
from numpy.testing import assert_array_equal

import cases


class Twin:
    """The transform or flow ``library``, computed by ``device`` (tests/support/cuda_arrays.py)."""

    def __init__(self, device, library, dtype=None, *, matmul="exact"):
        self.device, self.library = device, library
        self.features, self.context = library.features, library.context
        self.dtype = np.dtype(dtype or library.dtype or "float64")
        steps, base, first = library._steps(), "", []
        if (own := library._base_steps()) is not None:
            base, first = own
        core = device.module
        made = [step.made_for(core) for step in (*first, *steps)]
        kind = core.ProgramF32 if self.dtype == np.float32 else core.ProgramF64
        scale = library._context_scale()
        self.program = kind(self.features, self.context, base, made, len(first), *scale, matmul=matmul, device=0)
        self.program.set_host_weights(np.ascontiguousarray(library.parameters, self.dtype))

    def __copy__(self):
        return copy.copy(self.library)

    @property
    def parameters(self):
        return self.library.parameters

    # ---- values and densities

    def forward(self, given, context=None):
        return self.run(given, context, inverse=False)

    def inverse(self, given, context=None):
        return self.run(given, context, inverse=True)

    to_data, to_latent = forward, inverse

    def run(self, given, context=None, *, inverse, parameters=None, wide=False):
        """The results ``(value, log_det)`` of a direction; with ``wide``, the value is float64."""
        arrays = {"input": given, "context": _as_rows(context), "parameters": parameters}
        return self._values("transform", len(given), ("value", "log_det"), arrays, wide, inverse=inverse)

    def log_prob(self, given, context=None):
        return self._values("log_prob", len(given), ("out",), {"x": given, "context": _as_rows(context)})[0]

    def from_noise(self, noise, context=None):
        """The results ``(value, log_prob)`` for given noise."""
        arrays = {"noise": noise, "context": _as_rows(context)}
        return self._values("from_noise", len(noise), ("value", "log_prob"), arrays)

    def sample(self, rows, seed=0, context=None, *, wide=False, first_row=0):
        """The results ``(value, log_prob)`` for random noise that the device draws."""
        arrays = {"context": _as_rows(context)}
        drawn = {"rows": rows, "seed": seed, "first_row": first_row}
        return self._values("sample", rows, ("value", "log_prob"), arrays, wide, **drawn)

    def _values(self, verb, n, names, arrays, wide=False, /, **settings):
        """Call a verb of the program, and return the named results."""
        device, tuples = self.device, self._inputs(**arrays)

        def once():
            outputs = {name: device.empty((n,), self.dtype) for name in names}
            if "value" in names:
                outputs["value"] = device.empty((n, self.features), np.dtype("float64") if wide else self.dtype)
            output_tuples = {name: device.tuple(out) for name, out in outputs.items()}
            getattr(self.program, verb)(**settings, **tuples, **output_tuples, stream=device.stream)
            return [device.numpy(out) for out in outputs.values()]

        return tuple(self._in_each_order(once))

    # ---- gradients

    def forward_vjp(self, given, by_value, by_log_det, context=None, *, wrt):
        return self.vjp(given, context, inverse=False, by_value=by_value, by_row=by_log_det, wrt=wrt)

    def inverse_vjp(self, given, by_value, by_log_det, context=None, *, wrt):
        return self.vjp(given, context, inverse=True, by_value=by_value, by_row=by_log_det, wrt=wrt)

    to_data_vjp, to_latent_vjp = forward_vjp, inverse_vjp

    def log_prob_vjp(self, given, by_log_prob, context=None, *, wrt):
        return self.vjp(given, context, inverse=True, by_row=by_log_prob, of_log_prob=True, wrt=wrt)

    def vjp(
        self,
        given,
        context=None,
        *,
        inverse,
        by_value=None,
        by_row=None,
        row_scale=1.0,
        of_log_prob=False,
        index=None,
        dropout=None,
        wrt=("inputs", "parameters"),
    ):
        """Gradients in the order of ``wrt``, which may also name "log_prob", "value" and "log_det", results of the same
        run."""
        device = self.device
        rows = len(given) if index is None else len(index)
        shapes = {
            "inputs": (rows, self.features),
            "context": (rows, self.context),
            "parameters": (self.program.n_weights,),
            "log_prob": (rows,),
            "value": (rows, self.features),
            "log_det": (rows,),
        }
        names = {"inputs": "grad_input", "context": "grad_context", "parameters": "grad_weights"}
        tuples = self._inputs(input=given, context=_as_rows(context), grad_value=by_value, grad_row=by_row, index=index)

        def once():
            outputs = {kind: device.empty(shapes[kind], self.dtype) for kind in wrt}
            self.program.gradient(
                inverse=inverse,
                of_log_prob=of_log_prob,
                row_scale=row_scale,
                dropout=dropout,
                **tuples,
                **{names.get(kind, kind): device.tuple(out) for kind, out in outputs.items()},
                stream=device.stream,
            )
            return [device.numpy(out) for out in outputs.values()]

        found = dict(zip(wrt, self._in_each_order(once), strict=True))
        if context is not None and "context" in found and np.ndim(context) == 1:
            found["context"] = found["context"].sum(axis=0)
        return tuple(found[kind] for kind in wrt)

    # ---- preparation of arguments

    def _inputs(self, **arrays):
        self._kept = {
            name: None if array is None else self.device.array(array) for name, array in arrays.items()
        }  # arrays are kept as long as their tuples are used
        return {name: self.device.tuple(array) for name, array in self._kept.items()}

    def _in_each_order(self, once):
        first, *others = self.device.in_each_order(once)
        for other in others:
            for got, want in zip(other, first, strict=True):
                if want is None:
                    assert got is None
                elif want.dtype.kind == "f":
                    cases.assert_same_bits(got, want)
                else:
                    assert_array_equal(got, want)
        return first


def _as_rows(context):
    return None if context is None else np.atleast_2d(context)
