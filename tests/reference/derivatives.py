"""Vector-Jacobian products by central differences, with which all gradients are compared.

``function(*arrays)`` returns a tuple of arrays whose first axis is that of the rows, and ``cotangents`` has an array
for each array of the tuple, or None for zero. Each row's sum of cotangents times results is differentiated.

A difference with step h has an error of h^2 times a third derivative and, by rounding, of eps / h times a value. If
the derivative and the value are of order one, h = eps^(1/3) is best, with an error of order eps^(2/3) = 4e-11.
"""

import numpy as np

STEP = float(np.finfo(np.float64).eps ** (1.0 / 3.0))


def along(function, arrays, directions, cotangents, step=STEP):
    """The derivative, shape ``(rows,)``, of each row's sum when all arrays move along their directions at once."""
    arrays = [np.asarray(array, np.float64) for array in arrays]

    def moved(by):
        return function(*[array + by * direction for array, direction in zip(arrays, directions, strict=True)])

    total = 0.0
    for up, down, cotangent in zip(moved(step), moved(-step), cotangents, strict=True):
        change = up - down
        if cotangent is not None:
            change = change * np.asarray(cotangent, np.float64)
            total = total + change.reshape(len(change), int(np.prod(change.shape[1:]))).sum(axis=1)
    return total / (2.0 * step)


def row_gradient(function, array, cotangents, step=STEP, beside=None):
    """The gradient by an array each of whose rows affects only the same row of the results.

    One call of ``function`` computes all moved rows; ``beside`` is a second argument with as many rows as the array,
    ``function(array, beside)``.
    """
    array = np.asarray(array, np.float64)
    rows, places = len(array), int(np.prod(array.shape[1:]))
    steps = step * np.eye(places).reshape(places, 1, *array.shape[1:])
    moved = [np.concatenate([array + steps, array - steps]).reshape(2 * places * rows, *array.shape[1:])]
    if beside is not None:
        moved.append(np.tile(beside, (2 * places, *[1] * (np.ndim(beside) - 1))))
    total = np.zeros((places, rows))
    for result, cotangent in zip(function(*moved), cotangents, strict=True):
        if cotangent is not None:
            up, down = np.reshape(result, (2, places, rows, int(np.prod(result.shape[1:]))))
            total += ((up - down) * np.reshape(np.asarray(cotangent, np.float64), up.shape[1:])).sum(axis=2)
    return np.ascontiguousarray(total.T).reshape(array.shape) / (2.0 * step)


def gradient(function, arrays, cotangents, step=STEP):
    """The gradients by arrays that all rows share, from differences by one parameter at a time."""
    directions = [np.zeros(np.shape(array)) for array in arrays]
    gradients = [np.zeros(np.shape(array)) for array in arrays]
    for direction, result in zip(directions, gradients, strict=True):
        for place in np.ndindex(direction.shape):
            direction[place] = 1.0
            result[place] = along(function, arrays, directions, cotangents, step).sum()
            direction[place] = 0.0
    return gradients
