"""Draw one_pass.svg: what other libraries and headrace multiply for a density and for a sample.

    python docs/images/one_pass.py [one_pass.svg]

The script also writes one_pass_narrow.svg, for narrow screens.

The picture is the first layer of a small masked network: 5 coordinates, and 3 hidden units of each degree from 1 to 4.
Rows are units, columns are coordinates; a unit of degree d sees the first d of them. The numbers in the captions are
counted from the cells drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

COORDINATES, UNITS = 5, 3  # units of each degree
DEGREES = [degree for degree in range(1, COORDINATES) for _ in range(UNITS)]
CELL = 15
HEIGHT = CELL * len(DEGREES)
NEW, AGAIN, WASTED = "#2f6fb3", "#a9c8e8", "#e6e6e6"
STEPS = ("#1d4e89", "#2a9d8f", "#e3a21a", "#d1495b")  # units of degree 1, 2, 3, 4
INK, SOFT = "#222222", "#6a6a6a"


class Picture:
    """SVG elements, one after the other."""

    def __init__(self, width: int, height: int, title: str) -> None:
        """An empty white page."""
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' font-family="Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif" role="img">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" rx="12" fill="#ffffff"/>',
        ]

    def text(self, x: float, y: float, text: str, *, size: int = 14, color: str = INK, style: str = "") -> None:
        """A line of text; `style` are further attributes."""
        self.lines.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" {style}>{text}</text>')

    def rectangle(self, x: float, y: float, color: str, size: float = CELL - 2) -> None:
        """A square."""
        self.lines.append(f'<rect x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" rx="2" fill="{color}"/>')

    def line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A thin grey line."""
        self.lines.append(f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="#d0d0d0"/>')

    def matrix(self, x: float, y: float, color_of: Callable[[int, int], str | None]) -> int:
        """Draw the layer's weights, coloured by degree and column (None: no product); return the number of products."""
        count = 0
        for row, degree in enumerate(DEGREES):
            for column in range(1, COORDINATES + 1):
                color = color_of(degree, column)
                if color is not None:
                    self.rectangle(x + (column - 1) * CELL, y + row * CELL, color)
                    count += 1
        return count


def name(index: int) -> str:
    """x with its index lowered."""
    return f'x<tspan dy="3" font-size="10">{index}</tspan><tspan dy="-3">&#8203;</tspan>'


BOLD, MIDDLE = 'font-weight="bold"', 'text-anchor="middle"'
TITLE = "A density and a sample: dense passes in other libraries, one staircase in headrace"
DENSITY, SAMPLING = (
    ("of a MAF:", "all of x is known"),
    ("from a MAF:", "x is built, one", "coordinate after", "the other"),
)


def exists(degree: int, column: int) -> bool:
    """Whether a unit of this degree reads the column."""
    return column <= degree


def dense_density(picture: Picture, x: float, y: float) -> None:
    """A pass over the dense matrix."""
    dense = picture.matrix(x, y, lambda d, c: NEW if exists(d, c) else WASTED)
    picture.text(x + 100, y + HEIGHT / 2 - 4, f"1 pass: {dense} products,", style=BOLD)
    picture.text(x + 100, y + HEIGHT / 2 + 16, f"{dense - sum(DEGREES)} of them by zero", style=BOLD)


def dense_sampling(picture: Picture, x: float, y: float, pitch: float) -> None:
    """A pass over the dense matrix for each coordinate."""
    total = 0
    for k in range(1, COORDINATES + 1):  # pass k gives coordinate k, and is the first to know coordinate k - 1

        def of_pass(degree: int, column: int, k: int = k) -> str:
            if not exists(degree, column) or degree >= k:
                return WASTED
            return NEW if degree == k - 1 else AGAIN

        left = x + (k - 1) * pitch
        total += picture.matrix(left, y, of_pass)
        picture.text(left + 37, y - 10, f"pass {k} → {name(k)}", style=MIDDLE)
    picture.text(x, y + HEIGHT + 24, f"{COORDINATES} passes: {total} products", style=BOLD)


def staircase_density(picture: Picture, x: float, y: float) -> None:
    """A pass over the weights that exist."""
    once = picture.matrix(x, y, lambda d, c: NEW if exists(d, c) else None)
    picture.text(x + 100, y + HEIGHT / 2 - 4, f"1 pass: {once} products", style=BOLD)


def staircase_sampling(picture: Picture, x: float, y: float) -> None:
    """A pass over the weights that exist, degree by degree."""
    steps = picture.matrix(x, y, lambda d, c: STEPS[d - 1] if exists(d, c) else None)
    for degree, color in enumerate(STEPS, start=1):
        line = y + (degree - 0.5) * UNITS * CELL + 4
        picture.text(x + 90, line, f"{degree}.", color=color, style=BOLD)
        picture.text(x + 110, line, f"{name(degree)} known: its units → {name(degree + 1)}")
    picture.text(x, y + HEIGHT + 24, f"the same {steps} products, in this order", style=BOLD)


def legend(picture: Picture, x: float, y: float, size: int) -> None:
    """The colours of the dense matrices."""
    for color, label in ((NEW, "needed"), (AGAIN, "computed again"), (WASTED, "times zero, or thrown away")):
        picture.rectangle(x, y, color)
        picture.text(x + 19, y + 11, label, size=size, color=SOFT)
        x += 34 + 7 * len(label)


KEY = f"rows: hidden units; columns: {name(1)} to {name(COORDINATES)}"


def draw() -> str:
    """Draw the whole picture, with the libraries side by side."""
    picture = Picture(1010, 592, TITLE)
    left, right, first, second = 150, 690, 92, 342
    picture.text(left, 36, "other libraries", size=18, style=BOLD)
    picture.text(right, 36, "headrace", size=18, style=BOLD)
    picture.text(left, 56, "every weight of the dense matrix, masked ones too", size=13, color=SOFT)
    picture.text(right, 56, "units sorted: the weights that exist, once", size=13, color=SOFT)
    for y, title, lines in ((first, "density", DENSITY), (second, "sampling", SAMPLING)):
        picture.text(24, y + 14, title, size=18, style=BOLD)
        for i, line in enumerate(lines):
            picture.text(24, y + 36 + 18 * i, line, size=13, color=SOFT)
    picture.line(24, second - 34, 986, second - 34)
    dense_density(picture, left, first)
    staircase_density(picture, right, first)
    dense_sampling(picture, left, second, 97)
    staircase_sampling(picture, right, second)
    legend(picture, left, second + HEIGHT + 38, 12)
    picture.text(right, second + HEIGHT + 49, KEY, size=12, color=SOFT)
    return "\n".join([*picture.lines, "</svg>"]) + "\n"


def draw_narrow() -> str:
    """The picture for a phone: one library below the other, no text below 10 pixels on a page of 350."""
    picture = Picture(450, 1208, TITLE)
    left, row = 14, HEIGHT + 60
    for top, title, lines, density, sampling in (
        (0, "other libraries", "every weight of the dense matrix, masked ones too", dense_density, None),
        (610, "headrace", "units sorted: the weights that exist, once", staircase_density, staircase_sampling),
    ):
        picture.text(left, top + 34, title, size=20, style=BOLD)
        picture.text(left, top + 56, lines, color=SOFT)
        for y, what, about in ((top + 92, "density", DENSITY), (top + 92 + row, "sampling", SAMPLING)):
            picture.text(left, y, what, size=17, style=BOLD)
            picture.text(left + 84, y, " ".join(about), color=SOFT)
        density(picture, left, top + 108)
        if sampling is None:
            dense_sampling(picture, left, top + 128 + row, 86)
            legend(picture, left, top + 166 + row + HEIGHT, 13)
            picture.line(left, 604, 436, 604)
        else:
            sampling(picture, left, top + 108 + row)
    picture.text(left, 1190, KEY, color=SOFT)
    return "\n".join([*picture.lines, "</svg>"]) + "\n"


def main() -> int:
    """Write both pictures."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg")
    path.write_text(draw(), encoding="utf-8")
    path.with_stem(f"{path.stem}_narrow").write_text(draw_narrow(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
