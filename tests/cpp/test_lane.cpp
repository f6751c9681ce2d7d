// Compares lane functions of vectors and of scalars with the next wider type, in every runnable instruction set.
//
//   test_lane [--all | --stride N] [--samples N] [--isa NAME] [--function NAME]
//
// Inputs in float32 are every N-th of the 2^32 floats (--all: all floats), and in float64 N sampled values. Inputs of
// both types include special values, and the neighbours of points at which a function changes its method.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "sets.hpp"

using namespace headrace;
using namespace headrace::tests;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

// ---- the largest allowed errors, in units in the last place of the exact result, as in lane.hpp -------------------

struct Range {
    double low, high;
};

struct Bound {
    const char* name;
    double single, twice;  // bounds for float32 and for float64
    Range single_range = {-inf, inf}, twice_range = {-inf, inf};
};

// Below the ranges of gate_sigmoid, silu and gelu, the sigmoid and the distribution function are subnormal. Below the
// range of gelu_tanh, the rounding error of the exponent, which is proportional to the exponent, dominates. In
// positive_slope the rounding error of x + shift grows with x. Beyond the range of bend_slope, the function keeps its
// last value, which affects no result.
constexpr Bound bounds[] = {
    {"exp", 1.1, 1.1},
    {"exp_moderate", 1.1, 1.1, {-87, 87}, {-708, 708}},
    {"expm1", 2, 2},
    {"log", 0.9, 0.9},
    {"log1p", 1.6, 1.6, {-0.5, 1}, {-0.5, 1}},
    {"tanh", 2.7, 2.7},
    {"sigmoid", 2.5, 2.5},
    {"softplus", 2.2, 2.2},
    {"normal_cdf", 6.5, 6.5},
    {"gate_tanh", 5, 5},
    {"gate_sigmoid", 5, 5, {-86, inf}, {-708, inf}},
    {"open_tanh", 4.5, 4.5},
    {"open_sigmoid", 4.5, 4.5, {-86, inf}, {-708, inf}},
    {"sin_turns", 2.5, 2.5, {0, 1}, {0, 1}},
    {"cos_turns", 2.5, 2.5, {0, 1}, {0, 1}},
    {"elu", 2, 2},
    {"silu", 3.5, 3.5, {-87, inf}, {-708, inf}},
    {"gelu", 7, 7, {-12.8, inf}, {-37.4, inf}},
    {"gelu_tanh", 9, 9, {-2, inf}, {-2, inf}},
    {"positive", 3, 3},
    {"excess", 6, 6},
    {"positive_slope", 16, 16, {-20, inf}, {-20, inf}},
    {"bend", 3.2, 3.2},
    {"bend_slope", 3.2, 3.2, {-40, 40}, {-350, 350}},
    {"bend_rest", 7.5, 7.5},
};
static_assert(std::size(bounds) == size_t(Tested::count));

// Vector and scalar lanes have the same arithmetic, because products in sums are explicit multiply-adds.
constexpr double most_between_lanes = 0;

// ---- references ---------------------------------------------------------------------------------------------------

constexpr long double pi = 3.14159265358979323846264338327950288L;

template <class W>
W sigmoid_of(W x) {
    const W e = std::exp(-std::fabs(x));
    return (x < 0 ? e : W(1)) / (1 + e);
}

template <class W>
W softplus_of(W x) {
    return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x)));
}

// The least value of the function `positive`, whose value at 0 is 1.
constexpr long double least = 1e-3L;
template <class W>
W shift_of() {
    return std::log(std::expm1(W(1 - least)));
}

// The normal distribution function erfc(-x / sqrt 2) / 2, in whose far tail rounding x would be visible in long double.
template <class W>
W normal_cdf_of(W x) {
    const W root = W(0.707106781186547524400844362104849039L), t = -x * root;
    W tail = std::erfc(t);
    if constexpr (sizeof(W) > sizeof(double)) {
        if (x < -1 && x > -50) {
            const W root_low = W(0.5L - root * root) * W(0.707106781186547524400844362104849039L);
            const W rest = std::fma(-x, root, -t) - x * root_low;
            tail -= W(2 / std::sqrt(pi)) * std::exp(-t * t) * rest;
        }
    }
    return tail / 2;
}

// The sine of u turns, shifted by quarters of a turn; the reduction of u to an eighth of a turn is exact.
template <class W>
W sine_of_turns(W u, int quarters) {
    const W whole = std::nearbyint(u * 4), angle = (u * 4 - whole) * W(pi / 2);
    const int quadrant = (int(whole) + quarters) & 3;
    const W value = quadrant & 1 ? std::cos(angle) : std::sin(angle);
    return quadrant & 2 ? -value : value;
}

template <class W>
W reference(Tested function, W x) {
    switch (function) {
        case Tested::exp:
        case Tested::exp_moderate: return std::exp(x);
        case Tested::expm1: return std::expm1(x);
        case Tested::log: return std::log(x);
        case Tested::log1p: return std::log1p(x);
        case Tested::tanh: return std::tanh(x);
        case Tested::sigmoid: return sigmoid_of(x);
        case Tested::softplus: return softplus_of(x);
        case Tested::normal_cdf: return normal_cdf_of(x);
        case Tested::gate_tanh: return std::tanh(x) * sigmoid_of(W(0.75));
        case Tested::gate_sigmoid: return std::tanh(W(0.75)) * sigmoid_of(x);
        case Tested::open_tanh: return std::tanh(x);
        case Tested::open_sigmoid: return sigmoid_of(x);
        case Tested::sin_turns: return sine_of_turns(x, 0);
        case Tested::cos_turns: return sine_of_turns(x, 1);
        case Tested::elu: return x < 0 ? std::expm1(x) : x;
        case Tested::silu: return x * sigmoid_of(x);
        case Tested::gelu: return x * normal_cdf_of(x);
        case Tested::gelu_tanh: return x * sigmoid_of(2 * std::sqrt(2 / W(pi)) * (x + W(0.044715L) * x * x * x));
        case Tested::positive: return W(least) + softplus_of(x + shift_of<W>());
        case Tested::excess:
            return std::fabs(x) < W(1) ? std::log1p(-std::expm1(W(least) - 1) * std::expm1(x))
                                       : softplus_of(x + shift_of<W>()) - (1 - W(least));
        case Tested::positive_slope: return sigmoid_of(x + shift_of<W>());
        case Tested::bend: return std::tanh(x);
        case Tested::bend_slope: return 1 / (std::cosh(x) * std::cosh(x));
        case Tested::bend_rest: return std::tanh(x) * std::tanh(x);
        case Tested::count: break;
    }
    return x;
}

// ---- values -------------------------------------------------------------------------------------------------------

template <class T>
struct Wider;
template <>
struct Wider<float> {
    using Type = double;
    using Bits = uint32_t;
};
template <>
struct Wider<double> {
    using Type = long double;
    using Bits = uint64_t;
};
template <class T>
using Wide = typename Wider<T>::Type;
template <class T>
using Bits = typename Wider<T>::Bits;

template <class T>
T from_bits(Bits<T> bits) {
    T x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

template <class T>
Bits<T> to_bits(T x) {
    Bits<T> bits;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}

// The inverse of the distance between adjacent values of T around x; 0 where x is not finite.
template <class T>
Wide<T> units_of(Wide<T> x) {
    using L = std::numeric_limits<T>;
    if (!std::isfinite(x)) return 0;
    constexpr int lowest = L::min_exponent - 1, highest = L::max_exponent - 1;
    if constexpr (sizeof(Wide<T>) == sizeof(double)) {  // by bits: the function is called for each of 2^32 floats
        const int exponent = int(to_bits(double(x)) >> 52 & 0x7ff) - 1023;
        return from_bits<double>(uint64_t(1023 + L::digits - 1 - std::clamp(exponent, lowest, highest)) << 52);
    } else {
        const int exponent = x == 0 ? lowest : std::clamp(std::ilogb(x), lowest, highest);
        return std::ldexp(Wide<T>(1), L::digits - 1 - exponent);
    }
}

// The error of `got` in units in the last place; a wrong infinity counts as the next power of two.
template <class T>
double error_of(T got, Wide<T> want, Wide<T> units) {
    if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got) ? 0 : inf;
    if (got == T(want)) return units == 0 || std::isinf(got) ? 0 : double(std::fabs(got - want) * units);
    if (std::isinf(want)) return inf;
    const Wide<T> value =
        std::isinf(got) ? std::copysign(std::ldexp(Wide<T>(1), std::numeric_limits<T>::max_exponent), Wide<T>(got))
                        : Wide<T>(got);
    return double(std::fabs(value - want) * units);
}

struct Random {
    uint64_t state = 1;
    uint64_t next() {  // the generator splitmix64
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    double uniform(double low, double high) { return low + (high - low) * double(next() >> 11) * 0x1p-53; }
};

template <class T>
std::vector<T> special_values() {
    using L = std::numeric_limits<T>;
    constexpr int around = 4;
    const long double ln2 = std::log(2.0L);
    std::vector<T> places = {T(0), L::denorm_min(),    L::min(),          L::max(), T(0.5), T(1), T(2),
                             T(3), T(std::sqrt(0.5L)), T(std::sqrt(2.0L))};
    // Points at which arguments are clamped, results become subnormal or overflow, and bits of a result are lost.
    for (int i = 1; i <= 120; ++i) places.push_back(T(i));
    for (double x : {700.0,
                     708.0,
                     708.4,
                     709.0,
                     709.7827128933841,
                     710.0,
                     744.0,
                     745.0,
                     745.1332191019412,
                     745.5,
                     746.0,
                     87.33654,
                     88.0,
                     88.02969,
                     88.72283,
                     103.27893,
                     103.97208,
                     12.84,
                     13.2,
                     14.17,
                     37.5193,
                     38.4,
                     38.5674})
        places.push_back(T(x));
    for (int k = 0; k <= 2200; ++k) places.push_back(T(k * ln2 / 2));                   // ends of the reduction of exp
    for (int k = -8; k <= 8; ++k) places.push_back(T(std::ldexp(std::sqrt(0.5L), k)));  // ends of the reduction of log
    for (int k = 0; k <= 64; ++k) places.push_back(T(k) / 64);                          // angles in turns
    for (int k = L::min_exponent - L::digits; k < L::max_exponent; ++k) places.push_back(std::ldexp(T(1), k));
    std::vector<T> values = {L::infinity(), -L::infinity(), L::quiet_NaN(), -L::quiet_NaN(), L::signaling_NaN()};
    for (T place : places) {
        const Bits<T> bits = to_bits(place);
        for (int step = -around; step <= around; ++step) {
            if (step < 0 && bits < Bits<T>(-step)) continue;
            const T x = from_bits<T>(bits + Bits<T>(step));
            values.insert(values.end(), {x, -x});
        }
    }
    while (values.size() % granule) values.push_back(T(0));
    return values;
}

// ---- measuring ----------------------------------------------------------------------------------------------------

template <class T>
struct Worst {
    double error = 0;
    T at = 0;
};

constexpr int64_t block = 4096;

// The only function that is measured (--function); empty: all functions.
std::string only_function;
bool is_measured(int f) {
    return only_function.empty() || only_function == bounds[f].name;
}

// The largest errors for one type, by function and set.
template <class T>
class Survey {
  public:
    explicit Survey(const std::vector<NamedSet>& sets) : sets_(sets) {
        for (auto& row : worst_) row.resize(2 * sets.size());
        for (auto& row : between_) row.resize(sets.size());
    }

    void measure(const T* x, int64_t n) {
        count_ += n;
        for (int f = 0; f < int(Tested::count); ++f) {
            if (!is_measured(f)) continue;
            const Range range = sizeof(T) == 4 ? bounds[f].single_range : bounds[f].twice_range;
            // The result of a function is checked for arguments within its range, and for NaN, which must give NaN.
            bool any = false;
            for (int64_t i = 0; i < n; ++i) {
                inside_[i] = (x[i] >= T(range.low) && x[i] <= T(range.high)) || std::isnan(x[i]);
                any = any || inside_[i];
            }
            if (!any) continue;
            for (int64_t i = 0; i < n; ++i) {
                want_[i] = inside_[i] ? reference<Wide<T>>(Tested(f), Wide<T>(x[i])) : Wide<T>(0);
                units_[i] = inside_[i] ? units_of<T>(want_[i]) : Wide<T>(0);
            }
            for (size_t s = 0; s < sets_.size(); ++s) {
                const Lanes<T>& lanes = lanes_of<T>(*sets_[s].set);
                lanes.vector.tested[f](x, got_[0], n);
                lanes.scalar.tested[f](x, got_[1], n);
                for (int scalar = 0; scalar < 2; ++scalar) {
                    Worst<T>& worst = worst_[f][2 * s + scalar];
                    for (int64_t i = 0; i < n; ++i) {
                        if (std::fabs(got_[scalar][i] - want_[i]) * units_[i] <= worst.error || !inside_[i]) continue;
                        const double error = error_of<T>(got_[scalar][i], want_[i], units_[i]);
                        if (error > worst.error) worst = {error, x[i]};
                    }
                }
                Worst<T>& between = between_[f][s];
                for (int64_t i = 0; i < n; ++i) {
                    if (std::fabs(Wide<T>(got_[0][i]) - got_[1][i]) * units_[i] <= between.error || !inside_[i])
                        continue;
                    const double error = error_of<T>(got_[0][i], Wide<T>(got_[1][i]), units_[i]);
                    if (error > between.error) between = {error, x[i]};
                }
            }
        }
    }

    void report() const {
        const char* type = sizeof(T) == 4 ? "float32" : "float64";
        std::printf("\n%s: largest error in units in the last place, %lld numbers\n%-12s%8s", type, (long long)count_,
                    "", "bound");
        for (const NamedSet& set : sets_) std::printf("%9s%9s%9s", set.name, "scalar", "between");
        std::printf("   worst at\n");
        for (int f = 0; f < int(Tested::count); ++f) {
            if (!is_measured(f)) continue;
            const double bound = sizeof(T) == 4 ? bounds[f].single : bounds[f].twice;
            std::printf("%-12s%8.2f", bounds[f].name, bound);
            Worst<T> worst;
            for (size_t s = 0; s < sets_.size(); ++s) {
                for (int scalar = 0; scalar < 2; ++scalar) {
                    const Worst<T>& w = worst_[f][2 * s + scalar];
                    std::printf("%9.3f", w.error);
                    if (w.error > worst.error) worst = w;
                }
                std::printf("%9.3f", between_[f][s].error);
            }
            std::printf("   %.17g\n", double(worst.at));
        }
        for (int f = 0; f < int(Tested::count); ++f) {
            if (!is_measured(f)) continue;
            const double bound = sizeof(T) == 4 ? bounds[f].single : bounds[f].twice;
            for (size_t s = 0; s < sets_.size(); ++s) {
                for (int scalar = 0; scalar < 2; ++scalar) {
                    const Worst<T>& w = worst_[f][2 * s + scalar];
                    CHECK(w.error <= bound, "%s, %s, %s lanes of %s: %.3f units at %.17g, the bound is %.2f",
                          bounds[f].name, type, scalar ? "scalar" : "vector", sets_[s].name, w.error, double(w.at),
                          bound);
                }
                const Worst<T>& w = between_[f][s];
                CHECK(w.error <= most_between_lanes,
                      "%s, %s, %s: vector and scalar lanes are %.3f units apart at %.17g", bounds[f].name, type,
                      sets_[s].name, w.error, double(w.at));
            }
        }
    }

  private:
    const std::vector<NamedSet>& sets_;
    std::vector<Worst<T>> worst_[int(Tested::count)];    // of vector and scalar lanes, for each set
    std::vector<Worst<T>> between_[int(Tested::count)];  // distances of vector and scalar lanes
    int64_t count_ = 0;
    bool inside_[block];
    Wide<T> want_[block], units_[block];
    T got_[2][block];
};

template <class T>
void measure_all(Survey<T>& survey, const std::vector<T>& values) {
    for (size_t i = 0; i < values.size(); i += block)
        survey.measure(values.data() + i, int64_t(std::min<size_t>(block, values.size() - i)));
}

void survey_floats(Survey<float>& survey, uint64_t stride) {
    static float x[block];
    for (uint64_t bits = 0; bits < uint64_t(1) << 32;) {
        for (int64_t i = 0; i < block; ++i, bits += stride)
            x[i] = from_bits<float>(uint32_t(bits));  // the last block continues at the first float
        survey.measure(x, block);
    }
}

void survey_doubles(Survey<double>& survey, int64_t samples) {
    Random random;
    static double x[block];
    for (int64_t done = 0; done < samples; done += block) {
        for (int64_t i = 0; i < block; ++i) {
            const double sign = random.next() & 1 ? 1 : -1;
            switch (i % 8) {
                case 0: x[i] = from_bits<double>(random.next()); break;
                case 1: x[i] = sign * std::exp2(random.uniform(-60, 11)); break;  // values whose logarithm is uniform
                case 2: x[i] = random.uniform(-750, 750); break;
                case 3: x[i] = random.uniform(-40, 10); break;
                case 4: x[i] = random.uniform(-2, 2); break;
                case 5: x[i] = random.uniform(0.5, 2); break;
                default: x[i] = random.uniform(0, 1);
            }
        }
        survey.measure(x, block);
    }
}

// ---- exact results ------------------------------------------------------------------------------------------------

template <class T>
void test_exact_functions(const NamedSet& named, const std::vector<T>& special) {
    using L = std::numeric_limits<T>;
    std::vector<T> x = special;
    Random random;
    for (int i = 0; i < 1 << 16; ++i) x.push_back(from_bits<T>(Bits<T>(random.next())));
    std::vector<T> y(x.size()), out(x.size());
    const int64_t n = int64_t(x.size());
    const auto& lanes = lanes_of<T>(*named.set);
    for (const bool scalar : {false, true}) {
        const Functions<T>& functions = scalar ? lanes.scalar : lanes.vector;
        const auto each = [&](Exact function, const char* name, auto want, auto same) {
            functions.exact[int(function)](x.data(), y.data(), out.data(), n);
            for (int64_t i = 0; i < n; ++i)
                CHECK(same(out[i], want(x[i], y[i])), "%s(%.17g, %.17g) gave %.17g, %s lanes of %s, float%d", name,
                      double(x[i]), double(y[i]), double(out[i]), scalar ? "scalar" : "vector", named.name,
                      int(8 * sizeof(T)));
        };
        const auto bits = [](T a, T b) { return to_bits(a) == to_bits(b); };
        const auto bits_or_nan = [](T a, T b) { return to_bits(a) == to_bits(b) || (std::isnan(a) && std::isnan(b)); };
        const auto value = [](T a, T b) { return a == b || (std::isnan(a) && std::isnan(b)); };
        for (T& v : y) v = from_bits<T>(Bits<T>(random.next()));
        each(Exact::sqrt, "sqrt", [](T a, T) { return std::sqrt(a); }, bits_or_nan);
        each(Exact::abs, "abs", [](T a, T) { return std::fabs(a); }, bits);
        each(Exact::copy_sign, "copy_sign", [](T a, T b) { return std::copysign(a, b); }, bits);
        each(Exact::relu, "relu", [](T a, T) { return std::isnan(a) ? a : std::fmax(a, T(0)); }, value);
        for (const T limit : {T(0), T(-0.0), T(1), T(-2.5), L::denorm_min(), L::max(), L::infinity(), -L::infinity()}) {
            std::fill(y.begin(), y.end(), limit);
            each(Exact::min, "min", [](T a, T b) { return std::isnan(a) ? a : std::fmin(a, b); }, value);
            each(Exact::max, "max", [](T a, T b) { return std::isnan(a) ? a : std::fmax(a, b); }, value);
        }
    }
}

template <class T>
void test_special_results(const NamedSet& named) {
    using L = std::numeric_limits<T>;
    const T infinite = L::infinity(), nan = L::quiet_NaN(), tiny = L::denorm_min(), most = L::max();
    struct Case {
        Tested function;
        T x, want;
        bool with_sign = false;  // whether the sign of a zero is compared
    };
    using F = Tested;
    const Case cases[] = {
        {F::exp, 0, 1},
        {F::exp, T(-0.0), 1},
        {F::exp, infinite, infinite},
        {F::exp, -infinite, 0},
        {F::exp, most, infinite},
        {F::exp, -most, 0},
        {F::exp, tiny, 1},
        {F::expm1, 0, 0},
        {F::expm1, T(-0.0), 0},
        {F::expm1, infinite, infinite},
        {F::expm1, -infinite, -1},
        {F::expm1, most, infinite},
        {F::expm1, -most, -1},
        {F::log, 0, -infinite},
        {F::log, T(-0.0), -infinite},
        {F::log, 1, 0},
        {F::log, infinite, infinite},
        {F::log, -infinite, nan},
        {F::log, -1, nan},
        {F::log, -tiny, nan},
        {F::log, -most, nan},
        {F::log1p, 0, 0},
        {F::log1p, tiny, tiny},
        {F::tanh, 0, 0, true},
        {F::tanh, T(-0.0), T(-0.0), true},
        {F::tanh, infinite, 1},
        {F::tanh, -infinite, -1},
        {F::tanh, most, 1},
        {F::tanh, -most, -1},
        {F::sigmoid, 0, T(0.5)},
        {F::sigmoid, infinite, 1},
        {F::sigmoid, -infinite, 0},
        {F::sigmoid, -most, 0},
        {F::softplus, infinite, infinite},
        {F::softplus, -infinite, 0},
        {F::softplus, most, most},
        {F::softplus, -most, 0},
        {F::normal_cdf, 0, T(0.5)},
        {F::normal_cdf, infinite, 1},
        {F::normal_cdf, -infinite, 0},
        {F::normal_cdf, -most, 0},
        {F::sin_turns, 0, 0},
        {F::sin_turns, T(0.25), 1},
        {F::sin_turns, T(0.5), 0},
        {F::sin_turns, T(0.75), -1},
        {F::sin_turns, 1, 0},
        {F::cos_turns, 0, 1},
        {F::cos_turns, T(0.25), 0},
        {F::cos_turns, T(0.5), -1},
        {F::cos_turns, T(0.75), 0},
        {F::cos_turns, 1, 1},
        {F::elu, infinite, infinite},
        {F::elu, -infinite, -1},
        {F::silu, infinite, infinite},
        {F::silu, T(-1e4), 0},
        {F::silu, -infinite, 0},
        {F::gelu, infinite, infinite},
        {F::gelu, T(-1e4), 0},
        {F::gelu, -infinite, 0},
        {F::gelu_tanh, infinite, infinite},
        {F::gelu_tanh, T(-1e4), 0},
        {F::gelu_tanh, -infinite, 0},
    };
    const auto& lanes = lanes_of<T>(*named.set);
    for (const bool scalar : {false, true})
        for (const Case& c : cases) {
            T x[granule], out[granule];
            std::fill(x, x + granule, c.x);
            (scalar ? lanes.scalar : lanes.vector).tested[int(c.function)](x, out, granule);
            for (T got : out)
                CHECK((got == c.want && (!c.with_sign || std::signbit(got) == std::signbit(c.want))) ||
                          (std::isnan(got) && std::isnan(c.want)),
                      "%s(%.17g) gave %.17g instead of %.17g, %s lanes of %s, float%d", bounds[int(c.function)].name,
                      double(c.x), double(got), double(c.want), scalar ? "scalar" : "vector", named.name,
                      int(8 * sizeof(T)));
        }
}

}  // namespace

int main(int argc, char** argv) {
    uint64_t stride = 251;
    int64_t samples = 3000000;
    std::string only;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--all") {
            stride = 1;
        } else if (option == "--stride" && i + 1 < argc) {
            stride = std::max(1ull, std::strtoull(argv[++i], nullptr, 10));
        } else if (option == "--samples" && i + 1 < argc) {
            samples = std::strtoll(argv[++i], nullptr, 10);
        } else if (option == "--isa" && i + 1 < argc) {
            only = argv[++i];
        } else if (option == "--function" && i + 1 < argc) {
            only_function = argv[++i];
        } else {
            std::fprintf(stderr,
                         "usage: test_lane [--all | --stride N] [--samples N] [--isa NAME] [--function NAME]\n");
            return 2;
        }
    }
    std::vector<NamedSet> sets = runnable_sets();
    if (!only.empty()) std::erase_if(sets, [&](const NamedSet& set) { return only != set.name; });
    if (sets.empty()) {
        std::printf("skipped: there is no instruction set to test\n");
        return 0;
    }
    const std::vector<float> special_floats = special_values<float>();
    const std::vector<double> special_doubles = special_values<double>();
    for (const NamedSet& set : sets) {
        test_exact_functions(set, special_floats);
        test_exact_functions(set, special_doubles);
        test_special_results<float>(set);
        test_special_results<double>(set);
    }
    const auto singles = std::make_unique<Survey<float>>(sets);
    measure_all(*singles, special_floats);
    survey_floats(*singles, stride);
    singles->report();
    if (std::numeric_limits<long double>::digits > std::numeric_limits<double>::digits) {
        const auto doubles = std::make_unique<Survey<double>>(sets);
        measure_all(*doubles, special_doubles);
        survey_doubles(*doubles, samples);
        doubles->report();
    } else {
        std::printf("skipped: float64 accuracy, as long double is no wider than double here\n");
    }
    return finish();
}
