// Log-determinants from products: one logarithm for many derivatives.
#pragma once

#include "lane.hpp"

namespace headrace {
namespace {

// A product of many factors as a mantissa and an exponent, so that its logarithm cannot overflow.
template <class V>
struct LogProduct {
    V mantissa = splat<V>(1);
    Int<V> exponent{};

    HR_FN void rescale() {
        using F = Format<Scalar<V>>;
        const Int<V> n = ((bit_cast<Int<V>>(mantissa) & F::magnitude) >> F::mantissa_bits) - F::bias;
        mantissa = mantissa * power_of_two<V>(-n);  // infinity becomes NaN, and NaN stays NaN
        exponent += n;
    }
    HR_FN V log() const {
        return fma(convert<V>(exponent), Scalar<V>(0.693147180559945309417), headrace::log(mantissa));
    }
};

}  // namespace
}  // namespace headrace
