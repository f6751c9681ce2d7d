"""The public result of a diagnosis: its record, with a picture and a page."""

from __future__ import annotations

import os

from headrace._base.public import public
from headrace.diagnosis.page import page
from headrace.diagnosis.picture import draw
from headrace.diagnosis.record import Record


@public("headrace.diagnosis")
class Diagnosis(Record):
    """The result of `headrace.diagnose`, whose text `print` shows.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.Flow([hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0])])
    >>> diagnosis = hr.diagnose(flow, np.random.default_rng(1).standard_normal((500, 2)))
    >>> print(diagnosis.grade, "-", diagnosis.sentences[-1])
    very good - Nothing speaks against it at the 5 % level after looking at 46 numbers.
    >>> diagnosis.misses
    ()
    """

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw all panels to a file in a format of matplotlib, such as diagnosis.png.

        Raises:
            ImportError: matplotlib is not installed.
            OSError, ValueError: the file cannot be written.
        """
        draw(self, os.fspath(path))

    def to_html(self, data: str | None = None) -> str:
        """The diagnosis as a self-contained page, with pictures if matplotlib is installed.

        Args:
            data: A name of the rows for the head of the page, such as the name of their file.
        """
        return page(self, data)
