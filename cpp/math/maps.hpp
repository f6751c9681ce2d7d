// THE list of maps. Kernels, bindings, tests and benchmarks loop over it; a new map is its header and a line here.
#pragma once

#include "maps/additive.hpp"
#include "maps/affine.hpp"
#include "maps/dual_ascent.hpp"
#include "maps/rq_spline.hpp"

// Tests add a map to a module of their own: the header that is named here then has its lines of the list.
#ifdef HEADRACE_MORE_MAPS
#include HEADRACE_MORE_MAPS
#else
#define HR_MORE_MAPS(X)
#endif

// X(index, type, name in Python, scale function in Python)
#define HR_MAPS(X)                                    \
    X(0, Affine<SoftClamp>, "affine", "soft_clamp")   \
    X(1, Affine<Exponential>, "affine", "exp")        \
    X(2, Affine<SoftplusScale>, "affine", "softplus") \
    X(3, Affine<SigmoidScale>, "affine", "sigmoid")   \
    X(4, Additive, "additive", "")                    \
    X(5, RqSpline, "rq_spline", "")                   \
    X(6, DualAscent, "dual_ascent", "")               \
    X(7, NflowsSpline, "rq_spline_nflows", "")        \
    X(8, FreeSpline, "rq_spline_free", "")            \
    X(9, FlowjaxSpline, "rq_spline_flowjax", "")      \
    X(10, CircularSpline, "rq_spline_circular", "")   \
    HR_MORE_MAPS(X)

namespace headrace {
namespace {

// What a map says of itself beside its formulas. `max_bins`: how many bins it may have, if it has any; so its number of
// parameters depends on them. `least_slope`: the smallest slope that it takes, if not every one above 0.
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
// `least_bin`: the smallest least share of a bin that it takes, 0 if its bins have no least share; those that do may
// have any interval.
template <class Map>
HR_FN constexpr double least_bin_of() {
    if constexpr (requires { Map::least_bin; }) return Map::least_bin;
    return 0;
}
template <class Map>
constexpr bool has_bins = max_bins_of<Map>() > 0;

#define HR_CHECK(i, type, name, scale) \
    static_assert(has_bins<type> == (type::n_params(2) != type::n_params(3)), name ": max_bins if it has bins");
HR_MAPS(HR_CHECK)
#undef HR_CHECK

// Calls f.operator()<Map>() for the map with this index.
#ifdef __CUDACC__
#pragma nv_exec_check_disable  // f may be for the host alone
#endif
template <class F>
HR_FN void with_map(int index, F&& f) {
    switch (index) {
#define HR_CASE(i, type, name, scale) \
    case i: f.template operator()<type>(); break;
        HR_MAPS(HR_CASE)
#undef HR_CASE
        default: break;
    }
}

}  // namespace
}  // namespace headrace
