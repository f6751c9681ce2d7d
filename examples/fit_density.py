"""The Hertzsprung-Russell diagram: four densities of 54,000 stars of the Hipparcos catalogue (data/README.md).

Fits a Gaussian, a kernel density, a masked autoregressive flow and a neural spline flow, prints how likely each makes
stars that it did not see, and with matplotlib draws stars, samples and the density. `headrace demo` does the same from
the command line.

    python examples/fit_density.py [--epochs 50] [--seed 0] [--output hr_diagram.png]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headrace._cli import demo

ENOUGH = 0.7  # nats a star that a flow must gain over the Gaussian; 0.89 where all went well


def main() -> int:
    """Run the example; the exit status is 1 if a fit went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=demo.EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("hr_diagram.png"))
    arguments = parser.parse_args()

    stars, held_out = demo.load_stars()
    results, flows, bandwidth = demo.compare(stars, held_out, epochs=arguments.epochs, seed=arguments.seed)
    print(f"mean log-likelihood of {len(held_out)} held-out stars, standardised units:")
    for result in results:
        print(f"  {result.name:<15}{result.log_likelihood:8.4f}   {result.seconds:5.1f} s")
    print(f"bandwidth of the kernels, chosen on stars to fit: {bandwidth:.3g}")
    try:
        demo.draw(str(arguments.output), stars, flows, results, arguments.seed)
        print(f"picture: {arguments.output}")
    except ImportError as error:
        print(f"picture: skipped, {error}")
    reached = {result.name: result.log_likelihood for result in results}
    return 0 if min(reached["MAF"], reached["NSF"]) > reached["Gaussian"] + ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
