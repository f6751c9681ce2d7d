// Arithmetic instructions on the values of a lane, by type. NaNs, ranges and roundings follow the PTX manual.
#pragma once

#include <cmath>
#include <limits>

#include "warp.hpp"

namespace ptx {

template <class T>
constexpr bool is_float = std::is_floating_point_v<T>;
template <class T>
using Unsigned = std::make_unsigned_t<T>;

struct Add {
    template <class T>
    static T of(T a, T b) {
        if constexpr (is_float<T>) {
            return a + b;
        } else {
            return T(Unsigned<T>(a) + Unsigned<T>(b));
        }
    }
};
struct Sub {
    template <class T>
    static T of(T a, T b) {
        if constexpr (is_float<T>) {
            return a - b;
        } else {
            return T(Unsigned<T>(a) - Unsigned<T>(b));
        }
    }
};
struct Mul {
    template <class T>
    static T of(T a, T b) {
        if constexpr (is_float<T>) {
            return a * b;
        } else {
            return T(uint64_t(Unsigned<T>(a)) * uint64_t(Unsigned<T>(b)));
        }
    }
};
struct MulHigh {
    template <class T>
    static T of(T a, T b) {
        using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
        return T((Wide(a) * Wide(b)) >> (8 * sizeof(T)));
    }
};
// Division. In two cases integers have no quotient: for the divisor zero, a card returns all ones, and for the least
// integer divided by -1, a card returns the dividend.
struct Div {
    template <class T>
    static T of(T a, T b) {
        if constexpr (is_float<T>) {
            return a / b;
        } else {
            if (b == 0) return T(-1);
            if (std::is_signed_v<T> && b == T(-1)) return T(0 - Unsigned<T>(a));
            return T(a / b);
        }
    }
};
struct Rem {
    template <class T>
    static T of(T a, T b) {
        if (b == 0) return a;
        if (std::is_signed_v<T> && b == T(-1)) return T(0);
        return T(a % b);
    }
};
// Minimum. The minimum of a number and a NaN is the number, and -0 is less than +0.
struct Min {
    template <class T>
    static T of(T a, T b) {
        if constexpr (is_float<T>) {
            if (a != a) return b;
            if (b != b) return a;
            if (a == b) return std::signbit(a) ? a : b;
        }
        return a < b ? a : b;
    }
};
struct Max {
    template <class T>
    static T of(T a, T b) {
        if constexpr (is_float<T>) {
            if (a != a) return b;
            if (b != b) return a;
            if (a == b) return std::signbit(a) ? b : a;
        }
        return a > b ? a : b;
    }
};
struct And {
    template <class T>
    static T of(T a, T b) {
        return T(a & b);
    }
};
struct Or {
    template <class T>
    static T of(T a, T b) {
        return T(a | b);
    }
};
struct Xor {
    template <class T>
    static T of(T a, T b) {
        return T(a ^ b);
    }
};
// A shift by as many bits as the type has, or more, returns zero, or copies of the sign bit.
struct ShiftLeft {
    template <class T>
    static T of(T a, uint32_t by) {
        return by >= 8 * sizeof(T) ? T(0) : T(Unsigned<T>(a) << by);
    }
};
struct ShiftRight {
    template <class T>
    static T of(T a, uint32_t by) {
        if (by >= 8 * sizeof(T)) return T(std::is_signed_v<T> && a < 0 ? -1 : 0);
        return T(a >> by);
    }
};

struct Fma {
    template <class T>
    static T of(T a, T b, T c) {
        if constexpr (is_float<T>) {
            return std::fma(a, b, c);
        } else {
            return T(uint64_t(Unsigned<T>(a)) * uint64_t(Unsigned<T>(b)) + uint64_t(Unsigned<T>(c)));
        }
    }
};
struct ProductMinus {  // computes a b - c
    template <class T>
    static T of(T a, T b, T c) {
        return std::fma(a, b, -c);
    }
};
struct MinusProduct {  // computes c - a b
    template <class T>
    static T of(T a, T b, T c) {
        return std::fma(-a, b, c);
    }
};

struct Move {
    template <class T>
    static T of(T a) {
        return a;
    }
};
struct Neg {
    template <class T>
    static T of(T a) {
        if constexpr (is_float<T>) {
            return -a;
        } else {
            return T(0 - Unsigned<T>(a));
        }
    }
};
struct Abs {
    template <class T>
    static T of(T a) {
        if constexpr (is_float<T>) {
            return std::fabs(a);
        } else {
            return a < 0 ? T(0 - Unsigned<T>(a)) : a;
        }
    }
};
struct Not {
    template <class T>
    static T of(T a) {
        return T(~a);
    }
};
struct Reciprocal {
    template <class T>
    static T of(T a) {
        return T(1) / a;
    }
};
struct Root {
    template <class T>
    static T of(T a) {
        return std::sqrt(a);
    }
};
// Reciprocal root, correctly rounded; a card's result is within the error that the manual allows.
struct ReciprocalRoot {
    template <class T>
    static T of(T a) {
        using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;
        return T(1 / std::sqrt(Wide(a)));
    }
};
// Rounding to TF32: to nearest, ties away from zero, with 10 bits behind the point.
struct ToTf32 {
    static float of(float a) {
        const auto bits = std::bit_cast<uint32_t>(a);
        const uint32_t size = bits & 0x7fffffff;
        if (size > 0x7f800000) return std::bit_cast<float>(0x7fffffffu);
        return size == 0x7f800000 ? a : std::bit_cast<float>((bits + 0x1000) & ~0x1fffu);
    }
};

// ---- over the lanes ----------------------------------------------------------------------------------------------

template <class T, class Op>
void run_one(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char* const a = w.operand(i.a[0]);
    for_lanes(lanes, [&](int l) { put<T>(d, l, Op::of(get<T>(a, l))); });
}
template <class T, class Op>
void run_two(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char *const a = w.operand(i.a[0]), *const b = w.operand(i.b[0]);
    for_lanes(lanes, [&](int l) { put<T>(d, l, Op::of(get<T>(a, l), get<T>(b, l))); });
}
template <class T, class Op>
void run_shift(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char *const a = w.operand(i.a[0]), *const b = w.operand(i.b[0]);
    for_lanes(lanes, [&](int l) { put<T>(d, l, Op::of(get<T>(a, l), get<uint32_t>(b, l))); });
}
template <class T, class Op>
void run_three(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char *const a = w.operand(i.a[0]), *const b = w.operand(i.b[0]), *const c = w.operand(i.c[0]);
    for_lanes(lanes, [&](int l) { put<T>(d, l, Op::of(get<T>(a, l), get<T>(b, l), get<T>(c, l))); });
}

}  // namespace ptx
