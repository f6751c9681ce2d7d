// The gated activation of causal networks: tanh(a) sigmoid(b), by two exponentials and one division.
#pragma once

#include "lane.hpp"

namespace headrace {
namespace {

// q = (e^(-2|a|) - 1) / 2 and f = e^-b, the terms of a gate, for every a and b; b is limited to the exponents of powers
// of two.
template <class V>
struct GateTerms {
    V q, q_and_one, f_and_one;
};

template <class V>
HR_FN GateTerms<V> gate_terms(V a, V b) {
    using T = Scalar<V>;
    constexpr T least = is_single<V> ? T(-87) : T(-708);
    const V x[2] = {max(abs(a) * T(-2), Format<T>::expm1_min), min(max(-b, least), -least)};
    ExpParts<V> parts[2];
    exp_parts(x, parts);
    const V half = power_of_two<V>(parts[0].n - 1);
    const V q = fma(parts[0].expm1_r, half, half - T(0.5));
    return {q, q + T(1), fma(parts[1].expm1_r + T(1), power_of_two<V>(parts[1].n), T(1))};
}

// tanh|a| sigmoid(b) = -q / ((q + 1) (f + 1)). Error: at most 5 ulp.
template <class V>
HR_FN V gated(V a, V b) {
    const GateTerms<V> t = gate_terms(a, b);
    return copy_sign(t.q / (t.q_and_one * t.f_and_one), a);
}

template <class V>
struct OpenGate {
    V tanh, sigmoid;
};

// The two factors of a gate, for derivatives. Error: at most 4.5 ulp each.
template <class V>
HR_FN OpenGate<V> open_gate(V a, V b) {
    const GateTerms<V> t = gate_terms(a, b);
    const V inverse = Scalar<V>(1) / (t.q_and_one * t.f_and_one);
    return {copy_sign(t.q * (t.f_and_one * inverse), a), t.q_and_one * inverse};
}

}  // namespace
}  // namespace headrace
