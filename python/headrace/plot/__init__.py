"""Pictures of densities, rows, signals and fits, by matplotlib: ``pip install ".[plot]"``.

Each function returns a matplotlib ``Figure`` that ``pyplot`` does not manage: save the figure by
``figure.savefig("a.png")``, or let a notebook show the figure. No window is opened, and the state of ``pyplot`` does
not change.
"""

from headrace.plot.conditional import conditional
from headrace.plot.corner import corner
from headrace.plot.density import density
from headrace.plot.history import history
from headrace.plot.latent import latent
from headrace.plot.spectrograms import spectrograms

__all__ = ["conditional", "corner", "density", "history", "latent", "spectrograms"]
