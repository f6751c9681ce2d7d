"""Pictures, reduced to a few blurred parts, are compared with accepted ones.

After an intended change ``python tests/plot/test_pictures.py FOLDER`` writes all pictures to FOLDER, to be looked at,
and replaces `pictures.npz`, with which later pictures are compared.
"""

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import headrace as hr

pytest.importorskip("matplotlib")

SEEN = Path(__file__).parent / "pictures.npz"
HEIGHT, WIDTH = 48, 64  # rows and columns of parts, each of which is averaged
TOLERANCE = 0.02  # a root mean squared difference, which allows for fonts and versions


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2))
    return np.stack([x[:, 0], 0.5 * x[:, 0] + x[:, 1]], axis=1)


def gaussian(context=0):
    """Return the density of `rows`; a context is added to its columns."""
    shift = hr.transforms.MaskedAutoregressive(2, (), map="additive", context=context, dtype="float64")
    weight = np.zeros((2, 2 + context))
    weight[1, 0] = 0.5
    weight[0, 2:] = 1.0
    shift.parameters = 0.0 * shift.parameters
    shift.set_parameter("layers.0.weight", weight)
    return hr.Flow([shift], dtype="float64")


def diagnosis(path, context=0):
    given = rows(600, seed=1)[:, :context]
    x = 1.2 * rows(600) + np.pad(given, ((0, 0), (0, 2 - context)))
    # The classifier uses neither SciPy nor scikit-learn, so that all machines have the same picture.
    with mock.patch("headrace.diagnosis.classifier.find_spec", return_value=None):
        found = hr.diagnose(gaussian(context), x, given if context else None, names=["a", "b"], progress=False)
    found.plot(path)


PICTURES = {
    "corner": lambda path: hr.plot.corner(gaussian(), rows(600), names=["a", "b"]).savefig(path),
    "density": lambda path: hr.plot.density(gaussian(), columns=[0, (0, 1)], at=[0.0, 0.5]).savefig(path),
    "latent": lambda path: hr.plot.latent(gaussian(), 1.2 * rows(600)).savefig(path),
    "conditional": lambda path: hr.plot.conditional(gaussian(1), rows(50)[:, :1], values=3).savefig(path),
    "diagnosis": diagnosis,
    "calibration": lambda path: diagnosis(path, context=1),
}


def small(path):
    """Return the mean darkness of each part of a picture, shape (HEIGHT, WIDTH)."""
    from matplotlib.image import imread

    grey = 1.0 - imread(path)[:, :, :3].mean(axis=2)
    parts = [np.array_split(part, WIDTH, axis=1) for part in np.array_split(grey, HEIGHT, axis=0)]
    return np.array([[part.mean() for part in line] for line in parts])


@pytest.mark.costly
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_look_like_the_accepted_ones(name, tmp_path):
    PICTURES[name](tmp_path / "picture.png")
    seen = np.load(SEEN)[name] / 255.0
    found = small(tmp_path / "picture.png")
    assert np.sqrt(np.square(found - seen).mean()) < TOLERANCE
    assert np.sqrt(np.square(found[:, ::-1] - seen).mean()) > 2 * TOLERANCE  # a mirrored picture differs


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, picture in PICTURES.items():
        picture(folder / f"{name}.png")
    every = {name: np.round(255.0 * small(folder / f"{name}.png")).astype(np.uint8) for name in PICTURES}
    np.savez_compressed(SEEN, **every)
