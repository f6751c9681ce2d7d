"""A conditioner over time, ``echo``, and a step, ``bend``, that the library does not have.

The kinds ``echo`` and ``bend`` are listed by the emulation's module `_emu` alone (tests/cuda_emulation/added).

Beside the C++ sources, a new kind has a class in Python and a reference (docs/notes/recipes.md): this file has both.
"""

from contextlib import contextmanager

import numpy as np
import pytest

import cores
import reference
from headrace._base import stored as _stored
from headrace._core import structure
from headrace._core.steps import StepSpec
from headrace._flow.transforms.fixed import Fixed
from headrace._flow.transforms.transform import Transform
from reference.maps import Options

TAPS, DELAY = 2, 3


class Echoes:
    """The network of an `Echo`: neither the network nor the shapes of its weights depend on the number of steps."""

    def __init__(self, units, reads="data", slope=1e-3):
        self.units, self.reads, self.slope = units, reads, slope
        self.core = self.made_for(structure.cpu)

    def made_for(self, core):
        return core.EchoTransform(units=self.units, reads_data=self.reads == "data", slope=self.slope)

    @property
    def size(self):
        return self.core.n_weights

    def named(self, packed):
        return dict(zip((name for name, _ in self.core.tensors), self.core.unpack(packed), strict=True))

    def pack_named(self, named):
        return self.core.pack([np.require(named[name], requirements=("C", "A")) for name, _ in self.core.tensors])


class Echo(Transform):
    """A transform over time that maps each step with parameters that depend on the steps before it."""

    def __init__(self, features, echoes, parameters):
        super().__init__(features, 0, parameters.dtype)
        self.echoes = echoes
        self._take_parameters(parameters)

    def _steps(self, inverted=False):
        return [StepSpec("NetworkStep", inverted=inverted, transform=self.echoes)]

    def _blocks(self):
        return [("", self.echoes)]

    def _header(self):
        echoes = self.echoes
        return {"features": self._features, "units": echoes.units, "reads": echoes.reads, "slope": echoes.slope}

    @classmethod
    def _from_file(cls, stored):
        features = stored.size("features", least=1)
        echoes = Echoes(*(stored.take(key) for key in ("units", "reads", "slope")))
        named = {name: stored.array(name, tuple(shape)) for name, shape in echoes.core.tensors}
        return cls(features, echoes, echoes.pack_named(named))

    def __repr__(self):
        return f"Echo({self.features}, units={self.echoes.units}, reads={self.echoes.reads!r})"


class Bend(Fixed):
    """The elementwise step x = sinh(a z) / a, with a fixed strength a for each coordinate."""

    def __init__(self, strength):
        self.strength = [float(a) for a in strength]
        super().__init__(len(self.strength))

    def _steps(self, inverted=False):
        return [StepSpec("BendStep", inverted=inverted, strength=self.strength)]

    def _part(self, kept):
        return Bend([self.strength[c] for c in kept])

    def _header(self):
        return {"features": self._features, "strength": self.strength}

    @classmethod
    def _from_file(cls, stored):
        stored.size("features", least=1)
        return cls(stored.items("strength"))

    def __repr__(self):
        return f"Bend({self.strength})"


# ---- references of both kinds --------------------------------------------------------------------------------------


class EchoReference:
    """The reference of `Echo` in float64, step by step, from arrays in the order of the network's tensors."""

    def __init__(self, arrays, reads="data", slope=1e-3):
        self.first, self.first_bias, self.second, self.second_bias = (np.asarray(a, np.float64) for a in arrays)
        self.reads, self.options = reads, Options(slope=slope)

    def _parameters(self, past, units):
        taps = [past[-1 - j] if len(past) > j else 0.0 * past[0] for j in range(TAPS)] if past else [0.0, 0.0]
        units.append(
            np.tanh(self.first_bias + sum(np.multiply.outer(x, w) for x, w in zip(taps, self.first.T, strict=True)))
        )
        late = units[-1 - DELAY] if len(units) > DELAY else 0.0 * units[-1]
        return self.second_bias + units[-1] @ self.second[:, 0::2].T + late @ self.second[:, 1::2].T

    def _run(self, given, inverse):
        built, units, total = [], [], 0.0
        reads_built = (self.reads == "data") != inverse
        for t in range(given.shape[1]):
            past = built if reads_built else [given[:, s] for s in range(t)]
            parameters = np.broadcast_to(self._parameters(past, units), (len(given), 2))
            value, log_slope = reference.MAPS["affine"].apply(given[:, t], parameters, self.options, inverse)
            built.append(value)
            total = total + log_slope
        return np.stack(built, axis=1), total

    def forward(self, z, context=None):
        return self._run(np.asarray(z, np.float64), False)

    def inverse(self, x, context=None):
        return self._run(np.asarray(x, np.float64), True)


class BendReference:
    """The reference of `Bend` in float64."""

    def __init__(self, strength):
        self.strength = np.asarray(strength)

    def forward(self, z, context=None):
        y = self.strength * np.asarray(z, np.float64)
        return np.sinh(y) / self.strength, np.log(np.cosh(y)).sum(axis=1)

    def inverse(self, x, context=None):
        y = self.strength * np.asarray(x, np.float64)
        return np.arcsinh(y) / self.strength, -0.5 * np.log1p(y * y).sum(axis=1)


@contextmanager
def added(device):
    """A ``with`` block in which files may hold `Echo` and `Bend`, and the library computes on the device."""
    with pytest.MonkeyPatch.context() as patch, cores.in_place(cores.OnDevice(device)) as core:
        patch.setitem(_stored.KINDS, "Echo", Echo)
        patch.setitem(_stored.KINDS, "Bend", Bend)
        yield core
