// The functions of hr.ops, which require exact dtypes, shapes and orders.
#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "../core/isa.hpp"
#include "../core/scratch.hpp"
#include "../core/threads.hpp"
#include "bindings.hpp"
#include "couplings.hpp"

namespace headrace {
namespace {

template <class... A>
void require_aligned(const char* message, const A&... arrays) {
    require((is_aligned(arrays) && ...), message);
}

template <class T>
Shape shape_of(const Array<T>& a) {
    return Shape(a.shape(), a.shape() + a.ndim());
}

template <class T>
void coupling(const std::string& map, const std::string& scale, double slope, double bound, int bins, bool inverse,
              const Array<T>& in, const Array<T>& params, Array<T>& value, Array<T>& log_det, std::optional<double> low,
              double min_bin) {
    const Elements e(map, scale, slope, bound, bins, low, min_bin, shape_of(in), shape_of(params));
    e.require_like_values(shape_of(value));
    e.require_like_rows(shape_of(log_det));
    require_aligned(elements_arrays, in, params, value, log_det);
    const T *x = in.data(), *p = params.data();
    T *y = value.mutable_data(), *d = log_det.mutable_data();
    without_gil([&] { run_coupling(e, inverse, x, p, y, d); });
}

template <class T>
void coupling_backward(const std::string& map, const std::string& scale, double slope, double bound, int bins,
                       bool inverse, const Array<T>& in, const Array<T>& params, const Array<T>& grad_value,
                       const Array<T>& grad_log_det, Array<T>& grad_in, Array<T>& grad_params,
                       std::optional<double> low, double min_bin) {
    const Elements e(map, scale, slope, bound, bins, low, min_bin, shape_of(in), shape_of(params));
    e.require_like_values(shape_of(grad_value));
    e.require_like_rows(shape_of(grad_log_det));
    e.require_like_values(shape_of(grad_in));
    e.require_like_params(shape_of(grad_params));
    require_aligned(elements_arrays, in, params, grad_value, grad_log_det, grad_in, grad_params);
    const T *x = in.data(), *p = params.data();
    const CouplingGradients<T> by{grad_value.data(), grad_log_det.data(), grad_in.mutable_data(),
                                  grad_params.mutable_data()};
    without_gil([&] { pull_coupling(e, inverse, x, p, by); });
}

// A coupling whose settings are read once, for calls that take microseconds. Arguments of calls are addresses of dense
// arrays: values, parameters and results of `coupling` or of `coupling_backward`.
class ReadyCoupling {
  public:
    ReadyCoupling(const std::string& map, const std::string& scale, double slope, double bound, int bins, bool inverse,
                  int64_t active, int n_params, std::optional<double> low, double min_bin)
        : elements_(map, scale, slope, bound, bins, low, min_bin, {1, active}, {1, active, n_params}),
          inverse_(inverse) {}

    void run(bool is_double, int64_t rows, uintptr_t in, uintptr_t params, uintptr_t value, uintptr_t log_det) const {
        with_dtype(is_double, [&]<class T>() {
            T *x = at<T>(in, rows), *p = at<T>(params, rows), *y = at<T>(value, rows), *d = at<T>(log_det, rows);
            without_gil([&] { run_coupling(of_rows(rows), inverse_, x, p, y, d); });
        });
    }
    void backward(bool is_double, int64_t rows, uintptr_t in, uintptr_t params, uintptr_t grad_value,
                  uintptr_t grad_log_det, uintptr_t grad_in, uintptr_t grad_params) const {
        with_dtype(is_double, [&]<class T>() {
            const T *x = at<T>(in, rows), *p = at<T>(params, rows);
            const CouplingGradients<T> by{at<T>(grad_value, rows), at<T>(grad_log_det, rows), at<T>(grad_in, rows),
                                          at<T>(grad_params, rows)};
            without_gil([&] { pull_coupling(of_rows(rows), inverse_, x, p, by); });
        });
    }

  private:
    template <class F>
    static void with_dtype(bool is_double, F&& body) {
        if (is_double)
            body.template operator()<double>();
        else
            body.template operator()<float>();
    }
    template <class T>
    static T* at(uintptr_t address, int64_t rows) {
        require(address % alignof(T) == 0 && (address != 0 || rows == 0), elements_arrays);
        return reinterpret_cast<T*>(address);
    }
    Elements of_rows(int64_t rows) const {
        Elements e = elements_;
        e.rows = rows;
        return e;
    }

    Elements elements_;
    bool inverse_;
};

// A call of a vector map, and the ready parameters where all rows share them.
template <class T>
struct VectorRowsOf {
    RowsOfVectors shape;
    VectorRows<T> rows;
    int64_t count;
    std::vector<T> ready;

    VectorRowsOf(const std::string& map, const std::string& variant, double slope, bool inverse, const Array<T>& in,
                 const Array<T>& params)
        : shape(map, variant, slope, shape_of(in), shape_of(params)),
          rows(shape.template call<T>(inverse)),
          count(shape.rows) {
        rows.value = in.data();
        rows.params = params.data();
        if (!shape.shared) return;
        ready.resize(size_t(rows.n_ready));
        with_vector_map(rows.map, [&]<class Map>() {
            Map::template prepare<double>([&](int k) { return double(rows.params[k]); }, rows.features,
                                          [&](int k, double value) { ready[size_t(k)] = T(value); });
        });
        rows.ready = ready.data();
    }

    // Calls body(stretch, first row, rows, scratch) for each tile, where a stretch is the tiles of one task of a
    // thread.
    static constexpr int64_t rows_of_stretch = 16 * vector_rows_of_tile;
    int64_t stretches() const { return (count + rows_of_stretch - 1) / rows_of_stretch; }
    template <class F>
    void for_tiles(F&& body) const {
        const size_t size = size_t(vector_rows_scratch(rows));
        thread_scratch<T>(size);  // allocates here, where an error can be reported
        std::atomic<bool> out_of_memory{false};
        parallel_for(stretches(), [&](int64_t stretch) {
            T* scratch;
            try {
                scratch = thread_scratch<T>(size);
            } catch (const std::bad_alloc&) {
                out_of_memory = true;
                return;
            }
            const int64_t end = std::min(count, (stretch + 1) * rows_of_stretch);
            for (int64_t row = stretch * rows_of_stretch; row < end; row += vector_rows_of_tile)
                body(stretch, row, int(std::min<int64_t>(vector_rows_of_tile, end - row)), scratch);
        });
        if (out_of_memory) throw std::bad_alloc();
    }
};

template <class T>
void vector_map(const std::string& map, const std::string& variant, double slope, bool inverse, const Array<T>& in,
                const Array<T>& params, Array<T>& value, Array<T>& log_det) {
    VectorRowsOf<T> v(map, variant, slope, inverse, in, params);
    v.shape.require_like_values(shape_of(value));
    v.shape.require_like_rows(shape_of(log_det));
    require_aligned(rows_arrays, in, params, value, log_det);
    v.rows.result = value.mutable_data();
    v.rows.log_det = log_det.mutable_data();
    const auto& kernels = kernels_of<T>(*active_isa().table);
    without_gil([&] {
        v.for_tiles(
            [&](int64_t, int64_t row, int rows, T* scratch) { kernels.vector_rows(v.rows, row, rows, scratch); });
    });
}

template <class T>
void vector_map_backward(const std::string& map, const std::string& variant, double slope, bool inverse,
                         const Array<T>& in, const Array<T>& params, const Array<T>& grad_value,
                         const Array<T>& grad_log_det, Array<T>& grad_in, Array<T>& grad_params) {
    VectorRowsOf<T> v(map, variant, slope, inverse, in, params);
    v.shape.require_like_values(shape_of(grad_value));
    v.shape.require_like_rows(shape_of(grad_log_det));
    v.shape.require_like_values(shape_of(grad_in));
    v.shape.require_like_params(shape_of(grad_params));
    require_aligned(rows_arrays, in, params, grad_value, grad_log_det, grad_in, grad_params);
    VectorRowsBack<T> back{grad_value.data(), grad_log_det.data(), grad_in.mutable_data(), grad_params.mutable_data()};
    const auto& kernels = kernels_of<T>(*active_isa().table);
    const auto n_ready = size_t(v.rows.n_ready);
    // Sums of stretches are added in order, so that no bit depends on the threads.
    std::vector<double> sums(v.rows.ready ? n_ready * size_t(v.stretches()) : 0);
    without_gil([&] {
        v.for_tiles([&](int64_t stretch, int64_t row, int rows, T* scratch) {
            double* sum = sums.empty() ? nullptr : sums.data() + n_ready * size_t(stretch);
            kernels.vector_rows_backward(v.rows, back, row, rows, sum, scratch);
        });
    });
    if (!v.rows.ready) return;
    std::vector<double> total(n_ready, 0);
    for (size_t i = 0; i < sums.size(); ++i) total[i % n_ready] += sums[i];
    with_vector_map(v.rows.map, [&]<class Map>() {
        Map::template prepare_vjp<double>([&](int k) { return double(v.rows.params[k]); },
                                          [&](int k) { return total[size_t(k)]; }, v.rows.features,
                                          [&](int k, double g) { back.grad_params[k] = T(g); });
    });
}

template <class T>
void bind_ops_of(py::module_& m) {
    m.def("coupling", &coupling<T>, py::arg("map"), py::arg("scale"), py::arg("slope"), py::arg("bound"),
          py::arg("bins"), py::arg("inverse"), py::arg("input").noconvert(), py::arg("params").noconvert(),
          py::arg("value").noconvert(), py::arg("log_det").noconvert(), py::arg("low") = py::none(),
          py::arg("min_bin") = 1e-3);
    m.def("coupling_backward", &coupling_backward<T>, py::arg("map"), py::arg("scale"), py::arg("slope"),
          py::arg("bound"), py::arg("bins"), py::arg("inverse"), py::arg("input").noconvert(),
          py::arg("params").noconvert(), py::arg("grad_value").noconvert(), py::arg("grad_log_det").noconvert(),
          py::arg("grad_input").noconvert(), py::arg("grad_params").noconvert(), py::arg("low") = py::none(),
          py::arg("min_bin") = 1e-3);
    m.def("vector_map", &vector_map<T>, py::arg("map"), py::arg("variant"), py::arg("slope"), py::arg("inverse"),
          py::arg("input").noconvert(), py::arg("params").noconvert(), py::arg("value").noconvert(),
          py::arg("log_det").noconvert());
    m.def("vector_map_backward", &vector_map_backward<T>, py::arg("map"), py::arg("variant"), py::arg("slope"),
          py::arg("inverse"), py::arg("input").noconvert(), py::arg("params").noconvert(),
          py::arg("grad_value").noconvert(), py::arg("grad_log_det").noconvert(), py::arg("grad_input").noconvert(),
          py::arg("grad_params").noconvert());
}

}  // namespace

void bind_ops(py::module_& m) {
    bind_ops_of<float>(m);
    bind_ops_of<double>(m);
    py::class_<ReadyCoupling>(m, "ReadyCoupling")
        .def(py::init<const std::string&, const std::string&, double, double, int, bool, int64_t, int,
                      std::optional<double>, double>(),
             py::arg("map"), py::arg("scale"), py::arg("slope"), py::arg("bound"), py::arg("bins"), py::arg("inverse"),
             py::arg("active"), py::arg("n_params"), py::arg("low") = py::none(), py::arg("min_bin") = 1e-3)
        .def("run", &ReadyCoupling::run)
        .def("backward", &ReadyCoupling::backward);
}

}  // namespace headrace
