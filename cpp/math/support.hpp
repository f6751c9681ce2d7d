// Maps between unbounded values and values of a column's support, always in float64: near a bound only the distance to
// the bound matters, and float64 data have more digits of this distance than a float32 copy.
#pragma once

#include "lane.hpp"

namespace headrace {

// THE list of supports that a column may have; bindings/structure.cpp has the names of supports in Python.
enum class Support : int { any, lower, upper, interval, linear, circle };

struct SupportColumn {
    Support kind;
    double low, high;
    double least, most;            // the least and the largest value inside the bounds in the program's dtype
    double wide_least, wide_most;  // the least and the largest float64 value inside
};

// A mapped value, log |derivative| of the map, the derivative, and the slope of the log-derivative.
struct Supported {
    double value, log_det, slope, bend;
};

namespace {

HR_FN double circle_turns(double t) {  // t modulo 1, in [0, 1); values without fractional digits give 0
    if (!(t < 0x1p62 && t > -0x1p62)) return t - t;
    t -= double(int64_t(t));
    if (t < 0) t += 1;
    return t < 1 ? t : 0.0;
}

// Maps an unbounded value to its support. Each of the maps is increasing: lower + e^y, upper - e^-y, lower + width / (1
// + e^-y). `linear` maps [-1, 1] to the interval, so that a density need not vanish at the ends; `inside` moves values
// beyond an end to the end.
HR_CALLED Supported to_support(const SupportColumn& c, double y) {
    const double e = exp(-abs(y)), width = c.high - c.low;
    switch (c.kind) {
        case Support::any: return {y, 0, 1, 0};
        case Support::lower: {
            const double d = exp(y);
            return {c.low + d, y, d, 1};
        }
        case Support::upper: {
            const double d = exp(-y);
            return {c.high - d, -y, d, -1};
        }
        case Support::interval: {
            const double near = product(width, e / (1 + e)), share = 1 / (1 + e);  // near is the distance to the nearer
                                                                                   // bound
            const double x = y < 0 ? c.low + near : c.high - near;
            return {x, fma(-2.0, log1p(e), log(width) - abs(y)), near * share, (e - 1) * share * (y < 0 ? -1.0 : 1.0)};
        }
        case Support::linear:
            return {y < 0 ? c.low + 0.5 * width * (1 + y) : c.high - 0.5 * width * (1 - y), log(0.5 * width),
                    0.5 * width, y - y};
        case Support::circle: break;
    }
    return {fma(width, circle_turns(0.5 * (y + 1)), c.low), log(0.5 * width), 0.5 * width, y - y};
}

// Maps a value of the support to an unbounded value: NaN beyond a bound, and an infinity on the bound.
HR_CALLED Supported from_support(const SupportColumn& c, double x) {
    const double below = x - c.low, above = c.high - x, width = c.high - c.low;
    switch (c.kind) {
        case Support::any: return {x, 0, 1, 0};
        case Support::lower: {
            const double y = log(below);
            return {y, -y, 1 / below, -1 / below};
        }
        case Support::upper: {
            const double y = -log(above);
            return {y, y, 1 / above, 1 / above};
        }
        case Support::interval: {
            const double l = log(below), h = log(above);
            return {l - h, log(width) - l - h, 1 / below + 1 / above, 1 / above - 1 / below};
        }
        case Support::linear:
            return {below < above ? 2 * (below / width) - 1 : 1 - 2 * (above / width), log(2 / width), 2 / width,
                    x - x};
        case Support::circle: break;
    }
    return {fma(2.0, circle_turns(below / width), -1.0), log(2 / width), 2 / width, x - x};
}

// Whether a value is finite but has no density, because it is on or beyond a bound; bounds are rounded to the rows'
// dtype.
HR_FN bool is_outside(const SupportColumn& c, double x, bool is_double) {
    if (!(x - x == 0)) return false;
    const double low = is_double ? c.low : double(float(c.low)), high = is_double ? c.high : double(float(c.high));
    const bool has_both = c.kind == Support::interval || c.kind == Support::linear;
    const bool has_low = c.kind == Support::lower || has_both;
    const bool has_high = c.kind == Support::upper || has_both;
    return (has_low && !(x > low)) || (has_high && !(x < high));
}

// Whether a finite row with a finite context has no density, because one of its values is on or beyond a bound.
template <class Column, class Context>
HR_FN bool is_row_outside(const SupportColumn* support, int features, int context, bool is_double, const Column& column,
                          const Context& context_column) {
    bool found = false;
    for (int c = 0; c < features; ++c) {
        const double x = column(c);
        if (!(x - x == 0)) return false;
        found = found || is_outside(support[c], x, is_double);
    }
    for (int c = 0; c < context; ++c)
        if (const double x = context_column(c); !(x - x == 0)) return false;
    return found;
}

// Maps a value of a row; the result is NaN if the value is outside of the support.
HR_FN Supported from_row(const SupportColumn& c, double x, bool is_double) {
    Supported made = from_support(c, x);
    if (is_outside(c, x, is_double)) made.value = made.log_det = not_a_number<double>();
    return made;
}

// The output for a mapped value: a value that rounds to a bound or beyond becomes the nearest value inside.
template <class Out>
HR_FN Out inside(const SupportColumn& c, double x, bool is_wide) {
    const double least = is_wide ? c.wide_least : c.least, most = is_wide ? c.wide_most : c.most;
    const double value = double(Out(x));
    return value < least ? Out(least) : value > most ? Out(most) : Out(value);  // a NaN stays NaN
}

}  // namespace
}  // namespace headrace
