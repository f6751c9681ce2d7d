// Tests of random values: Philox against its published vectors, equal words in every lane and set, and the
// distributions.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "check.hpp"
#include "sets.hpp"

using namespace headrace;
using namespace headrace::tests;

namespace {

using Words32 = std::vector<uint32_t>;

// ---- a second implementation of Philox, from the paper ------------------------------------------------------------

struct Four {
    uint32_t w[4];
};

Four philox_of(Four c, uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        const uint64_t a = uint64_t(0xD2511F53u) * c.w[0], b = uint64_t(0xCD9E8D57u) * c.w[2];
        c = {{uint32_t(b >> 32) ^ c.w[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c.w[3] ^ k1, uint32_t(a)}};
    }
    return c;
}

// A test vector of Random123 (kat_vectors, philox4x32 with 10 rounds): counter, key, result.
struct Known {
    Four counter;
    uint32_t key[2];
    Four result;
};
constexpr Known known[] = {
    {{{0, 0, 0, 0}}, {0, 0}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
    {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
     {0xffffffff, 0xffffffff},
     {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
    {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
     {0xa4093822, 0x299f31d0},
     {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
};

void test_reference_philox() {
    for (const Known& k : known) {
        const Four got = philox_of(k.counter, k.key[0], k.key[1]);
        for (int w = 0; w < 4; ++w)
            CHECK(got.w[w] == k.result.w[w], "the test's own Philox, word %d: %08x instead of %08x", w, got.w[w],
                  k.result.w[w]);
    }
}

// Tests philox, whose counter is (row_low, row_high, block, stream) and whose key is the low and the high half of the
// seed.
void test_philox(const char* set, const char* lanes, decltype(Functions<float>::philox) philox) {
    for (const Known& k : known) {
        const Words32 low(granule, k.counter.w[0]), high(granule, k.counter.w[1]);
        Words32 out(4 * granule);
        philox(uint64_t(k.key[1]) << 32 | k.key[0], low.data(), high.data(), k.counter.w[2], k.counter.w[3], out.data(),
               granule);
        for (int w = 0; w < 4; ++w)
            for (int i = 0; i < granule; ++i)
                CHECK(out[w * granule + i] == k.result.w[w],
                      "Philox of a known vector, word %d: %08x instead of %08x, %s of %s", w, out[w * granule + i],
                      k.result.w[w], lanes, set);
    }
    constexpr int n = 4096;
    Words32 low(n), high(n), out(4 * n);
    for (uint32_t trial = 0; trial < 16; ++trial) {
        const Four seed = philox_of({{trial, 1, 0, 0}}, 3, 4);
        for (uint32_t i = 0; i < n; ++i) {
            const Four row = philox_of({{i, 0, 0, 0}}, trial, 7);
            low[i] = row.w[0];
            high[i] = row.w[1];
        }
        philox(uint64_t(seed.w[1]) << 32 | seed.w[0], low.data(), high.data(), seed.w[2], seed.w[3], out.data(), n);
        for (int i = 0; i < n; ++i) {
            const Four want = philox_of({{low[i], high[i], seed.w[2], seed.w[3]}}, seed.w[0], seed.w[1]);
            bool same = true;
            for (int w = 0; w < 4; ++w) same = same && out[w * n + i] == want.w[w];
            CHECK(same, "Philox of row %08x%08x, %s of %s, differs from the reference", high[i], low[i], lanes, set);
        }
    }
}

// ---- uniform values -----------------------------------------------------------------------------------------------

// Appends words for which every rounding occurs, and both ends of the interval.
void interesting_words(Words32& high, Words32& low) {
    const uint32_t ends[] = {0,          1,          2,          3,          0x7f,       0x80,
                             0xff,       0x100,      0x7fffff,   0x800000,   0x1000000,  0x1000001,
                             0x7fffffff, 0x80000000, 0x80000001, 0xfffffe00, 0xffffff00, 0xffffff7f,
                             0xffffff80, 0xffffffbf, 0xfffffffd, 0xfffffffe, 0xffffffff};
    for (uint32_t h : ends)
        for (uint32_t l : ends) {
            high.push_back(h);
            low.push_back(l);
        }
    for (uint32_t i = 0; i < 1 << 18; ++i) {
        const Four w = philox_of({{i, 0, 0, 0}}, 11, 0);
        high.push_back(w.w[0] >> (i % 32));  // also small words
        low.push_back(w.w[1]);
    }
    while (high.size() % granule) {
        high.push_back(0);
        low.push_back(0);
    }
}

template <class T>
void test_uniform(const NamedSet& named) {
    const Lanes<T>& lanes = lanes_of<T>(*named.set);
    Words32 high, low;
    interesting_words(high, low);
    const int64_t n = int64_t(high.size());
    std::vector<T> vector(n), scalar(n);
    lanes.vector.uniform(high.data(), low.data(), vector.data(), n);
    lanes.scalar.uniform(high.data(), low.data(), scalar.data(), n);
    for (int64_t i = 0; i < n; ++i) {
        const long double exact = sizeof(T) == 4 ? (long double)(high[i] >> 1) * 0x1p-31L + 0x1p-33L
                                                 : ((long double)high[i] * 0x1p32L + low[i] + 0.5L) * 0x1p-64L;
        CHECK(vector[i] > 0 && vector[i] <= 1, "uniform(%08x, %08x) gave %.17g, %s", high[i], low[i], double(vector[i]),
              named.name);
        CHECK(vector[i] == scalar[i], "uniform(%08x, %08x): %.17g in vector lanes, %.17g in scalar ones, %s", high[i],
              low[i], double(vector[i]), double(scalar[i]), named.name);
        const long double unit = std::numeric_limits<T>::epsilon() * exact;
        CHECK(std::fabs(vector[i] - exact) <= unit, "uniform(%08x, %08x) gave %.17g, %s", high[i], low[i],
              double(vector[i]), named.name);
    }
}

// ---- normal and logistic values -----------------------------------------------------------------------------------

template <class T>
std::vector<T> draw(const Functions<T>& functions, bool logistic, uint64_t seed, int64_t first_row, uint32_t block,
                    int64_t rows) {
    std::vector<T> out(4 * rows);
    functions.base_columns(logistic, seed, first_row, block, out.data(), rows);
    return out;
}

// The method of Box and Muller and the logistic quantile in long double, from the words (high, low) of four columns.
long double exact_uniform(uint32_t high, uint32_t low, bool twice) {
    return twice ? ((long double)high * 0x1p32L + low + 0.5L) * 0x1p-64L
                 : (long double)(high >> 1) * 0x1p-31L + 0x1p-33L;
}

template <class T>
void test_columns(const NamedSet& named) {
    constexpr bool twice = sizeof(T) == 8;
    const Lanes<T>& lanes = lanes_of<T>(*named.set);
    const char* type = twice ? "float64" : "float32";
    const long double turn = 2 * std::acos(-1.0L), epsilon = std::numeric_limits<T>::epsilon();
    constexpr int64_t n = 1 << 14;
    // Rows below and above 2^32, and a seed with high bits.
    const uint64_t seed = 0x0123456789abcdefu;
    const int64_t first = (int64_t(1) << 32) - n / 2;
    for (const bool logistic : {false, true}) {
        const std::vector<T> vector = draw(lanes.vector, logistic, seed, first, 5, n);
        const std::vector<T> scalar = draw(lanes.scalar, logistic, seed, first, 5, n);
        for (int64_t i = 0; i < n; ++i) {
            const uint64_t row = uint64_t(first + i);
            Four high, low{};
            high = philox_of({{uint32_t(row), uint32_t(row >> 32), 5, 0}}, uint32_t(seed), uint32_t(seed >> 32));
            if (twice)
                low = philox_of({{uint32_t(row), uint32_t(row >> 32), 5, 1}}, uint32_t(seed), uint32_t(seed >> 32));
            for (int k = 0; k < 4; ++k) {
                long double want, condition;
                if (logistic) {
                    const uint32_t rest = high.w[k] << 1 | (twice ? low.w[k] >> 31 : 0);
                    const long double tail = exact_uniform(rest, low.w[k] << 1, twice) / 2;
                    want = (high.w[k] >> 31 ? 1 : -1) * (std::log1p(-tail) - std::log(tail));
                    condition = 8 * (1 + std::fabs(want));
                } else {
                    const long double u = exact_uniform(high.w[k & 2], low.w[k & 2], twice);
                    const long double v = exact_uniform(high.w[k | 1], low.w[k | 1], twice);
                    const long double radius = std::sqrt(-2 * std::log(u));
                    want = radius * (k & 1 ? std::sin(turn * v) : std::cos(turn * v));
                    condition = 8 * (radius + 1 / std::max(radius, epsilon));  // u and v are rounded to T
                }
                for (const bool is_scalar : {false, true}) {
                    const T got = (is_scalar ? scalar : vector)[k * n + i];
                    CHECK(std::fabs(got - want) <= condition * epsilon,
                          "%s column %d of row %llu: %.17g instead of %.17Lg, %s, %s lanes of %s",
                          logistic ? "logistic" : "normal", k, (unsigned long long)row, double(got), want, type,
                          is_scalar ? "scalar" : "vector", named.name);
                }
            }
        }
        // The values of a row do not depend on the first row of a call.
        const std::vector<T> later = draw(lanes.vector, logistic, seed, first + granule + 1, 5, granule);
        for (int k = 0; k < 4; ++k)
            for (int64_t i = 0; i < granule; ++i)
                CHECK(later[k * granule + i] == vector[k * n + granule + 1 + i],
                      "%s column %d depends on the call, %s, %s", logistic ? "logistic" : "normal", k, type,
                      named.name);
    }
}

// Tests that the extreme values are finite, and within the documented limits.
template <class T>
void test_ends(const NamedSet& named) {
    const double limit = sizeof(T) == 4 ? 6.8 : 9.6;
    Words32 radius_high, radius_low;
    interesting_words(radius_high, radius_low);
    const int64_t n = int64_t(radius_high.size());
    Words32 high(4 * n), low(4 * n);
    for (int w = 0; w < 4; ++w)
        for (int64_t i = 0; i < n; ++i) {
            const int64_t from = w & 1 ? (i * 7 + 3) % n : i;
            high[w * n + i] = radius_high[from];
            low[w * n + i] = radius_low[from];
        }
    std::vector<T> out(4 * n);
    const Lanes<T>& lanes = lanes_of<T>(*named.set);
    for (const bool scalar : {false, true})
        for (const bool logistic : {false, true}) {
            (scalar ? lanes.scalar : lanes.vector).columns(logistic, high.data(), low.data(), out.data(), n);
            T largest = 0;
            for (T x : out) {
                CHECK(std::isfinite(x), "%s number is %g, %s", logistic ? "logistic" : "normal", double(x), named.name);
                largest = std::max(largest, std::fabs(x));
            }
            CHECK(logistic || (largest < limit && largest > limit - 0.2), "the largest normal number is %g, %s",
                  double(largest), named.name);
        }
}

// Tests that the 63 bits behind the sign of a logistic value are one fraction: where they increase by one, the value
// does not jump.
void test_logistic_is_continuous(const NamedSet& named) {
    const Lanes<double>& lanes = named.set->f64;
    for (const uint32_t bit : {0u, 1u, 2u, 3u, 7u, 1000u, 0x7ffffffeu}) {
        // The words of adjacent fractions around 2^-31 (bit + 1) and around 2^-31 (bit + 1/2), where the top bit of the
        // low word changes.
        Words32 high(4 * granule), low(4 * granule);
        const uint32_t at[4][2] = {{bit, 0x7fffffffu}, {bit, 0x80000000u}, {bit, 0xffffffffu}, {bit + 1, 0}};
        for (int i = 0; i < 4; ++i) {
            high[i] = at[i][0];
            low[i] = at[i][1];
        }
        std::vector<double> out(4 * granule);
        lanes.vector.columns(true, high.data(), low.data(), out.data(), granule);
        for (int i = 0; i < 4; i += 2)
            CHECK(std::fabs(out[i] - out[i + 1]) < 1e-7 * std::fabs(out[i]),
                  "logistic numbers of (%08x, %08x) and (%08x, %08x) are neighbours, got %.17g and %.17g, %s", at[i][0],
                  at[i][1], at[i + 1][0], at[i + 1][1], out[i], out[i + 1], named.name);
    }
}

// Tests that a float64 value is the float32 value with more digits.
void test_float64_refines_float32(const NamedSet& named) {
    constexpr int64_t n = 1 << 16;
    const double epsilon = 0x1p-24, cell = 0x1p-31;
    for (const bool logistic : {false, true}) {
        const std::vector<float> single = draw(named.set->f32.vector, logistic, 77, 1000, 2, n);
        const std::vector<double> twice = draw(named.set->f64.vector, logistic, 77, 1000, 2, n);
        for (int k = 0; k < 4; ++k)
            for (int64_t i = 0; i < n; ++i) {
                const double x = twice[k * n + i];
                double tolerance;  // float32 rounds u to `cell` or to its own precision; both values follow from one u
                if (logistic) {
                    const double tail = 1 / (1 + std::exp(std::fabs(x)));
                    tolerance = 8 * epsilon * (1 + std::fabs(x)) + 2 * cell / tail;
                } else {
                    const double radius = std::hypot(twice[(k & 2) * n + i], twice[(k | 1) * n + i]);
                    tolerance = 8 * epsilon * (radius + 1 / radius) + 2 * cell * std::exp(radius * radius / 2) / radius;
                }
                CHECK(std::fabs(single[k * n + i] - x) <= tolerance, "%s: float32 drew %.9g, float64 %.17g, %s",
                      logistic ? "logistic" : "normal", double(single[k * n + i]), x, named.name);
            }
    }
}

// Tests mean, variance, third and fourth moments, and the correlation of adjacent values, within five standard errors.
template <class T>
void test_moments(const NamedSet& named) {
    constexpr int64_t n = 1 << 18;
    const Functions<T>& functions = lanes_of<T>(*named.set).vector;
    const double pi = std::acos(-1.0);
    for (const bool logistic : {false, true}) {
        const double deviation = logistic ? pi / std::sqrt(3.0) : 1;
        const double fourth = logistic ? 4.2 : 3, sixth = logistic ? 279.0 / 7 : 15,
                     eighth = logistic ? 3429.0 / 5 : 105;
        const std::vector<T> x = draw(functions, logistic, 2024, 0, 0, n);
        for (int k = 0; k < 4; ++k) {
            double sums[4] = {}, with_next_row = 0, with_next_column = 0;
            for (int64_t i = 0; i < n; ++i) {
                const double v = x[k * n + i] / deviation;
                sums[0] += v;
                sums[1] += v * v;
                sums[2] += v * v * v;
                sums[3] += v * v * v * v;
                with_next_row += v * x[k * n + (i + 1) % n] / deviation;
                with_next_column += v * x[(k + 1) % 4 * n + i] / deviation;
            }
            const double want[4] = {0, 1, 0, fourth};
            const double spread[4] = {1, fourth - 1, sixth, eighth - fourth * fourth};
            for (int m = 0; m < 4; ++m)
                CHECK(std::fabs(sums[m] / n - want[m]) < 5 * std::sqrt(spread[m] / n),
                      "%s column %d, moment %d is %g instead of %g, float%d, %s", logistic ? "logistic" : "normal", k,
                      m + 1, sums[m] / n, want[m], int(8 * sizeof(T)), named.name);
            CHECK(std::fabs(with_next_row) < 5 * std::sqrt(double(n)), "%s column %d: rows are correlated, %s",
                  logistic ? "logistic" : "normal", k, named.name);
            CHECK(std::fabs(with_next_column) < 5 * std::sqrt(double(n)), "%s columns %d and %d are correlated, %s",
                  logistic ? "logistic" : "normal", k, (k + 1) % 4, named.name);
        }
    }
}

}  // namespace

int main() {
    test_reference_philox();
    const std::vector<NamedSet> sets = runnable_sets();
    for (const NamedSet& set : sets) {
        test_philox(set.name, "float32's vectors", set.set->f32.vector.philox);
        test_philox(set.name, "float64's vectors", set.set->f64.vector.philox);
        test_philox(set.name, "scalar lanes", set.set->f32.scalar.philox);
        test_uniform<float>(set);
        test_uniform<double>(set);
        test_columns<float>(set);
        test_columns<double>(set);
        test_ends<float>(set);
        test_ends<double>(set);
        test_logistic_is_continuous(set);
        test_float64_refines_float32(set);
        test_moments<float>(set);
        test_moments<double>(set);
    }
    return finish();
}
