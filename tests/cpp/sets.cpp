// The functions of one instruction set. This file is compiled once for every set, with the options of the kernels. Only
// the set has external linkage, and it is a constant, so that no code of a set runs before the processor is checked.
#include "sets.hpp"

#include "../../cpp/math/activations.hpp"
#include "../../cpp/math/gate.hpp"
#include "../../cpp/math/pack.hpp"
#include "../../cpp/math/random.hpp"
#include "../../cpp/math/vector_maps/planar.hpp"

namespace headrace::tests {
namespace {

template <class V>
HR_FN V get(const Scalar<V>* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <class V>
HR_FN void put(Scalar<V>* p, V v) {
    __builtin_memcpy(p, &v, sizeof v);
}

template <class V>
HR_FN typename Lane<V>::U32 get_words(const uint32_t* p) {
    typename Lane<V>::U32 v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <class V>
HR_FN void put_words(uint32_t* p, typename Lane<V>::U32 v) {
    __builtin_memcpy(p, &v, sizeof v);
}

#define HR_DEFINE(name, expression)                                      \
    template <class V>                                                   \
    void tested_##name(const Scalar<V>* in, Scalar<V>* out, int64_t n) { \
        for (int64_t i = 0; i < n; i += Lane<V>::width) {                \
            const V x = get<V>(in + i);                                  \
            put<V>(out + i, expression);                                 \
        }                                                                \
    }
HR_TESTED_FUNCTIONS(HR_DEFINE)
#undef HR_DEFINE

#define HR_DEFINE(name, expression)                                                             \
    template <class V>                                                                          \
    void exact_##name(const Scalar<V>* in, const Scalar<V>* other, Scalar<V>* out, int64_t n) { \
        [[maybe_unused]] const Scalar<V> limit = other[0];                                      \
        for (int64_t i = 0; i < n; i += Lane<V>::width) {                                       \
            const V x = get<V>(in + i);                                                         \
            [[maybe_unused]] const V y = get<V>(other + i);                                     \
            put<V>(out + i, expression);                                                        \
        }                                                                                       \
    }
HR_EXACT_FUNCTIONS(HR_DEFINE)
#undef HR_DEFINE

template <class V>
void philox_rows(uint64_t seed, const uint32_t* row_low, const uint32_t* row_high, uint32_t block, uint32_t stream,
                 uint32_t* out, int64_t n) {
    for (int64_t i = 0; i < n; i += Lane<V>::width) {
        const auto words = philox(seed, get_words<V>(row_low + i), get_words<V>(row_high + i), block, stream);
        for (int w = 0; w < 4; ++w) put_words<V>(out + w * n + i, words.w[w]);
    }
}

template <class V>
void uniform_numbers(const uint32_t* high, const uint32_t* low, Scalar<V>* out, int64_t n) {
    for (int64_t i = 0; i < n; i += Lane<V>::width)
        put<V>(out + i, uniform<V>(get_words<V>(high + i), get_words<V>(low + i)));
}

template <class V>
void columns_of_words(bool logistic, const uint32_t* high, const uint32_t* low, Scalar<V>* out, int64_t n) {
    using Block = Words<typename Lane<V>::U32>;
    for (int64_t i = 0; i < n; i += Lane<V>::width) {
        Block h, l;
        for (int w = 0; w < 4; ++w) {
            h.w[w] = get_words<V>(high + w * n + i);
            l.w[w] = get_words<V>(low + w * n + i);
        }
        const Columns<V> columns = logistic ? logistic_columns<V>(h, l) : normal_columns<V>(h, l);
        for (int k = 0; k < 4; ++k) put<V>(out + k * n + i, columns.column[k]);
    }
}

template <class V>
void columns_of_rows(bool logistic, uint64_t seed, int64_t first_row, uint32_t block, Scalar<V>* out, int64_t n) {
    for (int64_t i = 0; i < n; i += Lane<V>::width) {
        uint32_t low[Lane<V>::width], high[Lane<V>::width];
        for (int k = 0; k < Lane<V>::width; ++k) {
            low[k] = uint32_t(first_row + i + k);
            high[k] = uint32_t(uint64_t(first_row + i + k) >> 32);
        }
        const Columns<V> columns = base_columns<V>(logistic, seed, get_words<V>(low), get_words<V>(high), block);
        for (int k = 0; k < 4; ++k) put<V>(out + k * n + i, columns.column[k]);
    }
}

template <class V>
constexpr Functions<Scalar<V>> functions() {
    static_assert(granule % Lane<V>::width == 0);
    return {
#define HR_ROW(name, expression) tested_##name<V>,
        {HR_TESTED_FUNCTIONS(HR_ROW)},
#undef HR_ROW
#define HR_ROW(name, expression) exact_##name<V>,
        {HR_EXACT_FUNCTIONS(HR_ROW)},
#undef HR_ROW
        philox_rows<V>,
        uniform_numbers<V>,
        columns_of_words<V>,
        columns_of_rows<V>,
    };
}

template <class T>
constexpr Lanes<T> lanes() {
    return {functions<Pack<T>>(), functions<T>()};
}

}  // namespace

#define HR_JOIN_(a, b) a##b
#define HR_JOIN(a, b) HR_JOIN_(a, b)
constinit const Set HR_JOIN(set_, HR_ISA) = {lanes<float>(), lanes<double>()};

}  // namespace headrace::tests
