// The CPU's lane: a vector as wide as the instruction set that this file is compiled for, made by the vector extension
// of GCC and Clang. Loads and stores take any alignment.
#pragma once

#include "lane.hpp"

#if defined(__AVX512F__)
#define HR_VECTOR_BYTES 64
#elif defined(__AVX__)
#define HR_VECTOR_BYTES 32
#else
#define HR_VECTOR_BYTES 16
#endif

namespace headrace {
namespace {

typedef float PackF __attribute__((vector_size(HR_VECTOR_BYTES)));
typedef double PackD __attribute__((vector_size(HR_VECTOR_BYTES)));
typedef int32_t PackI32 __attribute__((vector_size(HR_VECTOR_BYTES)));
typedef int64_t PackI64 __attribute__((vector_size(HR_VECTOR_BYTES)));
typedef uint32_t PackU32 __attribute__((vector_size(HR_VECTOR_BYTES)));
typedef uint32_t HalfPackU32 __attribute__((vector_size(HR_VECTOR_BYTES / 2)));

template <>
struct Lane<PackF> {
    using Scalar = float;
    using Int = PackI32;
    using U32 = PackU32;
    static constexpr int width = HR_VECTOR_BYTES / 4;
};

template <>
struct Lane<PackD> {
    using Scalar = double;
    using Int = PackI64;
    using U32 = HalfPackU32;
    static constexpr int width = HR_VECTOR_BYTES / 8;
};

template <class T>
struct PackOf;
template <>
struct PackOf<float> {
    using type = PackF;
};
template <>
struct PackOf<double> {
    using type = PackD;
};
template <class T>
using Pack = typename PackOf<T>::type;

template <class T>
constexpr int width = HR_VECTOR_BYTES / int(sizeof(T));

template <class T>
HR_FN Pack<T> load(const T* p) {
    Pack<T> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
HR_FN void store(T* p, Pack<T> v) {
    __builtin_memcpy(p, &v, sizeof v);
}

// Loads the first n values; the other lanes are zero.
template <class T>
HR_FN Pack<T> load_up_to(const T* p, int n) {
    if (n >= width<T>) return load(p);
    Pack<T> v{};
    for (int i = 0; i < n; ++i) v[i] = p[i];
    return v;
}

// Stores the first n lanes.
template <class T>
HR_FN void store_up_to(T* p, Pack<T> v, int n) {
    if (n >= width<T>) return store(p, v);
    for (int i = 0; i < n; ++i) p[i] = v[i];
}

// Lane indices 0, 1, ..., for shuffles.
template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
    using type = Indices<I...>;
};

template <class V>
HR_FN Scalar<V> reduce_add(V v) {
    Scalar<V> lanes[Lane<V>::width];
    __builtin_memcpy(lanes, &v, sizeof v);
    for (int n = Lane<V>::width / 2; n > 0; n /= 2)
        for (int i = 0; i < n; ++i) lanes[i] += lanes[i + n];
    return lanes[0];
}

}  // namespace
}  // namespace headrace
