// Maps with parameters from a network of the caller as calls of XLA's foreign function interface, on the CPU: compiled
// JAX code calls the kernels of hr.ops without Python.
//
// The settings of the map are attributes, so that a call refers to no object of this process: code that was compiled or
// exported in another process gives the same results.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "couplings.hpp"
#include "xla_calls.hpp"

namespace headrace {

inline constexpr const char* coupling_attributes[] = {"map",   "scale",   "slope", "low",
                                                      "bound", "min_bin", "bins",  "inverse"};

template <class Core, class T>
class CouplingCalls {
  public:
    using Text = std::string_view;

    // Runs a map on values (..., active) with params (..., active, n_params), whose leading dimensions equal those of
    // the values or are 1.
    static xla::Error run(Text map, Text scale, double slope, double low, double bound, double min_bin, int64_t bins,
                          bool inverse, In<T> x, In<T> params, Out<T> value, Out<T> log_det) {
        return guarded<Core>([&]() -> xla::Error {
            const Opened opened(map, scale, slope, low, bound, min_bin, bins, x, params);
            opened.require_shape(value, opened.values);
            opened.require_shape(log_det, opened.rows);
            run_coupling(opened.elements, opened.shared, inverse, x.data(), params.data(), value.data(),
                         log_det.data());
            return xla::Error::success();
        });
    }

    static xla::Error backward(Text map, Text scale, double slope, double low, double bound, double min_bin,
                               int64_t bins, bool inverse, In<T> x, In<T> params, In<T> by_value, In<T> by_log_det,
                               Out<T> by_x, Out<T> by_params) {
        return guarded<Core>([&]() -> xla::Error {
            const Opened opened(map, scale, slope, low, bound, min_bin, bins, x, params);
            opened.require_shape(by_value, opened.values);
            opened.require_shape(by_log_det, opened.rows);
            opened.require_shape(by_x, opened.values);
            opened.require_shape(by_params, shape_of(params));
            pull_coupling<T>(opened.elements, opened.shared, inverse, x.data(), params.data(),
                             {by_value.data(), by_log_det.data(), by_x.data(), by_params.data()});
            return xla::Error::success();
        });
    }

  private:
    static Shape shape_of(const In<T>& array) {
        Shape shape;
        for (int64_t i = 0; i < array.rank(); ++i) shape.push_back(array.dimension(i));
        return shape;
    }

    // The checked arguments of a call.
    struct Opened {
        Shape values, rows;
        SharedRows shared;
        Elements elements;

        Opened(Text map, Text scale, double slope, double low, double bound, double min_bin, int64_t bins,
               const In<T>& x, const In<T>& params)
            : values(shape_of(x)),
              rows(leading(values, 1)),
              shared(rows, leading(shape_of(params), 2)),
              elements(std::string(map), std::string(scale), slope, bound, number_of(bins), low, min_bin,
                       matrix(rows, x), matrix(rows, params)) {}

        void require_shape(const In<T>& array, const Shape& shape) const {
            require(shape_of(array) == shape, "coupling: expected results and gradients of the arguments' shapes");
        }

      private:
        static Shape leading(Shape shape, size_t last) {
            require(shape.size() >= last, "coupling: expected values (..., active) and params (..., active, n_params)");
            shape.resize(shape.size() - last);
            return shape;
        }
        static int number_of(int64_t bins) {
            require(bins >= 0 && bins <= INT32_MAX, "bins: out of range");
            return int(bins);
        }
        // The shape of an array with its leading axes joined to one axis of rows, followed by its last axes.
        static Shape matrix(const Shape& rows, const In<T>& array) {
            Shape shape{1};
            for (const int64_t length : rows) shape[0] *= length;
            const bool has_params = size_t(array.rank()) == rows.size() + 2;
            for (int64_t i = array.rank() - (has_params ? 2 : 1); i < array.rank(); ++i)
                shape.push_back(array.dimension(i));
            return shape;
        }
    };
};

template <class Calls>
void add_coupling_handlers(pybind11::dict& handlers, const std::string& dtype) {
    handlers[("coupling_" + dtype).c_str()] = capsule_of(&xla::Handler<&Calls::run, coupling_attributes, 2>::call);
    handlers[("coupling_backward_" + dtype).c_str()] =
        capsule_of(&xla::Handler<&Calls::backward, coupling_attributes, 4>::call);
}

}  // namespace headrace
