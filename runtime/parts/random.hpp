// Random values: Philox-4x32-10 (Salmon, Moraes, Dror, Shaw 2011) with a seed as key and (row, block of four columns)
// as counter. A value is a function of (seed, row, column), and equals that of the Python package. A float64 value has
// the 32 bits of the float32 value and 32 lower bits from a second stream, so that a float64 sample is the float32
// sample with more digits.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace headrace {
namespace detail {

using Words = std::array<std::uint32_t, 4>;

inline Words philox(std::uint64_t seed, std::uint64_t row, std::uint32_t block, std::uint32_t stream) {
    Words c{static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32), block, stream};
    std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t(c[0]) * 0xD2511F53u, b = std::uint64_t(c[2]) * 0xCD9E8D57u;
        c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(b),
             static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(a)};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// A uniform value in (0, 1], never 0, from 32 bits for float and 64 bits for double.
template <class T>
T uniform(std::uint32_t high, std::uint32_t low) {
    if (sizeof(T) == 4) return static_cast<T>(high >> 1) * T(4.656612873077393e-10) + T(1.1641532182693481e-10);
    return static_cast<T>(high) * T(2.3283064365386963e-10) +
           (static_cast<T>(low) * T(5.421010862427522e-20) + T(2.710505431213761e-20));
}

// Cosine and sine of an angle in turns, which is reduced to an eighth of a turn without rounding.
template <class T>
void cos_sin_of_turns(T turns, T& cosine, T& sine) {
    const T quarters = std::nearbyint(turns * T(4));
    const T angle = (turns - quarters * T(0.25)) * T(6.283185307179586477), c = std::cos(angle), s = std::sin(angle);
    switch (static_cast<int>(quarters) & 3) {
        case 0: cosine = c, sine = s; break;
        case 1: cosine = -s, sine = c; break;
        case 2: cosine = -c, sine = -s; break;
        default: cosine = s, sine = -c;
    }
}

// The words of a block, and words of a second stream for the lower bits of float64.
template <class T>
struct Drawn {
    Words high, low;

    Drawn(std::uint64_t seed, std::uint64_t row, std::uint32_t block, std::uint32_t stream, std::uint32_t more)
        : high(philox(seed, row, block, stream)), low(sizeof(T) == 4 ? high : philox(seed, row, block, more)) {}

    T number(std::size_t i) const { return uniform<T>(high[i], low[i]); }
    // A logistic value log(u / (1 - u)): the leading bit is the sign, and the other bits give min(u, 1 - u).
    T logistic(std::size_t i) const {
        const T tail = uniform<T>(high[i] << 1 | low[i] >> 31, low[i] << 1) * T(0.5);
        return (std::log1p(-tail) - std::log(tail)) * (high[i] >> 31 ? T(1) : T(-1));
    }
    // A normal value by Box and Muller's method, in which two words give two values.
    T normal(std::size_t i) const {
        const std::size_t first = i & ~std::size_t(1);
        const T radius = std::sqrt(std::log(number(first)) * T(-2));
        T cosine, sine;
        cos_sin_of_turns(number(first + 1), cosine, sine);
        return radius * (i == first ? cosine : sine);
    }
};

// Draws columns 4 block to 4 block + 3 of a row, for standard normal and standard logistic bases.
template <class T>
Drawn<T> drawn(std::uint64_t seed, std::uint64_t row, std::uint32_t block) {
    return {seed, row, block, 0, 1};
}

// Draws words for other densities from separate streams, so that no word is used for two columns.
template <class T>
Drawn<T> drawn_beside(std::uint64_t seed, std::uint64_t row, std::uint32_t block, bool second = false) {
    const std::uint32_t stream = second ? 0xFFFFFFFDu : 0xFFFFFFFFu;
    return {seed, row, block, stream, stream - 1};
}

}  // namespace detail
}  // namespace headrace
