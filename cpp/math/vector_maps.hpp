// The list of vector maps: invertible functions of all coordinates together (planar.hpp has a description). A new
// vector map needs a header and a line of HR_VECTOR_MAPS.
#pragma once

#include <type_traits>

#include "vector_maps/planar.hpp"
#include "vector_maps/radial.hpp"

// X(index, type, name in Python, variant in Python) for each vector map.
#define HR_VECTOR_MAPS(X)                               \
    X(0, Planar<TanhBend>, "planar", "tanh")            \
    X(1, Planar<LeakyReluBend>, "planar", "leaky_relu") \
    X(2, Radial, "radial", "")

namespace headrace {
namespace {

// Calls f.operator()<Map>() for the vector map with the given index.
#ifdef __CUDACC__
#pragma nv_exec_check_disable  // f may be host-only
#endif
template <class F>
HR_FN void with_vector_map(int index, F&& f) {
    switch (index) {
#define HR_CASE(i, type, name, variant) \
    case i: f.template operator()<type>(); break;
        HR_VECTOR_MAPS(HR_CASE)
#undef HR_CASE
        default: break;
    }
}

// The map whose kernels prepare parameters and compute the backward pass of the preparation: a map may name another map
// as its `Prepared` and share these kernels.
template <class Map>
struct PreparedAs {
    using type = Map;
};
template <class Map>
    requires requires { typename Map::Prepared; }
struct PreparedAs<Map> {
    using type = typename Map::Prepared;
};
template <class Map>
using PreparedOf = typename PreparedAs<Map>::type;
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <class F>
HR_FN void with_prepared_map(int index, F&& f) {
    int prepared = -1;
#define HR_CASE(i, type, name, variant)                                    \
    with_vector_map(index, [&]<class Map>() {                              \
        if constexpr (std::is_same_v<PreparedOf<Map>, type>) prepared = i; \
    });
    HR_VECTOR_MAPS(HR_CASE)
#undef HR_CASE
    switch (prepared) {
#define HR_CASE(i, type, name, variant)                                                      \
    case i:                                                                                  \
        if constexpr (std::is_same_v<PreparedOf<type>, type>) f.template operator()<type>(); \
        break;
        HR_VECTOR_MAPS(HR_CASE)
#undef HR_CASE
        default: break;
    }
}

// The index, in the order of coordinates, of the parameter that has index k in the order of slots: the first `vectors`
// groups have one value for each coordinate.
HR_FN int in_coordinate_order(int k, int vectors, int features, const int* coordinate) {
    return k < vectors * features ? k - k % features + coordinate[k % features] : k;
}

}  // namespace
}  // namespace headrace
