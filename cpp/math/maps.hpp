// THE list of maps. Kernels, bindings, tests and benchmarks loop over the list of maps; a new map needs a header and a
// line of the list. Maps with the same type `Kernel` share compiled kernels; options distinguish them.
#pragma once

#include <type_traits>

#include "maps/additive.hpp"
#include "maps/affine.hpp"
#include "maps/dual_ascent.hpp"
#include "maps/logistic_mixture.hpp"
#include "maps/rq_spline.hpp"

// X(index, type, name in Python, scale function in Python)for each map; the index is the position in the list.
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

// Tests build a module with a further map: this macro names the header that adds the map to the list.
#ifdef HEADRACE_MORE_MAPS
#include HEADRACE_MORE_MAPS
#else
#define HR_MORE_MAPS(X)
#endif
#define HR_MAPS(X) HR_OWN_MAPS(X) HR_MORE_MAPS(X)

namespace headrace {
namespace {

// A map's constants. `max_bins`: the largest number of bins, if the map has bins, on which its number of parameters
// then depends. `least_slope`: the smallest option `slope` of the map, where not every positive slope is allowed.
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
// `least_bin`: the smallest option `min_bin` that the map allows, 0 if its bins have no least share. Maps whose bins
// have a least share may have any interval.
template <class Map>
HR_FN constexpr double least_bin_of() {
    if constexpr (requires { Map::least_bin; }) return Map::least_bin;
    return 0;
}
// The `ends` and `tails` of the named spline.
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
// Whether a map has as many named parameters as its kernels take.
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

// The first index of the list whose map has this kernel.
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

// Calls f.operator()<Kernel>() for the map with the given index; the code of f is compiled once for each kernel.
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

// The number of parameters of one coordinate.
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
