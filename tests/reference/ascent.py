"""The notes' algorithm (2.5), one coordinate at a time: random rotations with one kink each. Random values are drawn in
the library's order."""

import math

import numpy as np


def haar(features, rng):
    """An orthogonal matrix, from a QR factorisation whose triangle has a positive diagonal."""
    q, r = np.linalg.qr(rng.standard_normal((features, features)))
    return q @ np.diag(np.sign(np.diag(r)))


def likelihood(a, b, c, x, center, epsilon, precision, weights=None):
    """The mean of log y' - λ y²/2 for y = a x + b + c sqrt(ε² + (x - center)²): eq. 23 without its constant."""
    r = np.sqrt(epsilon**2 + (x - center) ** 2)
    y = a * x + b + c * r
    return np.average(np.log(a + c * (x - center) / r) - 0.5 * precision * y**2, weights=weights)


def derivatives(x, center, epsilon, precision, weights=None):
    """The gradient of the likelihood at the identity, and minus its Hessian, in two parts."""
    r = np.sqrt(epsilon**2 + (x - center) ** 2)
    value = np.array([x, np.ones_like(x), r])
    slope = np.array([np.ones_like(x), np.zeros_like(x), (x - center) / r])
    share = np.ones_like(x) / x.size if weights is None else weights / weights.sum()
    gradient = (slope - precision * x * value) @ share
    return gradient, (slope * share) @ slope.T, precision * (value * share) @ value.T


def chosen(x, center, epsilon, precision, rule, weights=None):
    """The a, b, c of one coordinate after a step along Newton's direction or the gradient, of the length up to which a
    lower bound of the likelihood grows."""
    gradient, slopes, values = derivatives(x, center, epsilon, precision, weights)
    curvature = slopes + values
    ridge = 1e-12 * np.trace(curvature) * np.eye(3)  # makes the step unique for rows with only two values
    u = np.linalg.solve(curvature + ridge, gradient) if rule == "newton" else gradient
    reach = abs(u[0]) + abs(u[2])
    if rule == "newton" and reach <= 0.29:
        t = 1.0
    else:
        low, high = 0.0, 0.9 / reach
        while high - low > 1e-15 * high:
            t = 0.5 * (low + high)
            grows = gradient @ u - t * (u @ slopes @ u) / (1.0 - t * reach) ** 3 - t * (u @ values @ u)
            low, high = (t, high) if grows > 0 else (low, t)
            if t in (low, high) and 0.5 * (low + high) == t:
                break
    return 1.0 + t * u[0], t * u[1], t * u[2]


def width(center, rows, precision, neighbours):
    """The width ε for which about `neighbours` of the rows from N(0, 1/λ) are within ε of the center, limited to the
    range from 0.002 to one standard deviation."""
    wide = neighbours / (2 * rows) * math.sqrt(2 * math.pi) * math.exp(min(precision * center**2, 100.0) / 2)
    return max(min(wide, 1.0) / math.sqrt(precision), 2e-3)


def ascend(z, steps, seed, precision=1.0, neighbours=800.0, rule="newton", anchors=1024):
    """The ``(z, log-Jacobian, mean log-likelihoods)`` of standardised rows after these steps."""
    rng = np.random.default_rng(seed)
    rows, features = z.shape
    anchor = rng.permutation(rows)[:anchors]
    log_jacobian = np.zeros(rows)
    constant = 0.5 * features * math.log(precision / (2 * math.pi))
    likelihoods = [constant - 0.5 * precision * (z**2).sum(axis=1).mean()]
    for _ in range(steps):
        z = z @ haar(features, rng).T
        picked = rng.integers(anchor.size, size=features)
        drawn = rng.standard_normal(features) / math.sqrt(precision)
        of_rows = rng.random(features) < 0.5
        columns = []
        for k in range(features):
            x = z[:, k]
            center = x[anchor[picked[k]]] if of_rows[k] else drawn[k]
            epsilon = width(center, rows, precision, neighbours)
            a, b, c = chosen(x, center, epsilon, precision, rule)
            r = np.sqrt(epsilon**2 + (x - center) ** 2)
            columns.append(a * x + b + c * r)
            log_jacobian = log_jacobian + np.log(a + c * (x - center) / r)
        z = np.stack(columns, axis=1)
        likelihoods.append(constant + (log_jacobian - 0.5 * precision * (z**2).sum(axis=1)).mean())
    return z, log_jacobian, np.array(likelihoods)
