// hr.ops: the functional kernels, strict about dtype, shape and order.
#include <algorithm>
#include <cmath>

#include "../isa.hpp"
#include "../masks.hpp"
#include "../threads.hpp"
#include "bindings.hpp"

namespace headrace {
namespace {

constexpr int64_t elements_of_task = 1 << 15;

template <class T>
void coupling(const std::string& map, const std::string& scale, double slope, bool inverse, const Array<T>& in,
              const Array<T>& params, Array<T>& value, Array<T>& log_det) {
    const int index = find_map(map, scale);
    const int n_params = map_list()[index].n_params;
    require(slope > 0 && slope < 1, "coupling: slope must lie between 0 and 1");
    require(in.ndim() == 2 && params.ndim() == 3 && value.ndim() == 2 && log_det.ndim() == 1,
            "coupling: expected two dimensions for values, three for params, one for log_det");
    const int64_t rows = in.shape(0), active = in.shape(1);
    require(params.shape(0) == rows && params.shape(1) == active && params.shape(2) == n_params &&
                value.shape(0) == rows && value.shape(1) == active && log_det.shape(0) == rows,
            "coupling: params must be (rows, active, n_params), value (rows, active), log_det (rows,)");
    require(is_aligned(in) && is_aligned(params) && is_aligned(value) && is_aligned(log_det),
            "coupling: expected aligned arrays");
    const MapOptions<T> options{T(slope), T(1 / std::log(1 / slope))};
    const T *x = in.data(), *p = params.data();
    T *y = value.mutable_data(), *d = log_det.mutable_data();
    const py::gil_scoped_release nogil;
    const auto& kernels = kernels_of<T>(*active_isa().table);
    const int64_t rows_of_task = std::max<int64_t>(1, elements_of_task / std::max<int64_t>(1, active));
    parallel_for((rows + rows_of_task - 1) / rows_of_task, [&](int64_t task) {
        const int64_t r = task * rows_of_task, n = std::min(rows_of_task, rows - r);
        kernels.coupling(index, inverse, options, x + r * active, p + r * active * n_params, y + r * active, d + r, n,
                         active);
    });
}

}  // namespace

void bind_ops(py::module_& m) {
    m.def("coupling", &coupling<float>, py::arg("map"), py::arg("scale"), py::arg("slope"), py::arg("inverse"),
          py::arg("input").noconvert(), py::arg("params").noconvert(), py::arg("value").noconvert(),
          py::arg("log_det").noconvert());
    m.def("coupling", &coupling<double>, py::arg("map"), py::arg("scale"), py::arg("slope"), py::arg("inverse"),
          py::arg("input").noconvert(), py::arg("params").noconvert(), py::arg("value").noconvert(),
          py::arg("log_det").noconvert());
}

}  // namespace headrace
