"""The digits of samples: as many as the numbers of a flow have, and not those of the type that holds them."""

from __future__ import annotations

import math

import numpy as np

import headrace as hr
from headrace._cli.writing import DOUBLE, SINGLE
from headrace._tables.table import Table


def of_samples(flow: hr.Flow | hr.Ensemble, table: Table | None) -> list[int]:
    """Significant digits of each column of the table.

    A float32 flow computes standardised columns to nine digits. A column whose mean is many standard deviations from
    zero, such as a time, has that many more before them. Whole numbers and constant columns keep all.
    """
    members = flow.flows if isinstance(flow, hr.Ensemble) else (flow,)
    own = [max(counts) for counts in zip(*map(_of_flow, members), strict=True)]
    if table is None:
        return own
    found = [DOUBLE] * len(table.columns)
    for i, count in zip(table.kept, own, strict=True):
        if not table.columns[i].is_discrete:
            found[i] = count
    return found


def _of_flow(flow: hr.Flow) -> list[int]:
    """Significant digits of each of a flow's columns."""
    standardize, support = flow._interior.standardize, flow._interior.support
    if flow.dtype == np.float64 or standardize is None:
        return [DOUBLE] * flow.features
    bounds = [None] * flow.features if support is None else support.bounds
    periodic = [None] * flow.features if support is None else support.periodic
    found = []
    for i in range(flow.features):
        if (ends := bounds[i] or periodic[i]) is None:
            away, unit = abs(float(standardize.mean[i])), float(standardize.std[i])
        else:
            low, high = ends
            away = max(abs(end) for end in ends if end is not None)
            unit = math.inf if away == 0.0 else 0.0 if low is None or high is None else high - low
        more = math.ceil(math.log10(away / unit)) if away > unit > 0.0 else 0
        found.append(DOUBLE if unit == 0.0 else min(SINGLE + more, DOUBLE))
    return found
