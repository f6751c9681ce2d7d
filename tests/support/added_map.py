"""A map that the library does not have, ``polyline``: tests/cuda_emulation/polyline.hpp adds it to the list of _emu.

Beside the C++ source, a new map has a reference in NumPy (docs/notes/recipes.md), which is in this file.
"""

from contextlib import contextmanager

import numpy as np
import pytest

import cores
import headrace as hr
import reference
from headrace._core import maps

NAME = "polyline"


def polyline(value, params, options, inverse):
    """A piecewise linear map: pieces of equal width from -bound to bound; the outer two continue beyond the bounds."""
    shift, log_slopes = params[..., :1], reference.LOG_SCALES["soft_clamp"](params[..., 1:], options.slope)
    bins = log_slopes.shape[-1]
    width = 2.0 * options.bound / bins
    knots = np.broadcast_to(-options.bound + width * np.arange(bins), log_slopes.shape)
    heights = np.exp(log_slopes[..., :-1]) * width
    corners = np.concatenate([np.zeros_like(shift), np.cumsum(heights, axis=-1)], axis=-1) + shift - options.bound
    ends = corners if inverse else knots
    index = (value[..., None] > ends[..., 1:]).sum(axis=-1)[..., None]
    left, low, log_slope = (np.take_along_axis(a, index, axis=-1)[..., 0] for a in (knots, corners, log_slopes))
    if inverse:
        return left + (value - low) * np.exp(-log_slope), -log_slope
    return low + (value - left) * np.exp(log_slope), log_slope


IN_REFERENCE = reference.Map(("shift", "slope"), polyline, lambda bins: {"shift": 1, "slope": bins}, depth=4)


@contextmanager
def added(device):
    """A ``with`` block in which the library has the map ``polyline`` and computes on the device."""
    with pytest.MonkeyPatch.context() as patch, cores.in_place(cores.OnDevice(device)) as core:
        patch.setattr(maps, "_LISTED", {one.name: one for one in core.maps()})
        patch.setitem(maps.MAPS, NAME, maps.maps_of(core)[NAME])
        patch.setattr(hr.ops, "MAPS", tuple(maps.MAPS))
        patch.setitem(reference.MAPS, NAME, IN_REFERENCE)
        yield core
