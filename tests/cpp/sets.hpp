// Functions that the tests call in each instruction set: the lane functions and random values on arrays, once with the
// set's vectors as lanes and once with scalars. sets.cpp is compiled once for every set, as the kernels are.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "../../cpp/core/isa.hpp"

// The list of functions that are compared with a wider type: X(name, expression of x) for each.
#define HR_TESTED_FUNCTIONS(X)                            \
    X(exp, exp(x))                                        \
    X(exp_moderate, exp_moderate(x))                      \
    X(expm1, expm1(x))                                    \
    X(log, log(x))                                        \
    X(log1p, log1p(x))                                    \
    X(tanh, tanh(x))                                      \
    X(sigmoid, sigmoid(x))                                \
    X(softplus, softplus(x))                              \
    X(normal_cdf, normal_cdf(x))                          \
    X(gate_tanh, gated(x, splat<V>(0.75)))                \
    X(gate_sigmoid, gated(splat<V>(0.75), x))             \
    X(open_tanh, open_gate(x, splat<V>(0.75)).tanh)       \
    X(open_sigmoid, open_gate(splat<V>(0.75), x).sigmoid) \
    X(sin_turns, sincos_turns(x).sin)                     \
    X(cos_turns, sincos_turns(x).cos)                     \
    X(elu, Elu::value(x))                                 \
    X(silu, Silu::value(x))                               \
    X(gelu, Gelu::value(x))                               \
    X(gelu_tanh, GeluTanh::value(x))                      \
    X(positive, positive(x).value)                        \
    X(excess, positive(x).excess)                         \
    X(positive_slope, positive(x).slope)                  \
    X(bend, bend_at<TanhBend>(x, {}).value)               \
    X(bend_slope, bend_at<TanhBend>(x, {}).slope)         \
    X(bend_rest, bend_at<TanhBend>(x, {}).rest)

// The list of functions whose bits are known: X(name, expression of x and y) for each. min and max have one limit for
// all lanes, y[0].
#define HR_EXACT_FUNCTIONS(X)     \
    X(sqrt, sqrt(x))              \
    X(abs, abs(x))                \
    X(copy_sign, copy_sign(x, y)) \
    X(min, min(x, limit))         \
    X(max, max(x, limit))         \
    X(relu, Relu::value(x))

namespace headrace::tests {

// The length of arrays is a multiple of this number of values, so that no vector has a tail.
constexpr int64_t granule = 16;

enum class Tested : int {
#define HR_NAME(name, expression) name,
    HR_TESTED_FUNCTIONS(HR_NAME)
#undef HR_NAME
        count
};

enum class Exact : int {
#define HR_NAME(name, expression) name,
    HR_EXACT_FUNCTIONS(HR_NAME)
#undef HR_NAME
        count
};

template <class T>
struct Functions {
    void (*tested[int(Tested::count)])(const T* x, T* out, int64_t n);
    void (*exact[int(Exact::count)])(const T* x, const T* y, T* out, int64_t n);
    // Computes the random words of n rows: word w of row i is out[w * n + i].
    void (*philox)(uint64_t seed, const uint32_t* row_low, const uint32_t* row_high, uint32_t block, uint32_t stream,
                   uint32_t* out, int64_t n);
    void (*uniform)(const uint32_t* high, const uint32_t* low, T* out, int64_t n);
    // Computes the four columns of a block from its words, both in the layout of philox.
    void (*columns)(bool logistic, const uint32_t* high, const uint32_t* low, T* out, int64_t n);
    void (*base_columns)(bool logistic, uint64_t seed, int64_t first_row, uint32_t block, T* out, int64_t n);
};

template <class T>
struct Lanes {
    Functions<T> vector, scalar;
};

struct Set {
    Lanes<float> f32;
    Lanes<double> f64;
};

template <class T>
const Lanes<T>& lanes_of(const Set& set) {
    if constexpr (sizeof(T) == 4) {
        return set.f32;
    } else {
        return set.f64;
    }
}

// HR_SETS is defined by CMake: X(v2) X(v3) ...
#define X(name) extern const Set set_##name;
HR_SETS
#undef X

struct NamedSet {
    const char* name;
    const Set* set;
};

// The sets that this processor can run; prints the names of all other sets.
inline std::vector<NamedSet> runnable_sets() {
    std::vector<NamedSet> sets;
    const auto add = [&](const char* name, const Set& set) {
        for (const InstructionSet& compiled : instruction_sets()) {
            if (std::string(compiled.name) != name) continue;
            if (compiled.supported) {
                sets.push_back({name, &set});
            } else {
                std::printf("skipped: instruction set %s, which this processor lacks\n", name);
            }
        }
    };
#define X(name) add(#name, set_##name);
    HR_SETS
#undef X
    return sets;
}

}  // namespace headrace::tests
