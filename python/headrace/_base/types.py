"""Types that annotations of many modules use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # only type checkers need typing_extensions, which is no requirement
    from typing_extensions import Self, Unpack
else:
    Self = Unpack = Any

__all__ = ["Array", "Floats", "Self", "Unpack"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
