// Random numbers: Philox-4x32-10 (Salmon, Moraes, Dror, Shaw 2011), keyed by a seed, counted by (row, block of four
// columns). A number is a function of (seed, row, column), the same as headrace's own. float64 uses the leading 32 bits
// of float32 and 32 more of a second stream: both give the same sample, the one with more digits.
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

// In (0, 1], never 0: of 32 bits for float, 64 for double.
template <class T>
T uniform(std::uint32_t high, std::uint32_t low) {
    if (sizeof(T) == 4) return static_cast<T>(high >> 1) * T(4.656612873077393e-10) + T(1.1641532182693481e-10);
    return static_cast<T>(high) * T(2.3283064365386963e-10) +
           (static_cast<T>(low) * T(5.421010862427522e-20) + T(2.710505431213761e-20));
}

// Cosine and sine of this many turns, reduced to an eighth before any rounding.
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

// The words of a block, and those of the stream for the bits that float64 adds.
template <class T>
struct Drawn {
    Words high, low;

    Drawn(std::uint64_t seed, std::uint64_t row, std::uint32_t block, std::uint32_t stream, std::uint32_t more)
        : high(philox(seed, row, block, stream)), low(sizeof(T) == 4 ? high : philox(seed, row, block, more)) {}

    T number(std::size_t i) const { return uniform<T>(high[i], low[i]); }
    // log(u / (1 - u)): the leading bit is the sign, the rest give min(u, 1 - u).
    T logistic(std::size_t i) const {
        const T tail = uniform<T>(high[i] << 1 | low[i] >> 31, low[i] << 1) * T(0.5);
        return (std::log1p(-tail) - std::log(tail)) * (high[i] >> 31 ? T(1) : T(-1));
    }
    // Box-Muller: two words give two normal numbers.
    T normal(std::size_t i) const {
        const std::size_t first = i & ~std::size_t(1);
        const T radius = std::sqrt(std::log(number(first)) * T(-2));
        T cosine, sine;
        cos_sin_of_turns(number(first + 1), cosine, sine);
        return radius * (i == first ? cosine : sine);
    }
};

// Columns 4 block to 4 block + 3 of a row, for standard normal and standard logistic bases.
template <class T>
Drawn<T> drawn(std::uint64_t seed, std::uint64_t row, std::uint32_t block) {
    return {seed, row, block, 0, 1};
}

// Random numbers of other densities beside these: streams of their own, so that no word serves two columns.
template <class T>
Drawn<T> drawn_beside(std::uint64_t seed, std::uint64_t row, std::uint32_t block, bool second = false) {
    const std::uint32_t stream = second ? 0xFFFFFFFDu : 0xFFFFFFFFu;
    return {seed, row, block, stream, stream - 1};
}

}  // namespace detail
}  // namespace headrace
