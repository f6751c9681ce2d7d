"""Philox-4x32-10, the counter-based generator of Salmon, Moraes, Dror, Shaw 2011, in plain integers."""

import numpy as np

_MULTIPLIERS, _WEYL, _MASK = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 0xFFFFFFFF


def philox_block(counter, key):
    """The four random words for four words of a counter and two words of a key."""
    c, k = [int(word) for word in counter], [int(word) for word in key]
    for _ in range(10):
        a, b = _MULTIPLIERS[0] * c[0], _MULTIPLIERS[1] * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & _MASK, (a >> 32) ^ c[3] ^ k[1], a & _MASK]
        k = [(word + step) & _MASK for word, step in zip(k, _WEYL, strict=True)]
    return c


def philox(seed, rows, first, n, stream):
    """The random words ``(rows, n)`` of rows in a stream: ``n`` words from index ``first`` on, four to a block."""
    key = (seed & _MASK, seed >> 32)
    words = np.empty((len(rows), n), np.uint64)
    for i, row in enumerate(map(int, rows)):
        for block in range(first // 4, (first + n + 3) // 4):
            for k, word in enumerate(philox_block((row & _MASK, row >> 32, block, stream), key)):
                if first <= 4 * block + k < first + n:
                    words[i, 4 * block + k - first] = word
    return words
