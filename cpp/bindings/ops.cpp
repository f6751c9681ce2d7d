// hr.ops: the functional kernels, strict about dtype, shape and order.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <vector>

#include "../isa.hpp"
#include "../masks.hpp"
#include "../scratch.hpp"
#include "../threads.hpp"
#include "../vector_maps.hpp"
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
        require(is_slope_of(map, slope), "slope: expected at least 1e-6 for this map");
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

// What both directions of a vector map and their gradients check alike. params: (n_raw,) for all rows, or (rows,
// n_raw).
template <class T>
struct VectorRowsOf {
    VectorRows<T> rows{};
    int64_t count;
    std::vector<T> ready;

    VectorRowsOf(const std::string& map, const std::string& variant, double slope, bool inverse, const Array<T>& in,
                 const Array<T>& params) {
        rows.map = find_vector_map(map, variant);
        require(rows.map >= 0, "map: there is no such vector map");
        require(slope > 0 && slope < 1, "slope: expected a number between 0 and 1");
        require(in.ndim() == 2 && is_aligned(in) && in.shape(1) >= 1 && in.shape(1) <= max_vector_features,
                "values: expected an aligned (rows, features)");
        count = in.shape(0);
        rows.features = int(in.shape(1));
        rows.inverse = inverse;
        rows.options.slope = T(slope);
        rows.value = in.data();
        rows.params = params.data();
        with_vector_map(rows.map, [&]<class Map>() {
            rows.n_raw = Map::n_raw(rows.features);
            rows.n_ready = Map::n_ready(rows.features);
        });
        const bool shared = params.ndim() == 1;
        require((shared || (params.ndim() == 2 && params.shape(0) == count)) && is_aligned(params) &&
                    params.shape(params.ndim() - 1) == rows.n_raw,
                "params: expected (n_params,) or (rows, n_params)");
        if (!shared) return;
        ready.resize(size_t(rows.n_ready));
        with_vector_map(rows.map, [&]<class Map>() {
            Map::template prepare<double>([&](int k) { return double(rows.params[k]); }, rows.features,
                                          [&](int k, double value) { ready[size_t(k)] = T(value); });
        });
        rows.ready = ready.data();
    }

    void require_like_values(const Array<T>& a) const {
        require(a.ndim() == 2 && a.shape(0) == count && a.shape(1) == rows.features && is_aligned(a),
                "expected an aligned (rows, features)");
    }
    void require_like_rows(const Array<T>& a) const {
        require(a.ndim() == 1 && a.shape(0) == count && is_aligned(a), "expected an aligned (rows,)");
    }

    // body(stretch, first row, rows, scratch) for tiles; a stretch of tiles belongs to one thread.
    static constexpr int64_t rows_of_stretch = 16 * vector_rows_of_tile;
    int64_t stretches() const { return (count + rows_of_stretch - 1) / rows_of_stretch; }
    template <class F>
    void for_tiles(F&& body) const {
        const size_t size = size_t(vector_rows_scratch(rows));
        thread_scratch<T>(size);  // an allocation that fails should fail here, where it can be reported
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
    v.require_like_values(value);
    v.require_like_rows(log_det);
    v.rows.result = value.mutable_data();
    v.rows.log_det = log_det.mutable_data();
    const py::gil_scoped_release nogil;
    const auto& kernels = kernels_of<T>(*active_isa().table);
    v.for_tiles([&](int64_t, int64_t row, int rows, T* scratch) { kernels.vector_rows(v.rows, row, rows, scratch); });
}

template <class T>
void vector_map_backward(const std::string& map, const std::string& variant, double slope, bool inverse,
                         const Array<T>& in, const Array<T>& params, const Array<T>& grad_value,
                         const Array<T>& grad_log_det, Array<T>& grad_in, Array<T>& grad_params) {
    VectorRowsOf<T> v(map, variant, slope, inverse, in, params);
    v.require_like_values(grad_value);
    v.require_like_rows(grad_log_det);
    v.require_like_values(grad_in);
    require(grad_params.ndim() == params.ndim() && is_aligned(grad_params) &&
                std::equal(params.shape(), params.shape() + params.ndim(), grad_params.shape()),
            "grad_params: expected the shape of params");
    VectorRowsBack<T> back{grad_value.data(), grad_log_det.data(), grad_in.mutable_data(), grad_params.mutable_data()};
    const py::gil_scoped_release nogil;
    const auto& kernels = kernels_of<T>(*active_isa().table);
    const auto n_ready = size_t(v.rows.n_ready);
    // Stretches are summed in their order, so that no bit depends on the threads.
    std::vector<double> sums(v.rows.ready ? n_ready * size_t(v.stretches()) : 0);
    v.for_tiles([&](int64_t stretch, int64_t row, int rows, T* scratch) {
        double* sum = sums.empty() ? nullptr : sums.data() + n_ready * size_t(stretch);
        kernels.vector_rows_backward(v.rows, back, row, rows, sum, scratch);
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
          py::arg("inverse"), py::arg("input").noconvert(), py::arg("params").noconvert(), py::arg("value").noconvert(),
          py::arg("log_det").noconvert());
    m.def("coupling_backward", &coupling_backward<T>, py::arg("map"), py::arg("scale"), py::arg("slope"),
          py::arg("bound"), py::arg("inverse"), py::arg("input").noconvert(), py::arg("params").noconvert(),
          py::arg("grad_value").noconvert(), py::arg("grad_log_det").noconvert(), py::arg("grad_input").noconvert(),
          py::arg("grad_params").noconvert());
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
}

}  // namespace headrace
