// The vocabulary of elementwise mathematics, written once for every type of lane.
//
// A lane `V` is a scalar (on the GPU and in tests) or a vector (on the CPU, pack.hpp). Functions of this file are
// templates over V, need no intrinsics and no libm, and return NaN for NaN. The bound beside each function is its
// largest error in units in the last place over its range, measured by tests/cpp/test_lane.cpp against the next wider
// floating type; outside of the range a function returns its limit.
//
// The anonymous namespace is deliberate: on the CPU this file is compiled once for every instruction set, and with
// external linkage the linker would keep one copy of a template, of one instruction set, for all.
#pragma once

#include <cstdint>
#include <type_traits>

// The minimum and the maximum of two vectors of floats by one instruction each, where GCC would use two. The result is
// b where a or b is NaN.
#if defined(__AVX512F__) && !defined(__clang__)
#define HR_MIN_OF(a, b) __builtin_ia32_minps512_mask(a, b, V{}, -1, 4)
#define HR_MAX_OF(a, b) __builtin_ia32_maxps512_mask(a, b, V{}, -1, 4)
#endif

// The processor's estimate of 1 / sqrt(x) for a vector of floats, where the compiler has a name for it.
#if defined(__AVX512F__)
#define HR_RSQRT_ESTIMATE(x) __builtin_ia32_rsqrt14ps512_mask(x, V{}, -1)
#elif defined(__AVX__)
#define HR_RSQRT_ESTIMATE(x) __builtin_ia32_rsqrtps256(x)
#elif defined(__SSE__)
#define HR_RSQRT_ESTIMATE(x) __builtin_ia32_rsqrtps(x)
#endif

// HR_HAS_FMA: whether code has an instruction for a * b + c with one rounding (Clang for x86 defines only __FMA__). On
// the host only kernels (HR_ISA) use multiply-adds, because other code is compiled for plain x86-64. HR_REGISTER: the
// register class of a value.
#if defined(__CUDA_ARCH__) || (defined(HR_ISA) && defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)) || \
    (defined(HR_ISA) && defined(__clang__) && defined(__FMA__))
#define HR_HAS_FMA true
#else
#define HR_HAS_FMA false
#endif
#if defined(__AVX512F__)
#define HR_REGISTER "+v"
#elif defined(__x86_64__)
#define HR_REGISTER "+x"
#else
#define HR_REGISTER "+w"
#endif

#ifdef __CUDACC__
#define HR_FN __host__ __device__ __forceinline__
#else
#define HR_FN inline __attribute__((always_inline))
#endif
// HR_CALLED marks functions that a device calls (see `is_called`). A source file for the device that has no registers
// left for calls defines HR_INLINE_FLOAT64.
#if defined(__CUDACC__) && !defined(HR_INLINE_FLOAT64)
#define HR_CALLED inline __host__ __device__ __noinline__
#define HR_CALLS_FLOAT64 true
#define HR_ROLLED_FLOAT64 _Pragma("unroll 1")
#else
#define HR_CALLED HR_FN
#define HR_CALLS_FLOAT64 false
#define HR_ROLLED_FLOAT64
#endif

// HR_ROLLED precedes a loop over coordinates, bins or components. A source file for the device that gains no time by
// unrolled loops defines HR_SMALL_CODE before all includes, because four copies of a loop's body would be most of its
// code. HR_ROLLED_UNLESS(condition) unrolls the loop four times where the condition, a constant, is true.
#if defined(__CUDACC__) && defined(HR_SMALL_CODE)
#define HR_PRAGMA(text) _Pragma(#text)
#define HR_ROLLED HR_PRAGMA(unroll 1)
#define HR_ROLLED_UNLESS(condition) HR_PRAGMA(unroll((condition) ? 4 : 1))
#else
#define HR_ROLLED
#define HR_ROLLED_UNLESS(condition)
#endif

namespace headrace {
namespace {

// Types that belong to a lane: its floating type, integers of the same width, and a vector of equally many 32-bit
// integers.
template <class V>
struct Lane;

template <>
struct Lane<float> {
    using Scalar = float;
    using Int = int32_t;
    using U32 = uint32_t;
    static constexpr int width = 1;
};

template <>
struct Lane<double> {
    using Scalar = double;
    using Int = int64_t;
    using U32 = uint32_t;
    static constexpr int width = 1;
};

template <class V>
using Scalar = typename Lane<V>::Scalar;
template <class V>
using Int = typename Lane<V>::Int;

// The layout of a floating type, and constants of argument reductions in this type.
template <class T>
struct Format;

template <>
struct Format<float> {
    using Bits = int32_t;
    static constexpr int mantissa_bits = 23, bias = 127;
    static constexpr Bits sign = INT32_MIN, magnitude = INT32_MAX;
    static constexpr Bits upper_half = ~Bits(0xfff);  // keeps 12 bits of the mantissa, so that the square is exact
    static constexpr Bits sqrt_half = 0x3f3504f3;     // the bits of sqrt(1/2)
    static constexpr float round = 12582912.0f;       // 1.5 * 2^23: adding it rounds to an integer
    static constexpr float smallest_normal = 1.17549435e-38f, to_normal = 8388608.0f;  // 2^23
    static constexpr float exp_max = 89.0f, exp_min = -104.0f, expm1_min = -20.0f, tanh_max = 10.0f, cdf_max = 15.0f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};

template <>
struct Format<double> {
    using Bits = int64_t;
    static constexpr int mantissa_bits = 52, bias = 1023;
    static constexpr Bits sign = INT64_MIN, magnitude = INT64_MAX;
    static constexpr Bits upper_half = ~Bits(0x7ffffff);
    static constexpr Bits sqrt_half = 0x3fe6a09e667f3bcd;
    static constexpr double round = 6755399441055744.0;                                                 // 1.5 * 2^52
    static constexpr double smallest_normal = 2.2250738585072014e-308, to_normal = 4503599627370496.0;  // 2^52
    static constexpr double exp_max = 710.0, exp_min = -746.0, expm1_min = -40.0, tanh_max = 20.0, cdf_max = 40.0;
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
};

template <class V>
constexpr bool is_single = sizeof(Scalar<V>) == 4;

// Elementary functions of float64 are called on a device, not inlined: a device computes in float64 only for checks,
// and inlined code would be one or two KB at each of about a hundred call sites for each architecture.
template <class V>
constexpr bool is_called = HR_CALLS_FLOAT64 && Lane<V>::width == 1 && !is_single<V>;

template <class V, class F>
HR_CALLED auto called(V x, F f) {
    return f(x);
}

// ---- the primitives ---------------------------------------------------------------------------------------------

template <class To, class From>
HR_FN To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

template <class V>
HR_FN V splat(double value) {
    if constexpr (Lane<V>::width == 1) {
        return V(value);
    } else {
        return Scalar<V>(value) - V{};
    }
}

template <class To, class From>
HR_FN To convert(From from) {
    if constexpr (Lane<To>::width == 1) {
        return To(from);
    } else {
        return __builtin_convertvector(from, To);
    }
}

template <class M, class V>
HR_FN V select(M condition, V yes, V no) {
    return condition ? yes : no;
}

// ---- products and sums
//
// Whether a compiler contracts a product and a sum to one multiply-add depends on the compiler and on the function into
// which code is inlined. Both kernels of a device that evaluate a network must give the same bits, and so must both
// sizes of a block of rows. For this reason every product that is summed in this folder is a call of `fma`, and a
// product that may be summed elsewhere is a call of `product`.

// The type of the vector among three operands, where the other operands are scalars for all lanes.
template <class A, class B, class C>
using Broadest = std::conditional_t<(Lane<A>::width > 1), A, std::conditional_t<(Lane<B>::width > 1), B, C>>;

template <class V, class A>
HR_FN V broadcast(A x) {
    if constexpr (std::is_same_v<A, V>) {
        return x;
    } else {
        return x - V{};
    }
}

// a * b + c of vectors, by the compiler's name for the instruction, because GCC has no general name.
template <class V>
HR_FN V fma_of_vectors(V a, V b, V c) {
#if defined(__clang__) && HR_HAS_FMA
    return __builtin_elementwise_fma(a, b, c);
#elif defined(__AVX512F__) && HR_HAS_FMA
    if constexpr (is_single<V>) {
        return __builtin_ia32_vfmaddps512_mask(a, b, c, -1, 4);
    } else {
        return __builtin_ia32_vfmaddpd512_mask(a, b, c, -1, 4);
    }
#elif defined(__AVX__) && HR_HAS_FMA
    if constexpr (is_single<V>) {
        return __builtin_ia32_vfmaddps256(a, b, c);
    } else {
        return __builtin_ia32_vfmaddpd256(a, b, c);
    }
#elif defined(__aarch64__) && HR_HAS_FMA
    if constexpr (is_single<V>) {
        return __builtin_aarch64_fmav4sf(a, b, c);
    } else {
        return __builtin_aarch64_fmav2df(a, b, c);
    }
#elif HR_HAS_FMA
    for (int i = 0; i < Lane<V>::width; ++i)
        c[i] = is_single<V> ? __builtin_fmaf(a[i], b[i], c[i]) : __builtin_fma(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}

// a * b + c with one rounding where the target has an instruction for it.
template <class A, class B, class C>
HR_FN Broadest<A, B, C> fma(A a, B b, C c) {
    using V = Broadest<A, B, C>;
    if constexpr (Lane<V>::width > 1) {
        return fma_of_vectors(broadcast<V>(a), broadcast<V>(b), broadcast<V>(c));
    } else if constexpr (!HR_HAS_FMA) {
        return a * b + c;
    } else if constexpr (is_single<V>) {
        return __builtin_fmaf(a, b, c);
    } else {
        return __builtin_fma(a, b, c);
    }
}

// a * b, rounded before any sum of it.
template <class A, class B>
HR_FN Broadest<A, B, A> product(A a, B b) {
    using V = Broadest<A, B, A>;
#if defined(__CUDA_ARCH__)
    if constexpr (is_single<V>) {
        return __fmul_rn(a, b);
    } else {
        return __dmul_rn(a, b);
    }
#else
    V rounded = a * b;
    if constexpr (HR_HAS_FMA) __asm__("" : HR_REGISTER(rounded));  // keeps the compiler from contracting the product
    return rounded;
#endif
}

// Whether a value is nonzero in any lane.
template <class V>
HR_FN bool any_lane(Int<V> x) {
    if constexpr (Lane<V>::width == 1) {
        return x != 0;
    } else {
        typename Format<Scalar<V>>::Bits any = 0;
        for (int i = 0; i < Lane<V>::width; ++i) any |= x[i];
        return any != 0;
    }
}

// Reads elements 0, ..., N - 1 of one row of a table for each lane. A lane holds the index of its row; rows are
// `stride` elements apart.
template <int N, class V>
HR_FN void gather_row(const Scalar<V>* table, Int<V> index, int stride, V (&out)[N]) {
    if constexpr (Lane<V>::width == 1) {
        for (int c = 0; c < N; ++c) out[c] = table[index * stride + c];
    } else {
        Scalar<V> numbers[N][Lane<V>::width];
        for (int i = 0; i < Lane<V>::width; ++i)
            for (int c = 0; c < N; ++c) numbers[c][i] = table[index[i] * stride + c];
        for (int c = 0; c < N; ++c) __builtin_memcpy(&out[c], numbers[c], sizeof(V));
    }
}

template <class V>
HR_FN V infinity() {
    return splat<V>(__builtin_inf());
}

template <class V>
HR_FN V not_a_number() {
    return splat<V>(__builtin_nan(""));
}

template <class V>
HR_FN V abs(V x) {
    return bit_cast<V>(bit_cast<Int<V>>(x) & Format<Scalar<V>>::magnitude);
}

template <class V>
HR_FN V copy_sign(V magnitude, V sign) {
    using F = Format<Scalar<V>>;
    return bit_cast<V>((bit_cast<Int<V>>(magnitude) & F::magnitude) | (bit_cast<Int<V>>(sign) & F::sign));
}

// min, max and relu return NaN for a NaN x, because a comparison with NaN is false.
template <class V>
HR_FN V min(V x, Scalar<V> limit) {
#ifdef HR_MIN_OF
    if constexpr (is_single<V> && Lane<V>::width > 1) return HR_MIN_OF(splat<V>(limit), x);
#endif
    return select(x > limit, splat<V>(limit), x);
}

template <class V>
HR_FN V max(V x, Scalar<V> limit) {
#ifdef HR_MAX_OF
    if constexpr (is_single<V> && Lane<V>::width > 1) return HR_MAX_OF(splat<V>(limit), x);
#endif
    return select(x < limit, splat<V>(limit), x);
}

template <class V>
HR_FN V sqrt(V x) {
    if constexpr (Lane<V>::width == 1) {
        if constexpr (is_single<V>) {
            return __builtin_sqrtf(x);
        } else {
            return __builtin_sqrt(x);
        }
    } else {
        for (int i = 0; i < Lane<V>::width; ++i) x[i] = sqrt<Scalar<V>>(x[i]);
        return x;
    }
}

// 1 / sqrt(x) for normal positive x whose reciprocal is normal too. Error: at most 3 ulp.
template <class V>
HR_FN V rsqrt(V x) {
    using T = Scalar<V>;
#if defined(__CUDA_ARCH__)
    if constexpr (is_single<V>) {  // the device's instruction (error at most 2 ulp), because a root and a division take
                                   // some 30 steps
        return rsqrtf(x);
    } else {
        return ::rsqrt(x);
    }
#else
#if defined(HR_RSQRT_ESTIMATE)
    if constexpr (Lane<V>::width > 1 && is_single<V>) {  // the processor's estimate, improved by one step of Newton's
                                                         // method
        const V y = HR_RSQRT_ESTIMATE(x);
        return y * fma(x * y, y * T(-0.5), T(1.5));
    }
#endif
    return T(1) / sqrt(x);
#endif
}

template <class V>
HR_FN V polynomial(V, double c) {
    return splat<V>(c);
}

// The polynomial c + c1 x + c2 x^2 + ... by Horner's rule.
template <class V, class... Rest>
HR_FN V polynomial(V x, double c, Rest... rest) {
    return fma(polynomial(x, rest...), x, Scalar<V>(c));
}

// Evaluates a polynomial for B lanes together, coefficient by coefficient, from the highest power down.
template <int B, class V, class... Rest>
HR_FN void polynomials(const V (&x)[B], V (&sum)[B], double highest, Rest... rest) {
    for (int j = 0; j < B; ++j) sum[j] = splat<V>(highest);
    const auto add = [&](double c) {
        for (int j = 0; j < B; ++j) sum[j] = fma(sum[j], x[j], Scalar<V>(c));
    };
    (add(rest), ...);
}

// 2^n for n within the exponents of normal numbers.
template <class V>
HR_FN V power_of_two(Int<V> n) {
    using F = Format<Scalar<V>>;
    return bit_cast<V>((n + F::bias) << F::mantissa_bits);
}

// The parts n and expm1(r) of x = n ln 2 + r with |r| <= ln(2) / 2; the Taylor series has all terms above 0.1 ulp.
template <class V>
struct ExpParts {
    Int<V> n;
    V expm1_r;
};

// Computes the parts of B lanes operation by operation, so that chains of dependent operations overlap.
template <int B, class V>
HR_FN void exp_parts(const V (&x)[B], ExpParts<V> (&parts)[B]) {
    using F = Format<Scalar<V>>;
    V shifted[B], r[B], q[B];
    for (int j = 0; j < B; ++j) shifted[j] = fma(x[j], Scalar<V>(1.44269504088896340736), F::round);
    for (int j = 0; j < B; ++j) {
        parts[j].n = bit_cast<Int<V>>(shifted[j]) - bit_cast<Int<V>>(splat<V>(F::round));
        const V whole = shifted[j] - F::round;
        r[j] = fma(whole, -F::ln2_low, fma(whole, -F::ln2_high, x[j]));
    }
    if constexpr (is_single<V>) {
        polynomials(r, q, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2);
    } else {
        polynomials(r, q, 1.0 / 6227020800.0, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                    1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2);
    }
    for (int j = 0; j < B; ++j) parts[j].expm1_r = fma(q[j], r[j] * r[j], r[j]);
}

template <class V>
HR_FN ExpParts<V> exp_parts(V x) {
    const V one[1] = {x};
    ExpParts<V> parts[1];
    exp_parts(one, parts);
    return parts[0];
}

// ---- exponentials and logarithms --------------------------------------------------------------------------------

// e^x for every x, infinities and subnormal results included. Error: at most 1.1 ulp.
template <class V, bool is_apart = is_called<V>>
HR_FN V exp(V x) {
    if constexpr (is_apart) return called(x, [](V v) { return exp<V, false>(v); });
    using F = Format<Scalar<V>>;
    const ExpParts<V> parts = exp_parts(min(max(x, F::exp_min), F::exp_max));
    const Int<V> half = parts.n >> 1;  // 2^n in two factors, because 2^n itself may be subnormal or too large
    return (parts.expm1_r + Scalar<V>(1)) * power_of_two<V>(half) * power_of_two<V>(parts.n - half);
}

// e^x where neither the result nor its reciprocal is subnormal or overflows: |x| <= 87 (float), 708 (double). Error: at
// most 1.1 ulp.
template <class V, bool is_apart = is_called<V>>
HR_FN V exp_moderate(V x) {
    if constexpr (is_apart) return called(x, [](V v) { return exp_moderate<V, false>(v); });
    const ExpParts<V> parts = exp_parts(x);
    return (parts.expm1_r + Scalar<V>(1)) * power_of_two<V>(parts.n);
}

// e^x - 1 without cancellation, for every x. Error: at most 2 ulp.
template <class V, bool is_apart = is_called<V>>
HR_FN V expm1(V x) {
    if constexpr (is_apart) return called(x, [](V v) { return expm1<V, false>(v); });
    using F = Format<Scalar<V>>;
    const ExpParts<V> parts = exp_parts(min(max(x, F::expm1_min), F::exp_max));
    const V half = power_of_two<V>(parts.n - 1);
    return fma(parts.expm1_r, half, half - Scalar<V>(0.5)) * Scalar<V>(2);
}

// log x for every x: subnormals are exact inputs, log 0 = -inf, NaN below zero. Error: at most 0.9 ulp.
template <class V, bool is_apart = is_called<V>>
HR_FN V log(V x) {
    if constexpr (is_apart) return called(x, [](V v) { return log<V, false>(v); });
    using F = Format<Scalar<V>>;
    const auto tiny = x < F::smallest_normal;
    const Int<V> bits =
        bit_cast<Int<V>>(select(tiny, abs(x) * F::to_normal, x));  // |x|: the bits of a negative x would overflow
    const Int<V> n = (bits - F::sqrt_half) >> F::mantissa_bits;    // scales the mantissa into [sqrt(1/2), sqrt(2))
    const V f = bit_cast<V>(bits - (n << F::mantissa_bits)) - Scalar<V>(1);
    const V exponent = convert<V>(n) - select(tiny, splat<V>(F::mantissa_bits), splat<V>(0));
    // log(1 + f) = 2 atanh(s), s = f / (2 + f), arranged so that the leading term f is exact.
    const V s = f / (f + Scalar<V>(2)), s2 = s * s, half_square = f * f * Scalar<V>(0.5);
    V series;
    if constexpr (is_single<V>) {
        series = polynomial(s2, 2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9);
    } else {
        series = polynomial(s2, 2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9, 2.0 / 11, 2.0 / 13, 2.0 / 15, 2.0 / 17, 2.0 / 19,
                            2.0 / 21);
    }
    const V tail = product(series, s2);  // `product`, because a compiler may contract the sum below with either of its
                                         // products
    const V small = fma(s, half_square + tail, exponent * F::ln2_low);
    V y = fma(exponent, F::ln2_high, f - (half_square - small));
    y = select(x == Scalar<V>(0), -infinity<V>(), y);
    y = select(x == Scalar<V>(__builtin_inf()), x, y);
    return select(x >= Scalar<V>(0), y, not_a_number<V>());
}

// log(1 + x) for -1/2 <= x <= 1. Error: at most 1.6 ulp.
template <class V, bool is_apart = is_called<V>>
HR_FN V log1p(V x) {
    if constexpr (is_apart) return called(x, [](V v) { return log1p<V, false>(v); });
    const V w = x + Scalar<V>(1);
    return log(w) + (x - (w - Scalar<V>(1))) / w;
}

// ---- sigmoids -----------------------------------------------------------------------------------------------------

// tanh(x) for every x. Error: at most 2.7 ulp.
template <class V, bool is_apart = is_called<V>>
HR_FN V tanh(V x) {
    if constexpr (is_apart) return called(x, [](V v) { return tanh<V, false>(v); });
    const V e = expm1(min(abs(x), Format<Scalar<V>>::tanh_max) * Scalar<V>(2));
    return copy_sign(e / (e + Scalar<V>(2)), x);
}

// 1 / (1 + e^-x) for every x, with full relative accuracy on both sides. Error: at most 2.5 ulp.
template <class V, bool is_apart = is_called<V>>
HR_FN V sigmoid(V x) {
    if constexpr (is_apart) return called(x, [](V v) { return sigmoid<V, false>(v); });
    const V e = exp(-abs(x));
    return select(x < Scalar<V>(0), e, splat<V>(1)) / (e + Scalar<V>(1));
}

// log(1 + e^x) for every x, without overflow. Error: at most 2.2 ulp.
template <class V, bool is_apart = is_called<V>>
HR_FN V softplus(V x) {
    if constexpr (is_apart) return called(x, [](V v) { return softplus<V, false>(v); });
    return max(x, Scalar<V>(0)) + log1p(exp(-abs(x)));
}

// The normal distribution function for every x, with full relative accuracy in the left tail. Error: at most 6.5 ulp.
// Phi(-a) = exp(-a^2 / 2) R(a); R is t times a polynomial in t = 1 / (1 + a / 4) (a Chebyshev interpolant, relative
// error 2e-8 in float32 and 4e-17 in float64), and a^2 is split so that its rounding does not enter the exponential.
template <class V, bool is_apart = is_called<V>>
HR_FN V normal_cdf(V x) {
    if constexpr (is_apart) return called(x, [](V v) { return normal_cdf<V, false>(v); });
    using F = Format<Scalar<V>>;
    using T = Scalar<V>;
    const V a = min(abs(x), F::cdf_max);
    const V high = bit_cast<V>(bit_cast<Int<V>>(a) & F::upper_half);
    const V density = exp(high * high * T(-0.5)) * exp((a - high) * (a + high) * T(-0.5));
    const V t = T(1) / fma(a, T(0.25), T(1));
    V ratio;
    if constexpr (is_single<V>) {
        ratio = polynomial(fma(a * t, T(-2.5333333333333333 / 4), T(1)), 0.22557090819, 0.15750418502, 0.08127267073,
                           0.029519259689, 0.0063618407695, 0.00013412112931, -0.00033273623361, -5.0091288526e-5,
                           1.6105120855e-5, 3.7395957248e-6);
    } else {
        ratio = polynomial(fma(a * t, T(-2.2 / 4), T(1)), 0.2034730626815633975, 0.15524857171253122701,
                           0.091127013486691291194, 0.039265829600098445746, 0.010817311005331130238,
                           0.00083307885847028218276, -0.00063110615395886374928, -0.00018807762675062450065,
                           0.000037020355172225261039, 0.000022666164987648396179, -3.4169413456608513181e-6,
                           -2.6993860179588523079e-6, 5.5196859650284409669e-7, 3.1647047680957648313e-7,
                           -1.1141293296964781469e-7, -3.0662956508153302576e-8, 2.1748843456552902234e-8,
                           1.0151449012322033869e-9, -3.6208443214231236022e-9, 3.8551751186405486004e-10,
                           4.4922371569115515662e-10, -6.7158943610094637012e-11, -3.0682698788667826565e-11);
    }
    const V tail = density * t;
    return select(x < T(0), tail * ratio, fma(-tail, ratio, T(1)));
}

// ---- angles -------------------------------------------------------------------------------------------------------

template <class V>
struct SinCos {
    V sin, cos;
};

// sin and cos of 2 pi u for 0 <= u <= 1: the reduction is exact because u is in turns. Error: at most 2.5 ulp each.
template <class V, bool is_apart = is_called<V>>
HR_FN SinCos<V> sincos_turns(V u) {
    if constexpr (is_apart) return called(u, [](V v) { return sincos_turns<V, false>(v); });
    using F = Format<Scalar<V>>;
    using T = Scalar<V>;
    const V shifted = fma(u, T(4), F::round);
    const Int<V> quarter = bit_cast<Int<V>>(shifted);
    const V angle = fma(u, T(4), F::round - shifted) * T(1.57079632679489661923), square = angle * angle;
    V sine, cosine;
    if constexpr (is_single<V>) {
        sine = polynomial(square, 1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880) * angle;
        cosine = polynomial(square, 1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800);
    } else {
        sine = polynomial(square, 1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800,
                          1.0 / 6227020800.0, -1.0 / 1307674368000.0, 1.0 / 355687428096000.0) *
               angle;
        cosine = polynomial(square, 1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600,
                            -1.0 / 87178291200.0, 1.0 / 20922789888000.0);
    }
    const auto swap = (quarter & 1) != 0;
    const V s = select(swap, cosine, sine), c = select(swap, sine, cosine);
    return {select((quarter & 2) != 0, -s, s), select(((quarter + 1) & 2) != 0, -c, c)};
}

}  // namespace
}  // namespace headrace
