"""Errors of each elementwise map, activation and density, relative to results of 50 digits (tests/digits/make.py).

Each function is computed by a flow of one column. A network without hidden layers copies the raw parameters from the
context exactly; an activation of the context is tested as a shift of the value 0.

    python tests/support/digits.py v2 v4

The command writes the errors of the named instruction sets to errors.npz: run it after a change of the kernels that
makes errors smaller, or has a reason to make errors larger. The name PTX stands for the emulation on a folder of PTX
(docs/notes/ptx.md):

    export PYTHONPATH=python:tests:tests/support/cases:tests/support/fakes
    HEADRACE_EMU_PTX=build/ptx python tests/support/digits.py PTX
"""

import os
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np

import headrace as hr

FOLDER = Path(__file__).resolve().parents[1] / "digits"
STEPS = 8  # recorded errors are rounded up to eighths of a unit of rounding
DTYPES = ("float32", "float64")

BASES = {
    "standard normal": lambda: hr.StandardNormal(1),
    "normal": lambda: hr.Normal(1, -1.25, 0.25),
    "logistic": lambda: hr.Logistic(1),
    "uniform": lambda: hr.Uniform(1),
    "cauchy": lambda: hr.StudentT(1, 1, trainable=False),
    "student 5": lambda: hr.StudentT(1, 5, trainable=False),
    "student 1000": lambda: hr.StudentT(1, 1000, trainable=False),
    "mixture": lambda: hr.NormalMixture(
        1, 3, loc=[[-2], [0], [3]], scale=[[0.5], [1], [2]], weights=[1, 1, 2], trainable=False
    ),
}


class Case:
    """One function of the file of digits: its arguments, and its results as sums of two float64 values."""

    def __init__(self, name, arrays):
        self.name, self.x, self.raw = name, arrays["x"][:, None], arrays.get("raw")
        map, _, verb = name.partition(" to_")
        self.is_map, self.is_density = bool(verb), self.raw is None
        self.is_activation = not self.is_map and not self.is_density
        self.verb = f"to_{verb}" if self.is_map else "log_prob" if self.is_density else "to_data"
        self.map_and_scale = tuple(map.partition(" ")[::2])
        self.want = [split(arrays[part]) for part in ("value", "log_det") if part in arrays]

    def flow(self, dtype):
        if self.is_density:
            return hr.Flow([], BASES[self.name](), dtype=dtype)
        k = self.raw.shape[1]
        ones, zeros = np.eye(k, dtype=dtype), np.zeros(k, dtype)
        settings = {"context": k, "slope": 2.0**-10}
        if self.is_map:
            weight = np.hstack([np.zeros((k, 1), dtype), ones])
            map, scale = self.map_and_scale
            settings |= {"map": map, "bins": 4, "min_bin": 2.0**-10} | ({"scale": scale} if scale else {})
            layers = [weight], [zeros], [weight]
        else:
            hidden = np.array([[0, 1]], dtype)
            settings |= {"map": "additive", "activation": None if self.name == "identity" else self.name}
            layers = [hidden, ones], [zeros, zeros], [hidden, ones]
        return hr.Flow([hr.transforms.MaskedAutoregressive.from_dense(*layers, **settings)])

    def arguments(self, dtype):
        return self.x.astype(dtype), None if self.raw is None else self.raw.astype(dtype)

    def results(self, dtype, module=None, rows=None):
        """The results of the flow, or of another module with the same methods, in calls of `rows` rows each."""
        x, raw = self.arguments(dtype)
        module, rows = self.flow(dtype) if module is None else module, rows or len(x)
        parts = []
        for first in range(0, len(x), rows):
            of_rows = slice(first, first + rows)
            found = getattr(module, self.verb)(x[of_rows], None if raw is None else raw[of_rows])
            parts.append([found] if self.verb == "log_prob" else found)
        return [np.concatenate(column).reshape(-1) for column in zip(*parts, strict=True)]

    def errors(self, results, least=None):
        """The errors, in units of rounding of the larger of the result and `least`, which is 1 by default, and nearly 0
        for an activation."""
        if least is None:
            least = float(np.finfo(results[0].dtype).smallest_normal) if self.is_activation else 1.0
        found = []
        for got, (high, low) in zip(results, self.want, strict=False):
            with np.errstate(invalid="ignore"):
                away = np.where(got == high, 0.0, np.abs(got - high)) if np.isinf(high).any() else abs(got - high - low)
            found.append(away / (np.finfo(got.dtype).eps * np.maximum(least, np.abs(np.nan_to_num(high)))))
        return np.concatenate(found)


def split(text):
    """Numbers with 50 digits, each as a sum of two float64 values."""
    exact = [Decimal(one.decode()) for one in text]
    high = np.array([float(one) for one in exact])
    low = [float(one - Decimal(h)) if np.isfinite(h) else 0.0 for one, h in zip(exact, high.tolist(), strict=True)]
    return high, np.array(low)


def read_cases():
    arrays = {}
    with np.load(FOLDER / "values.npz") as file:
        for key in file.files:
            name, _, part = key.rpartition(".")
            arrays.setdefault(name, {})[part] = file[key]
    return [Case(name, of_name) for name, of_name in arrays.items()]


def measured(dtype, rows=None):
    """The errors of all functions in one array."""
    return np.concatenate([case.errors(case.results(dtype, rows=rows)) for case in read_cases()])


def measured_by(isa, path):
    """The errors for each dtype with the instruction set `isa`, measured by another process."""
    environment = {**os.environ, "HEADRACE_ISA": isa}
    subprocess.run([sys.executable, __file__, "--measure", str(path)], env=environment, check=True, timeout=120)
    with np.load(path) as file:
        return dict(file)


def measured_on_ptx():
    """The errors for each dtype on the emulated device."""
    import cores

    os.environ["PYTEST_CURRENT_TEST"] = "digits (call)"  # the name chooses an order of threads
    with cores.using("emu"):
        return {dtype: measured(dtype) for dtype in DTYPES}


def record_of(isa):
    """The key of an instruction set's errors: all sets with multiply-adds share a key, because their bits are equal."""
    return {"v2": "unfused", "PTX": "PTX"}.get(isa, "fused")


def recorded():
    """The recorded errors in units of rounding; each key has the names of a record (`record_of`) and of a dtype."""
    with np.load(FOLDER / "errors.npz") as file:
        return {key: file[key].astype(np.float64) / STEPS for key in file.files}


def write(**found):
    """Write errors into the file, by the keys of `recorded`; other records stay."""
    path = FOLDER / "errors.npz"
    steps = {key: np.ceil(STEPS * errors).astype(np.uint32) for key, errors in found.items()}
    with np.load(path) as file:
        np.savez_compressed(path, **{**file, **steps})


def worse(errors, limits):
    """A line for each value whose error is larger than the recorded one."""
    parts = [(case, part, i) for case in read_cases() for part in range(len(case.want)) for i in range(len(case.x))]
    assert len(parts) == len(errors) == len(limits)
    return [
        f"{case.name}, {('value', 'log-derivative')[part]} {i} of x = {case.x[i, 0]!r}"
        f"{'' if case.raw is None else f', parameters {case.raw[i].tolist()}'}: {error:.3f} units, {limit:.3f} before"
        for (case, part, i), error, limit in zip(parts, errors, limits, strict=True)
        if not error <= limit
    ]


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        np.savez(sys.argv[2], **{dtype: measured(dtype) for dtype in DTYPES})
    else:
        with tempfile.TemporaryDirectory() as folder:
            for isa in sys.argv[1:]:
                found = measured_on_ptx() if isa == "PTX" else measured_by(isa, Path(folder) / "errors.npz")
                write(**{f"{record_of(isa)} {dtype}": errors for dtype, errors in found.items()})
