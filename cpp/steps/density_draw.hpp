// Samples of a base density with parameters, four columns of a row at a time. Random values are a function of (seed,
// row, column), here and in all other code. Normal values use the same words as a base without parameters; other values
// have separate streams, so that no word is used for two columns.
#pragma once

#include "../math/random.hpp"
#include "density.hpp"

namespace headrace {
namespace {

constexpr uint32_t density_stream = 0xFFFFFFFFu, second_density_stream = 0xFFFFFFFDu;

// Random words of a stream, and words of the stream before it for the low bits that float64 needs.
template <class V>
struct DensityWords {
    Words<typename Lane<V>::U32> high, low;

    HR_FN DensityWords(uint64_t seed, typename Lane<V>::U32 row_low, typename Lane<V>::U32 row_high, uint32_t block,
                       uint32_t stream) {
        high = low = philox(seed, row_low, row_high, block, stream);
        if constexpr (!is_single<V>) low = philox(seed, row_low, row_high, block, stream - 1);
    }
    HR_FN V number(int i) const { return uniform<V>(high.w[i], low.w[i]); }
};

// A value of Student's t, by the analogue of Box and Muller's method (Bailey 1994): √(ν (u^(-2/ν) - 1)) cos 2 π v.
template <class V>
HR_FN V student_number(V u, V v, const Scalar<V>* ready) {
    using T = Scalar<V>;
    const V e = log(u) * (T(-2) * ready[1] * ready[1]);  // exp(e) = u^(-2/ν)
    return exp(e * T(0.5)) * sqrt(-expm1(-e)) * sincos_turns(v).cos / ready[1];
}

// Values of columns 4 block, ..., 4 block + count - 1 of a row; slot_of[i] is the slot of column 4 block + i.
template <class V, class T>
HR_FN Columns<V> density_columns(const DensityStep<T>& s, const T* all_ready, int features, const int* slot_of,
                                 int count, uint64_t seed, typename Lane<V>::U32 row_low,
                                 typename Lane<V>::U32 row_high, uint32_t block) {
    const T* const ready = all_ready + s.ready;
    const auto high = philox(seed, row_low, row_high, block, 0u);
    auto low = high;
    if constexpr (!is_single<V>) low = philox(seed, row_low, row_high, block, 1u);
    Columns<V> out = normal_columns<V>(high, low);
    const uint32_t other = s.components > 0 ? 0 : block;  // all columns of a row share the mixture's component, and so
                                                          // block 0
    const DensityWords<V> words(seed, row_low, row_high, other, density_stream);
    if (s.components > 0) {
        const V u = words.number(0);
        V before{};  // sum of the weights of earlier components; the row's component is the last one for which u is
                     // above this sum
        Columns<V> made = out;
        for (int k = 0; k < s.components; ++k) {
            const T weight = ready[2 * k + 1];
            if (!(weight > T(0))) continue;
            const T* const numbers = ready + 2 * s.components + 2 * int64_t(k) * features;
            for (int i = 0; i < count; ++i) {
                const T* const own = numbers + 2 * slot_of[i];
                const V x = out.column[i] / own[1] + own[0];
                made.column[i] = select(u > before, x, made.column[i]);
            }
            before = before + weight;
        }
        return made;
    }
    const DensityWords<V> more(seed, row_low, row_high, block, second_density_stream);
    const Columns<V> logistic = logistic_columns<V>(words.high, words.low);
    for (int i = 0; i < count; ++i) {
        const V u = words.number(i);
        switch (s.column[slot_of[i]]) {
            case ColumnDensity::normal: break;
            case ColumnDensity::logistic: out.column[i] = logistic.column[i]; break;
            case ColumnDensity::uniform: out.column[i] = u * T(2) - T(1); break;
            case ColumnDensity::student:
                out.column[i] = student_number(u, more.number(i), ready + slot_of[i] * column_ready);
                break;
        }
    }
    return out;
}

}  // namespace
}  // namespace headrace
