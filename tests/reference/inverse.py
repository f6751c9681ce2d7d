"""A transform with its directions exchanged."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Inverse:
    transform: Any

    def forward(self, z, context=None):
        return self.transform.inverse(z, context)

    def inverse(self, x, context=None):
        return self.transform.forward(x, context)
