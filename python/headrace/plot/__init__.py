"""Pictures of densities, of rows, of signals and of fits, by matplotlib: ``pip install ".[plot]"``.

Each function returns a matplotlib ``Figure`` outside of ``pyplot``: save it by ``figure.savefig("a.png")``, or
let a notebook show it. There is no output on a screen, and the state of ``pyplot`` does not change.
"""

from headrace.plot.conditional import conditional
from headrace.plot.corner import corner
from headrace.plot.density import density
from headrace.plot.history import history
from headrace.plot.latent import latent
from headrace.plot.spectrograms import spectrograms

__all__ = ["conditional", "corner", "density", "history", "latent", "spectrograms"]
