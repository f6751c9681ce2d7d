// Checks of the arguments of hr.ops: shapes and settings, for every device. The file that includes this header defines
// `require`.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../core/maps.hpp"
#include "../core/views.hpp"
#include "../math/vector_maps.hpp"

namespace headrace {

using Shape = std::vector<int64_t>;

constexpr const char* elements_arrays = "coupling: expected aligned arrays of one dtype in C order";
constexpr const char* rows_arrays = "expected aligned arrays of one dtype in C order";

// The shapes of a call of one-dimensional maps: values (rows, active) and params (rows, active, n_params).
struct Elements {
    int index, n_params;
    int64_t rows, active;

    Elements(const std::string& map, const std::string& scale, double slope, double bound, int bins,
             std::optional<double> low, double min_bin, const Shape& in, const Shape& params)
        : index(find_map(map, scale)), n_params(n_params_of(index, bins)), bins_(bins) {
        require(slope > 0 && slope < 1, "coupling: slope must lie between 0 and 1");
        require(is_interval_of(map, low.value_or(-bound), bound), "bound, low: this map has no such interval");
        require(is_min_bin_of(map, min_bin, bins), "min_bin: too small for this map, or too large for so many bins");
        require(is_slope_of(map, slope), "slope: below the least of this map");
        require(in.size() == 2 && params.size() == 3 && params[0] == in[0] && params[1] == in[1],
                "coupling: expected values (rows, active) and params (rows, active, n_params)");
        require(params[2] == n_params, "coupling: params has the wrong number of parameters");
        rows = in[0];
        active = in[1];
        slope_ = slope;
        bound_ = bound;
        low_ = low.value_or(-bound);
        min_bin_ = min_bin;
    }

    template <class T>
    MapOptions<T> options() const {
        return map_options<T>(index, slope_, bins_, low_, bound_, min_bin_);
    }

    void require_like_values(const Shape& a) const {
        require(a == Shape{rows, active}, "coupling: expected (rows, active)");
    }
    void require_like_rows(const Shape& a) const { require(a == Shape{rows}, "coupling: expected (rows,)"); }
    void require_like_params(const Shape& a) const {
        require(a == Shape{rows, active, n_params}, "coupling_backward: grad_params must be like params");
    }

  private:
    int bins_;
    double slope_ = 0, bound_ = 0, low_ = 0, min_bin_ = 0;
};

// The shapes of a call of a vector map: values (rows, features), and params (n_raw,) for all rows or (rows, n_raw).
struct RowsOfVectors {
    int64_t rows;
    bool shared;

    RowsOfVectors(const std::string& map, const std::string& variant, double slope, const Shape& in,
                  const Shape& params)
        : map_(find_vector_map(map, variant)), slope_(slope) {
        require(map_ >= 0, "map: there is no such vector map");
        require(slope > 0 && slope < 1, "slope: expected a number between 0 and 1");
        require(in.size() == 2 && in[1] >= 1 && in[1] <= max_vector_features, "values: expected (rows, features)");
        rows = in[0];
        features_ = int(in[1]);
        n_raw_ = vector_map_list()[size_t(map_)].n_raw(features_);
        shared = params == Shape{n_raw_};
        require(shared || params == Shape{rows, n_raw_}, "params: expected (n_params,) or (rows, n_params)");
    }

    // The arguments of kernels, without pointers to arrays.
    template <class T>
    VectorRows<T> call(bool inverse) const {
        VectorRows<T> a{};
        a.map = map_;
        a.inverse = inverse;
        a.options.slope = T(slope_);
        a.features = features_;
        a.n_raw = n_raw_;
        with_vector_map(map_, [&]<class Map>() { a.n_ready = Map::n_ready(features_); });
        return a;
    }

    void require_like_values(const Shape& a) const {
        require(a == Shape{rows, features_}, "expected (rows, features)");
    }
    void require_like_rows(const Shape& a) const { require(a == Shape{rows}, "expected (rows,)"); }
    void require_like_params(const Shape& a) const {
        require(a == (shared ? Shape{n_raw_} : Shape{rows, n_raw_}), "grad_params: expected the shape of params");
    }

  private:
    int map_, features_ = 0, n_raw_ = 0;
    double slope_;
};

}  // namespace headrace
