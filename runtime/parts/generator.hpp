// NumPy's default generator, which chooses the members of an ensemble: PCG64 (O'Neill 2014), a linear congruential
// generator of 128 bits with permuted output (XSL-RR), whose seed a SeedSequence expands.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace headrace {
namespace detail {

// An integer modulo 2^128, in two halves.
struct Wide {
    std::uint64_t high = 0, low = 0;

    friend Wide operator+(Wide a, Wide b) {
        const std::uint64_t low = a.low + b.low;
        return {a.high + b.high + (low < a.low ? 1 : 0), low};
    }
    friend Wide operator*(Wide a, Wide b) {
        constexpr std::uint64_t half = 0xFFFFFFFFu;
        const std::uint64_t a0 = a.low & half, a1 = a.low >> 32, b0 = b.low & half, b1 = b.low >> 32;
        const std::uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & half);
        const std::uint64_t high = a1 * b1 + (middle >> 32) + (other >> 32);
        return {high + a.high * b.low + a.low * b.high, a.low * b.low};
    }
};

class Generator {
  public:
    // A generator equal to numpy.random.default_rng of the list of seeds.
    explicit Generator(std::initializer_list<std::uint64_t> seeds) {
        const std::array<std::uint64_t, 4> words = spread(seeds);
        increment_ = Wide{words[2] << 1 | words[3] >> 63, words[3] << 1 | 1};
        state_ = (increment_ + Wide{words[0], words[1]}) * multiplier() + increment_;
    }

    // Skips `count` values.
    void skip(std::uint64_t count) {
        Wide factor{0, 1}, sum{0, 0}, step = multiplier(), plus = increment_;
        for (; count; count >>= 1) {
            if (count & 1) {
                factor = factor * step;
                sum = sum * step + plus;
            }
            plus = (step + Wide{0, 1}) * plus;
            step = step * step;
        }
        state_ = factor * state_ + sum;
    }

    // The next uniform value in [0, 1), with 53 bits.
    double uniform() {
        state_ = state_ * multiplier() + increment_;
        const std::uint64_t mixed = state_.high ^ state_.low;
        const unsigned turn = static_cast<unsigned>(state_.high >> 58);
        const std::uint64_t word = mixed >> turn | mixed << ((64 - turn) & 63);
        return static_cast<double>(word >> 11) * 1.1102230246251565e-16;
    }

  private:
    static Wide multiplier() { return {0x2360ED051FC65DA4u, 0x4385DF649FCCF645u}; }

    // The words of a SeedSequence: a pool of four words of 32 bits, and eight words that are generated from the pool.
    static std::array<std::uint64_t, 4> spread(std::initializer_list<std::uint64_t> seeds) {
        std::vector<std::uint32_t> entropy;
        for (const std::uint64_t seed : seeds) {
            entropy.push_back(static_cast<std::uint32_t>(seed));
            if (seed >> 32) entropy.push_back(static_cast<std::uint32_t>(seed >> 32));
        }
        std::uint32_t constant = 0x43B0D7E5u;
        const auto hashed = [&](std::uint32_t value, std::uint32_t factor) {
            value ^= constant;
            constant *= factor;
            value *= constant;
            return value ^ value >> 16;
        };
        const auto mixed = [](std::uint32_t x, std::uint32_t y) {
            const std::uint32_t value = 0xCA01F9DDu * x - 0x4973F715u * y;
            return value ^ value >> 16;
        };
        std::array<std::uint32_t, 4> pool{};
        for (std::size_t i = 0; i < 4; ++i) pool[i] = hashed(i < entropy.size() ? entropy[i] : 0, 0x931E8875u);
        for (std::size_t from = 0; from < 4; ++from)
            for (std::size_t to = 0; to < 4; ++to)
                if (from != to) pool[to] = mixed(pool[to], hashed(pool[from], 0x931E8875u));
        for (std::size_t from = 4; from < entropy.size(); ++from)
            for (std::uint32_t& word : pool) word = mixed(word, hashed(entropy[from], 0x931E8875u));
        std::array<std::uint64_t, 4> out{};
        constant = 0x8B51F9DDu;
        for (std::size_t i = 0; i < 8; ++i)
            out[i / 2] |= std::uint64_t(hashed(pool[i % 4], 0x58F38DEDu)) << 32 * (i % 2);
        return out;
    }

    Wide state_, increment_;
};

}  // namespace detail
}  // namespace headrace
