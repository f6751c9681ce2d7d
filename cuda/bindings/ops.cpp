// The functions of hr.ops on a device, which require exact dtypes, shapes and orders. Arrays are checked against each
// other and against the map; results are queued on the stream, which belongs to the arrays' device.
#include "bindings.hpp"

#include "../../cpp/bindings/ops_checks.hpp"
#include "../kernels/coupling.cuh"
#include "../kernels/vector_rows.cuh"

namespace headrace {
namespace {

// Calls f.operator()<T>() for the dtype of the first array, which all arrays must have.
template <class F>
void with_dtype(const DeviceArray& first, const char* message, const F& f) {
    require(first.is_float(), message);
    if (first.is<float>()) {
        f.template operator()<float>();
    } else {
        f.template operator()<double>();
    }
}

void coupling_on(const std::string& map, const std::string& scale, double slope, double bound, int bins, bool inverse,
                 const py::tuple& in_, const py::tuple& params_, const py::tuple& value_, const py::tuple& log_det_,
                 std::optional<double> low, double min_bin, int device, uintptr_t stream) {
    const DeviceArray in(in_), params(params_), value(value_), log_det(log_det_);
    const Elements e(map, scale, slope, bound, bins, low, min_bin, in.shape, params.shape);
    e.require_like_values(value.shape);
    e.require_like_rows(log_det.shape);
    with_dtype(in, elements_arrays, [&]<class T>() {
        const auto at = [](const DeviceArray& a) { return a.contiguous<T>(elements_arrays); };
        const T *const x = at(in), *const p = at(params);
        T *const y = at(value), *const d = at(log_det);
        const py::gil_scoped_release nogil;
        const OnDevice on(device);
        coupling<T>(e.index, inverse, e.options<T>(), x, p, y, d, e.rows, e.active, stream_at(stream));
    });
}

void coupling_backward_on(const std::string& map, const std::string& scale, double slope, double bound, int bins,
                          bool inverse, const py::tuple& in_, const py::tuple& params_, const py::tuple& grad_value_,
                          const py::tuple& grad_log_det_, const py::tuple& grad_in_, const py::tuple& grad_params_,
                          std::optional<double> low, double min_bin, int device, uintptr_t stream) {
    const DeviceArray in(in_), params(params_), grad_value(grad_value_), grad_log_det(grad_log_det_), grad_in(grad_in_),
        grad_params(grad_params_);
    const Elements e(map, scale, slope, bound, bins, low, min_bin, in.shape, params.shape);
    e.require_like_values(grad_value.shape);
    e.require_like_rows(grad_log_det.shape);
    e.require_like_values(grad_in.shape);
    e.require_like_params(grad_params.shape);
    with_dtype(in, elements_arrays, [&]<class T>() {
        const auto at = [](const DeviceArray& a) { return a.contiguous<T>(elements_arrays); };
        const T *const x = at(in), *const p = at(params), *const g = at(grad_value), *const d = at(grad_log_det);
        T *const by_in = at(grad_in), *const by_params = at(grad_params);
        const py::gil_scoped_release nogil;
        const OnDevice on(device);
        coupling_backward<T>(e.index, inverse, e.options<T>(), x, p, g, d, by_in, by_params, e.rows, e.active,
                             stream_at(stream));
    });
}

void vector_map_on(const std::string& map, const std::string& variant, double slope, bool inverse, const py::tuple& in_,
                   const py::tuple& params_, const py::tuple& value_, const py::tuple& log_det_, int device,
                   uintptr_t stream) {
    const DeviceArray in(in_), params(params_), value(value_), log_det(log_det_);
    const RowsOfVectors v(map, variant, slope, in.shape, params.shape);
    v.require_like_values(value.shape);
    v.require_like_rows(log_det.shape);
    with_dtype(in, rows_arrays, [&]<class T>() {
        const auto at = [](const DeviceArray& a) { return a.contiguous<T>(rows_arrays); };
        VectorRows<T> a = v.call<T>(inverse);
        a.value = at(in);
        a.params = at(params);
        a.result = at(value);
        a.log_det = at(log_det);
        const py::gil_scoped_release nogil;
        const OnDevice on(device);
        vector_map(a, v.shared, v.rows, stream_at(stream));
    });
}

void vector_map_backward_on(const std::string& map, const std::string& variant, double slope, bool inverse,
                            const py::tuple& in_, const py::tuple& params_, const py::tuple& grad_value_,
                            const py::tuple& grad_log_det_, const py::tuple& grad_in_, const py::tuple& grad_params_,
                            int device, uintptr_t stream) {
    const DeviceArray in(in_), params(params_), grad_value(grad_value_), grad_log_det(grad_log_det_), grad_in(grad_in_),
        grad_params(grad_params_);
    const RowsOfVectors v(map, variant, slope, in.shape, params.shape);
    v.require_like_values(grad_value.shape);
    v.require_like_rows(grad_log_det.shape);
    v.require_like_values(grad_in.shape);
    v.require_like_params(grad_params.shape);
    with_dtype(in, rows_arrays, [&]<class T>() {
        const auto at = [](const DeviceArray& a) { return a.contiguous<T>(rows_arrays); };
        VectorRows<T> a = v.call<T>(inverse);
        a.value = at(in);
        a.params = at(params);
        const VectorRowsBack<T> back{at(grad_value), at(grad_log_det), at(grad_in), at(grad_params)};
        const py::gil_scoped_release nogil;
        const OnDevice on(device);
        vector_map_backward(a, v.shared, back, v.rows, stream_at(stream));
    });
}

}  // namespace

void bind_ops(py::module_& m) {
    m.def("coupling", &coupling_on, py::arg("map"), py::arg("scale"), py::arg("slope"), py::arg("bound"),
          py::arg("bins"), py::arg("inverse"), py::arg("input"), py::arg("params"), py::arg("value"),
          py::arg("log_det"), py::arg("low") = py::none(), py::arg("min_bin") = 1e-3, py::arg("device"),
          py::arg("stream"));
    m.def("coupling_backward", &coupling_backward_on, py::arg("map"), py::arg("scale"), py::arg("slope"),
          py::arg("bound"), py::arg("bins"), py::arg("inverse"), py::arg("input"), py::arg("params"),
          py::arg("grad_value"), py::arg("grad_log_det"), py::arg("grad_input"), py::arg("grad_params"),
          py::arg("low") = py::none(), py::arg("min_bin") = 1e-3, py::arg("device"), py::arg("stream"));
    m.def("vector_map", &vector_map_on, py::arg("map"), py::arg("variant"), py::arg("slope"), py::arg("inverse"),
          py::arg("input"), py::arg("params"), py::arg("value"), py::arg("log_det"), py::arg("device"),
          py::arg("stream"));
    m.def("vector_map_backward", &vector_map_backward_on, py::arg("map"), py::arg("variant"), py::arg("slope"),
          py::arg("inverse"), py::arg("input"), py::arg("params"), py::arg("grad_value"), py::arg("grad_log_det"),
          py::arg("grad_input"), py::arg("grad_params"), py::arg("device"), py::arg("stream"));
}

}  // namespace headrace
