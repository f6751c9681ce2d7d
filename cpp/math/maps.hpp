// THE list of maps. Kernels, bindings, tests and benchmarks loop over it; a new map is its header and a line here.
// Maps with the same type `Kernel` share compiled kernels; options distinguish them.
#pragma once

#include <type_traits>

#include "maps/additive.hpp"
#include "maps/affine.hpp"
#include "maps/dual_ascent.hpp"
#include "maps/logistic_mixture.hpp"
#include "maps/rq_spline.hpp"

// X(index, type, name in Python, scale function in Python); the index is the position in the list.
#define HR_OWN_MAPS(X)                                \
    X(0, Affine<SoftClamp>, "affine", "soft_clamp")   \
    X(1, Affine<Exponential>, "affine", "exp")        \
    X(2, Affine<SoftplusScale>, "affine", "softplus") \
    X(3, Affine<SigmoidScale>, "affine", "sigmoid")   \
    X(4, Additive, "additive", "")                    \
    X(5, RqSpline, "rq_spline", "")                   \
    X(6, NflowsSpline, "rq_spline_nflows", "")        \
    X(7, FreeSpline, "rq_spline_free", "")            \
    X(8, FlowjaxSpline, "rq_spline_flowjax", "")      \
    X(9, CircularSpline, "rq_spline_circular", "")    \
    X(10, DualAscent, "dual_ascent", "")              \
    X(11, LogisticMixture, "logistic_mixture", "")    \
    X(12, HalvedSpline, "rq_spline_flowjax17", "")

// Tests build a module with one more map: this macro names the header with its line of the list.
#ifdef HEADRACE_MORE_MAPS
#include HEADRACE_MORE_MAPS
#else
#define HR_MORE_MAPS(X)
#endif
#define HR_MAPS(X) HR_OWN_MAPS(X) HR_MORE_MAPS(X)

namespace headrace {
namespace {

// A map's constants beside its formulas. `max_bins`: the largest number of bins, if the map has bins; its number of
// parameters then depends on them. `least_slope`: the smallest slope that it takes, if not every one above 0.
template <class Map>
HR_FN constexpr int max_bins_of() {
    if constexpr (requires { Map::max_bins; }) return Map::max_bins;
    return 0;
}
template <class Map>
HR_FN constexpr double least_slope_of() {
    if constexpr (requires { Map::least_slope; }) return Map::least_slope;
    return 0;
}
// `least_bin`: the smallest minimal share of a bin that the map allows, 0 if its bins have none; maps with such a share
// may have any interval.
template <class Map>
HR_FN constexpr double least_bin_of() {
    if constexpr (requires { Map::least_bin; }) return Map::least_bin;
    return 0;
}
// `ends` and `tails` of a spline by name.
template <class Map>
constexpr Ends ends_of() {
    if constexpr (requires { Map::ends; }) return Map::ends;
    return Ends::one;
}
template <class Map>
constexpr Tails tails_of() {
    if constexpr (requires { Map::tails; }) return Map::tails;
    return Tails::identity;
}
template <class Map>
constexpr bool has_bins = max_bins_of<Map>() > 0;
// Whether named parameters are as many as kernels take.
template <class Map>
constexpr bool names_all(int bins) {
    int count = 0;
    for (const MapParameters& own : Map::parameters(bins)) count += own.count;
    return count == Map::n_params(bins);
}

#define HR_CHECK(i, type, name, scale)                                                                           \
    static_assert(has_bins<type> == (type::n_params(2) != type::n_params(3)), name ": max_bins if it has bins"); \
    static_assert(names_all<type>(2) && names_all<type>(3), name ": parameters() and n_params()");
HR_MAPS(HR_CHECK)
#undef HR_CHECK

// ---- for kernels ----------------------------------------------------------------------------------------------------

// The type that kernels are compiled for: the map itself, or `Kernel`, which several maps share.
template <class Map>
struct KernelFor {
    using type = Map;
};
template <class Map>
    requires requires { typename Map::Kernel; }
struct KernelFor<Map> {
    using type = typename Map::Kernel;
};
template <class Map>
using KernelOf = typename KernelFor<Map>::type;

// The first index of the list that has this kernel.
template <class Kernel>
HR_FN constexpr int first_with() {
    int first = -1;
#define HR_FIRST(i, type, name, scale) \
    if (first < 0 && std::is_same_v<Kernel, KernelOf<type>>) first = i;
    HR_MAPS(HR_FIRST)
#undef HR_FIRST
    return first;
}
template <class Map>
constexpr int first_index = first_with<KernelOf<Map>>();

// Calls f.operator()<Kernel>() for the map with this index; the code of f is compiled once for each kernel.
#ifdef __CUDACC__
#pragma nv_exec_check_disable  // f may be host-only
#endif
template <class F>
HR_FN void with_map(int index, F&& f) {
    int kernel = -1;
    switch (index) {
#define HR_CASE(i, type, name, scale) \
    case i: kernel = first_index<type>; break;
        HR_MAPS(HR_CASE)
#undef HR_CASE
        default: break;
    }
    switch (kernel) {
#define HR_CASE(i, type, name, scale)                                                  \
    case i:                                                                            \
        if constexpr (first_index<type> == i) f.template operator()<KernelOf<type>>(); \
        break;
        HR_MAPS(HR_CASE)
#undef HR_CASE
        default: break;
    }
}

// Parameters of one coordinate.
template <class Kernel, class T>
HR_FN constexpr int n_params_with(const MapOptions<T>& o) {
    if constexpr (requires { Kernel::n_params(o); }) {
        return Kernel::n_params(o);
    } else {
        return Kernel::n_params(o.bins);
    }
}

}  // namespace
}  // namespace headrace
