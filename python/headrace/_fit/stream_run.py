"""A running fit of a stream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headrace._fit.given_rows import Index
from headrace._fit.run import ArrayRun
from headrace._fit.streams import StreamRows, rows_bar


class StreamRun(ArrayRun):
    """A fit of a stream: each step uses only the data of its batch."""

    source: StreamRows

    def go(self, progress: bool) -> None:
        """See `Run.go`; a bar shows the rows of an epoch too, which may take long."""
        self.progress = progress
        super().go(progress)

    def batches(self) -> Iterator[Index]:
        """See `ArrayRun.batches`; each batch holds its own rows."""
        rng = np.random.default_rng(int(self.rng.integers(1 << 63)))
        with rows_bar(self.size, "epoch", self.progress) as shown:
            for data in self.source.batches(rng, self.bounds):
                self.data = data
                yield np.arange(len(data.x), dtype=np.int64)
                shown.update(len(data.x))
