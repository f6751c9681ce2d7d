"""The divergence of a student of sequences from a teacher whose distribution is known.

    OMP_NUM_THREADS=1 python -m bench.sequences.student --steps 500

The teacher is x_t = 2 r cos(w) x_{t-1} - r² x_{t-2} + e_t with r = 0.95 and w = 0.4, scaled to the deviation 2. The
student has two convolutions of 6 layers and 16 channels, and learns in closed form. KL is in nats a step, from samples
of the student and the formula; seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence

import numpy as np

import headrace as hr

DAMPING, ANGLE, DEVIATION = 0.95, 0.4, 2.0
A1, A2 = 2.0 * DAMPING * math.cos(ANGLE), -(DAMPING**2)
ROWS, LENGTH, START = 64, 4096, 400


def teacher() -> hr.SequenceFlow:
    """The teacher's process as a flow: a linear prediction, and a network of zeros, which ignores the past."""
    network = hr.CausalConvolution(channels=1, dilations=[1], map="affine")
    for name, array in network.named_parameters().items():
        network.set_parameter(name, np.zeros_like(array))
    prediction = hr.LinearPrediction.of_reflections([[A1 / (1.0 - A2), A2]])
    return hr.SequenceFlow([network, prediction, hr.transforms.Standardize([0.0], [DEVIATION])])


def main(argv: Sequence[str] | None = None) -> None:
    """Distill the student, and print its divergence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1.2e-2)
    parser.add_argument("--estimator", default="closed_form")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(argv))
    process, student = (
        teacher(),
        hr.WaveNet(reads="latent", layers=6, channels=16, kernel=3, map="affine", transforms=2, seed=given["seed"]),
    )
    begin = time.process_time()
    student, report = hr.distill_sequences(process, student, progress=False, **given)
    seconds = time.process_time() - begin
    x = student.sample(ROWS, steps=LENGTH, seed=1)
    kl = (student.log_prob(x).astype(float) - process.log_prob(x)) / LENGTH
    v = x[:, START:, 0]
    lag = float((v[:, 1:] * v[:, :-1]).mean() / v.var())
    print(f"{seconds:.1f} s: KL {kl.mean():.4f} ± {kl.std() / math.sqrt(ROWS):.4f} nats a step of {LENGTH},")
    print(f"in the report {report.kl:.4f} ± {report.kl_error:.4f}; deviation {v.std():.3f}, true {DEVIATION};")
    print(f"autocorrelation at lag 1 {lag:.4f}, true {A1 / (1.0 - A2):.4f}")


if __name__ == "__main__":
    main()
