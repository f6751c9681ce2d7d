// The map of the values of a step. With a level c, x = e^c map(z), where c is the network's last output for each value,
// clamped to [-13, 2]; without a level, x = map(z). The parameters of the map are in units of the level e^c, so that
// the parameters of a quiet signal need not be small. Noise that is uniform within a quantisation step of 16-bit audio
// has a log-scale of -11.6 where the audio is in [-1, 1].
//
//   to latent values:  z = inverse map(e^-c x),  log-derivative of the inverse map, minus c
#pragma once

#include <algorithm>

#include "../../math/lane.hpp"
#include "../../steps/causal.hpp"
#include "../maps.hpp"
#include "../table.hpp"

namespace headrace {

template <class T>
class StepMap {
  public:
    // A map for steps of `columns` values.
    StepMap(const KernelsOf<T>& kernels, const TransformMap& map, bool has_level, int64_t columns)
        : kernels_(kernels),
          map_(map),
          options_(map.template options<T>()),
          has_level_(has_level),
          columns_(columns),
          n_params_(map.n_params(int(columns))) {}

    // The number of outputs of the network for each value.
    int64_t outputs() const { return n_params_ + (has_level_ ? 1 : 0); }
    // The number of values of scratch for a call on n steps.
    static int64_t scratch(int64_t n, int64_t columns, int64_t outputs, bool has_level) {
        return has_level ? n * columns * (2 * outputs + 3) : 0;
    }

    // Runs steps [n][columns] through the map whose parameters are `raw` [n][columns][outputs].
    void run(bool to_data, const T* given, const T* raw, T* value, T* log_det, int64_t n, T* scratch) const {
        const bool is_inverse = to_data != map_.settings().formula_to_data;
        if (!has_level_) {
            kernels_.coupling(map_.index(), is_inverse, options_, given, raw, value, log_det, n, columns_);
            return;
        }
        const Split s(*this, raw, n, scratch);
        if (!to_data) scale(given, s.levels, -1, s.values, n);
        kernels_.coupling(map_.index(), is_inverse, options_, to_data ? given : s.values, s.params, value, log_det, n,
                          columns_);
        if (to_data) scale(value, s.levels, 1, value, n);
        for (int64_t t = 0; t < n; ++t)
            for (int64_t c = 0; c < columns_; ++c)
                log_det[t] += to_data ? s.levels[t * columns_ + c] : -s.levels[t * columns_ + c];
    }

    // Computes gradients by given steps and by `raw` from gradients by the results of `run`.
    void back(bool to_data, const T* given, const T* raw, const T* by_value, const T* by_log_det, T* by_given,
              T* by_raw, int64_t n, T* scratch) const {
        const bool is_inverse = to_data != map_.settings().formula_to_data;
        if (!has_level_) {
            kernels_.coupling_backward(map_.index(), is_inverse, options_, given, raw, by_value, by_log_det, by_given,
                                       by_raw, n, columns_);
            return;
        }
        const Split s(*this, raw, n, scratch);
        const int64_t all = n * columns_;
        if (to_data) {                       // s.values are results; s.more are gradients by factors of the level
            T* const log_det = s.by_params;  // by_params has space for n values, and is overwritten below
            kernels_.coupling(map_.index(), is_inverse, options_, given, s.params, s.values, log_det, n, columns_);
            scale(s.values, s.levels, 1, s.values, n);
            scale(by_value, s.levels, 1, s.more, n);
        } else {  // s.values are inputs of the map
            scale(given, s.levels, -1, s.values, n);
            std::copy_n(by_value, all, s.more);
        }
        kernels_.coupling_backward(map_.index(), is_inverse, options_, to_data ? given : s.values, s.params, s.more,
                                   by_log_det, by_given, s.by_params, n, columns_);
        for (int64_t i = 0; i < all; ++i) {
            const T by_log = by_log_det[i / columns_];
            const T by_level = to_data ? by_value[i] * s.values[i] + by_log : -(by_given[i] * s.values[i] + by_log);
            std::copy_n(s.by_params + i * n_params_, n_params_, by_raw + i * outputs());
            by_raw[i * outputs() + n_params_] = is_clamped(raw[i * outputs() + n_params_]) ? T(0) : by_level;
        }
        if (!to_data) scale(by_given, s.levels, -1, by_given, n);
    }

  private:
    static bool is_clamped(T level) { return level < T(least_level) || level > T(most_level); }

    // Parameters of the map, levels as a separate array, and arrays for intermediate values.
    struct Split {
        T *params, *levels, *values, *more, *by_params;

        Split(const StepMap& of, const T* raw, int64_t n, T* scratch) {
            const int64_t all = n * of.columns_, n_params = of.n_params_;
            params = scratch;
            by_params = params + all * (n_params + 1);
            levels = by_params + all * (n_params + 1);
            values = levels + all;
            more = values + all;
            for (int64_t i = 0; i < all; ++i) {
                const T* const from = raw + i * (n_params + 1);
                std::copy_n(from, n_params, params + i * n_params);
                levels[i] = std::clamp(from[n_params], T(least_level), T(most_level));
            }
        }
    };

    void scale(const T* given, const T* levels, int sign, T* to, int64_t n) const {
        for (int64_t i = 0; i < n * columns_; ++i) to[i] = given[i] * exp(T(sign) * levels[i]);
    }

    const KernelsOf<T>& kernels_;
    const TransformMap& map_;
    const MapOptions<T> options_;
    const bool has_level_;
    const int64_t columns_, n_params_;
};

}  // namespace headrace
