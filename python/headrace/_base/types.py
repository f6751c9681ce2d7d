"""Types that annotations of many modules name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # typing_extensions is a tool of type checkers, not a requirement
    from typing_extensions import Self, Unpack
else:
    Self = Unpack = Any

__all__ = ["Array", "Floats", "Self", "Unpack"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
