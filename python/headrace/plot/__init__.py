"""Pictures of densities, of rows and of fits, by matplotlib: ``pip install "headrace[plot]"``.

Each function returns a matplotlib ``Figure`` that belongs to nobody else: save it by ``figure.savefig("a.png")``, or
let a notebook show it. Nothing is drawn to a screen, and no state of ``pyplot`` is touched.
"""

from headrace.plot.conditional import conditional
from headrace.plot.corner import corner
from headrace.plot.density import density
from headrace.plot.history import history
from headrace.plot.latent import latent

__all__ = ["conditional", "corner", "density", "history", "latent"]
