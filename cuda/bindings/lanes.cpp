// The lane functions on the device (kernels/lanes.hpp), for tests.
#include <optional>

#include "../../cpp/core/maps.hpp"
#include "../kernels/lanes.hpp"
#include "bindings.hpp"

namespace headrace {
namespace {

constexpr const char* like_numbers = "expected contiguous vectors of one length and dtype";

// Calls body(T()), with T the dtype of a vector.
template <class Body>
void by_dtype(const DeviceArray& array, Body body) {
    require(array.is_float() && array.shape.size() == 1, like_numbers);
    if (array.is<float>()) {  // NOLINT(bugprone-branch-clone): the branches differ in the type
        body(float());
    } else {
        body(double());
    }
}

std::vector<std::string> names() {
    return {std::begin(lane_function_names), std::end(lane_function_names)};
}

// Computes all lane functions of x and y, shape (n,), and writes them to `out`, shape (functions, n).
void lane_functions(const py::object& x, const py::object& y, const py::object& out, uintptr_t stream) {
    const DeviceArray given(x);
    by_dtype(given, [&]<class T>(T) {
        const int64_t n = given.count();
        launch_lane_functions<T>(given.contiguous<T>(like_numbers), numbers<T>(y, {n}, like_numbers),
                                 numbers<T>(out, {int64_t(names().size()), n}, "out: expected (functions, n)"), n,
                                 stream_at(stream));
    });
}

// Computes a map of `in`, shape (n,), with parameters `params`, shape (n, n_params); results have shape (n,).
void map_functions(const std::string& map, const std::string& scale, double slope, double bound, int bins,
                   const py::object& in, const py::object& params, const py::object& forward, const py::object& inverse,
                   const py::object& forward_log_det, const py::object& inverse_log_det, uintptr_t stream,
                   std::optional<double> low, double min_bin) {
    const DeviceArray given(in);
    const int index = find_map(map, scale);
    const int n_params = n_params_of(index, bins);
    by_dtype(given, [&]<class T>(T) {
        const int64_t n = given.count();
        const auto options = map_options<T>(index, slope, bins, low.value_or(-bound), bound, min_bin);
        launch_map_functions<T>(index, options, given.contiguous<T>(like_numbers),
                                numbers<T>(params, {n, n_params}, "params: wrong shape"),
                                numbers<T>(forward, {n}, like_numbers), numbers<T>(inverse, {n}, like_numbers),
                                numbers<T>(forward_log_det, {n}, like_numbers),
                                numbers<T>(inverse_log_det, {n}, like_numbers), n, stream_at(stream));
    });
}

// Computes an activation of `in`, and its slope; all arrays have shape (n,).
void activation_functions(int activation, const py::object& in, const py::object& out, const py::object& slope,
                          uintptr_t stream) {
    const DeviceArray given(in);
    require(activation >= 0 && activation < int(activation_list().size()), "activation: expected an index of the list");
    by_dtype(given, [&]<class T>(T) {
        const int64_t n = given.count();
        launch_activation_functions<T>(activation, given.contiguous<T>(like_numbers),
                                       numbers<T>(out, {n}, like_numbers), numbers<T>(slope, {n}, like_numbers), n,
                                       stream_at(stream));
    });
}

// Writes random values of columns [4 block, 4 block + 4) and rows `first` to `first` + n - 1 to `out`, shape (4 n,).
void random_columns(bool logistic, uint64_t seed, int64_t first, uint32_t block, const py::object& out,
                    uintptr_t stream) {
    const DeviceArray given(out);
    by_dtype(given, [&]<class T>(T) {
        require(given.count() % 4 == 0, "out: expected 4 numbers a row");
        launch_random_columns<T>(logistic, seed, first, block, given.contiguous<T>(like_numbers), given.count() / 4,
                                 stream_at(stream));
    });
}

}  // namespace

void bind_lanes(py::module_& m) {
    m.def("lane_function_names", &names);
    m.def("lane_functions", &lane_functions, py::arg("x"), py::arg("y"), py::arg("out"), py::arg("stream"));
    m.def("map_functions", &map_functions, py::arg("map"), py::arg("scale"), py::arg("slope"), py::arg("bound"),
          py::arg("bins"), py::arg("input"), py::arg("params"), py::arg("forward"), py::arg("inverse"),
          py::arg("forward_log_det"), py::arg("inverse_log_det"), py::arg("stream"), py::arg("low") = py::none(),
          py::arg("min_bin") = 1e-3);
    m.def("activation_functions", &activation_functions, py::arg("activation"), py::arg("input"), py::arg("out"),
          py::arg("slope"), py::arg("stream"));
    m.def("random_columns", &random_columns, py::arg("logistic"), py::arg("seed"), py::arg("first"), py::arg("block"),
          py::arg("out"), py::arg("stream"));
    m.def("activations", [] { return activation_list(); });
    m.def("maps", [] {
        std::vector<std::pair<std::string, std::string>> rows;
        for (const MapInfo& map : map_list()) rows.emplace_back(map.name, map.scale);
        return rows;
    });
}

}  // namespace headrace
