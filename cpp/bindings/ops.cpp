// hr.ops: the functional kernels, strict about dtype, shape and order.
#include <algorithm>
#include <cmath>

#include "../isa.hpp"
#include "../masks.hpp"
#include "../threads.hpp"
#include "bindings.hpp"

namespace headrace {
namespace {

constexpr int64_t numbers_of_task = 3 << 15;  // values and parameters

// What both directions and their gradients check alike.
struct Elements {
    int index, n_params;
    int64_t rows, active;

    template <class T>
    Elements(const std::string& map, const std::string& scale, double slope, double bound, const Array<T>& in,
             const Array<T>& params)
        : index(find_map(map, scale)) {
        require(slope > 0 && slope < 1 && bound > 0, "coupling: slope must lie between 0 and 1, bound above 0");
        require(map != "rq_spline" || slope >= least_spline_slope, "slope: expected at least 1e-6 for a spline");
        require(
            in.ndim() == 2 && params.ndim() == 3 && params.shape(0) == in.shape(0) && params.shape(1) == in.shape(1),
            "coupling: expected values (rows, active) and params (rows, active, n_params)");
        require(is_aligned(in) && is_aligned(params), "coupling: expected aligned arrays");
        n_params = int(params.shape(2));
        bins_ = (n_params + 1) / 3;  // what a spline would have
        bins_ = std::clamp(bins_, 2, max_bins);
        require(map_list()[index].n_params(bins_) == n_params, "coupling: params has the wrong number of parameters");
        rows = in.shape(0);
        active = in.shape(1);
        slope_ = slope;
        bound_ = bound;
    }

    template <class T>
    MapOptions<T> options() const {
        return {T(slope_), T(1 / std::log(1 / slope_)), bins_, T(bound_)};
    }

    template <class T>
    void require_like_values(const Array<T>& a) const {
        require(a.ndim() == 2 && a.shape(0) == rows && a.shape(1) == active && is_aligned(a),
                "coupling: expected (rows, active)");
    }
    template <class T>
    void require_like_rows(const Array<T>& a) const {
        require(a.ndim() == 1 && a.shape(0) == rows && is_aligned(a), "coupling: expected (rows,)");
    }

    // body(first row, rows) for stretches of rows.
    template <class F>
    void for_stretches(F&& body) const {
        const int64_t rows_of_task =
            std::max<int64_t>(1, numbers_of_task / std::max<int64_t>(1, active * (n_params + 1)));
        parallel_for((rows + rows_of_task - 1) / rows_of_task, [&](int64_t task) {
            const int64_t r = task * rows_of_task;
            body(r, std::min(rows_of_task, rows - r));
        });
    }

  private:
    int bins_ = 0;
    double slope_ = 0, bound_ = 0;
};

template <class T>
void coupling(const std::string& map, const std::string& scale, double slope, double bound, bool inverse,
              const Array<T>& in, const Array<T>& params, Array<T>& value, Array<T>& log_det) {
    const Elements e(map, scale, slope, bound, in, params);
    e.require_like_values(value);
    e.require_like_rows(log_det);
    const auto options = e.options<T>();
    const T *x = in.data(), *p = params.data();
    T *y = value.mutable_data(), *d = log_det.mutable_data();
    const py::gil_scoped_release nogil;
    const auto& kernels = kernels_of<T>(*active_isa().table);
    e.for_stretches([&](int64_t r, int64_t n) {
        const int64_t first = r * e.active;
        kernels.coupling(e.index, inverse, options, x + first, p + first * e.n_params, y + first, d + r, n, e.active);
    });
}

template <class T>
void coupling_backward(const std::string& map, const std::string& scale, double slope, double bound, bool inverse,
                       const Array<T>& in, const Array<T>& params, const Array<T>& grad_value,
                       const Array<T>& grad_log_det, Array<T>& grad_in, Array<T>& grad_params) {
    const Elements e(map, scale, slope, bound, in, params);
    e.require_like_values(grad_value);
    e.require_like_rows(grad_log_det);
    e.require_like_values(grad_in);
    require(grad_params.ndim() == 3 && grad_params.shape(0) == e.rows && grad_params.shape(1) == e.active &&
                grad_params.shape(2) == e.n_params && is_aligned(grad_params),
            "coupling_backward: grad_params must be like params");
    const auto options = e.options<T>();
    const T *x = in.data(), *p = params.data(), *g = grad_value.data(), *d = grad_log_det.data();
    T *by_in = grad_in.mutable_data(), *by_params = grad_params.mutable_data();
    const py::gil_scoped_release nogil;
    const auto& kernels = kernels_of<T>(*active_isa().table);
    e.for_stretches([&](int64_t r, int64_t n) {
        const int64_t first = r * e.active;
        kernels.coupling_backward(e.index, inverse, options, x + first, p + first * e.n_params, g + first, d + r,
                                  by_in + first, by_params + first * e.n_params, n, e.active);
    });
}

template <class T>
void bind_ops_of(py::module_& m) {
    m.def("coupling", &coupling<T>, py::arg("map"), py::arg("scale"), py::arg("slope"), py::arg("bound"),
          py::arg("inverse"), py::arg("input").noconvert(), py::arg("params").noconvert(), py::arg("value").noconvert(),
          py::arg("log_det").noconvert());
    m.def("coupling_backward", &coupling_backward<T>, py::arg("map"), py::arg("scale"), py::arg("slope"),
          py::arg("bound"), py::arg("inverse"), py::arg("input").noconvert(), py::arg("params").noconvert(),
          py::arg("grad_value").noconvert(), py::arg("grad_log_det").noconvert(), py::arg("grad_input").noconvert(),
          py::arg("grad_params").noconvert());
}

}  // namespace

void bind_ops(py::module_& m) {
    bind_ops_of<float>(m);
    bind_ops_of<double>(m);
}

}  // namespace headrace
