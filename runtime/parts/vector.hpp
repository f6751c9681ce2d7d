// Planar and radial transforms, which move all coordinates in a common direction by one amount.
#pragma once

#include "transform.hpp"

namespace headrace {
namespace detail {

// The function h of the planar map: its value, its slope, and 1 - slope without cancellation.
template <class T>
struct Bend {
    T value, slope, rest;
};

template <class T>
Bend<T> tanh_bend(T v) {
    constexpr T far = sizeof(T) == 4 ? T(40) : T(350);  // beyond this value the slope is at its limit
    const T size = std::abs(v), value = std::tanh(v), c = T(1) / std::cosh(size > far ? far : size);
    return {value, c * c, value * value};
}

// Solves v + (s - 1) tanh v = y for v, by Halley's method, kept between bounds by bisection. The iteration ends where
// the residual is a rounding error.
template <class T>
T solved_tanh(T y, T s) {
    const T rounding = std::numeric_limits<T>::epsilon() * T(2), target = std::abs(y), excess = s - T(1);
    const T by_slope = target / s, by_limit = target - excess;
    T low = excess >= T(0) ? std::max(by_slope, by_limit) : target;
    T high = excess >= T(0) ? target : std::min(by_slope, by_limit);
    T v = excess >= T(0) ? low : high;
    for (int round = 0; round < 60; ++round) {
        const Bend<T> h = tanh_bend(v);
        const T part = excess * h.value, residual = (v - target) + part;
        if (!(std::abs(residual) > (v + std::abs(part)) * rounding)) break;  // also ends for a NaN
        (residual > T(0) ? high : low) = v;
        const T slope = excess * h.slope + T(1), newton = residual / slope;
        const T next = v - residual / (slope + newton * excess * h.value * h.slope);
        v = next >= low && next <= high ? next : (low + high) * T(0.5);
    }
    return std::copysign(v, y);
}

// The planar map x = z + u h(w z + b), where u follows from its raw value such that s = 1 + w u is positive(w u).
template <class T>
class PlanarMap {
  public:
    explicit PlanarMap(const VectorDescription<T>& d) : is_tanh_(d.is_tanh), slope_(static_cast<T>(d.negative_slope)) {}
    static int n_ready(int features) { return 2 * features + 2; }

    // Computes ready parameters. w is divided by its largest magnitude, so that intermediate results neither underflow
    // nor overflow; w = 0 leaves u unchanged. The rounding error of u along w is subtracted, too, because w u must
    // equal s - 1.
    template <class V>
    static void prepare(const V* p, int features, V* ready) {
        const std::size_t n = static_cast<std::size_t>(features);
        const V *const w = p, *const u = p + n;
        V largest = V(0);
        for (std::size_t c = 0; c < n; ++c) largest = std::max(largest, std::abs(w[c]));
        int exponent = 0;
        std::frexp(largest, &exponent);
        const auto scaled = [&](std::size_t c) { return std::ldexp(w[c], -exponent); };
        V square = V(0), along = V(0);
        for (std::size_t c = 0; c < n; ++c) {
            square += scaled(c) * scaled(c);
            along += scaled(c) * u[c];
        }
        if (!(square > V(0))) square = V(1);
        const V x = std::ldexp(along, exponent);
        const Positive<V> s = positive(x);
        const V gain = std::abs(x) > std::numeric_limits<V>::min() ? s.excess / x : V(positive_slope);
        const V part = along / square;
        V rest = V(0);
        for (std::size_t c = 0; c < n; ++c) rest += scaled(c) * (u[c] - scaled(c) * part);
        const V factor = (gain * along - rest) / square;
        for (std::size_t c = 0; c < n; ++c) {
            ready[c] = w[c];
            ready[n + c] = scaled(c) * factor + (u[c] - scaled(c) * part);
        }
        ready[2 * n] = p[2 * n];
        ready[2 * n + 1] = s.value;
    }

    void apply(const T* ready, int features, bool inverse, T* row, double& log_det) const {
        const std::size_t n = static_cast<std::size_t>(features);
        const T s = ready[2 * n + 1];
        T sum = ready[2 * n];
        for (std::size_t c = 0; c < n; ++c) sum += row[c] * ready[c];
        Bend<T> h{};
        if (is_tanh_) {
            h = tanh_bend(inverse ? solved_tanh(sum, s) : sum);
        } else {
            if (inverse) sum /= sum > T(0) ? s : (s - T(1)) * slope_ + T(1);
            const T slope = sum > T(0) ? T(1) : slope_;
            h = {sum * slope, slope, T(1) - slope};
        }
        const double log_factor = static_cast<double>(std::log(s * h.slope + h.rest));
        log_det += inverse ? -log_factor : log_factor;
        const T amount = inverse ? -h.value : h.value;
        for (std::size_t c = 0; c < n; ++c) row[c] += ready[n + c] * amount;
    }

  private:
    bool is_tanh_;
    T slope_;
};

// The radial map x = z + beta (z - center) / (alpha + r), r = |z - center|, with alpha and alpha + beta positive.
template <class T>
class RadialMap {
  public:
    explicit RadialMap(const VectorDescription<T>&) {}
    static int n_ready(int features) { return features + 2; }

    template <class V>
    static void prepare(const V* p, int features, V* ready) {
        const std::size_t n = static_cast<std::size_t>(features);
        std::copy(p, p + n, ready);
        for (std::size_t k = n; k < n + 2; ++k) ready[k] = positive(p[k]).value;
    }

    void apply(const T* ready, int features, bool inverse, T* row, double& log_det) const {
        const std::size_t n = static_cast<std::size_t>(features);
        const T alpha = ready[n], end = ready[n + 1];
        constexpr T farthest = sizeof(T) == 4 ? T(1e18) : T(1e150);  // the square of this distance is finite
        T square = T(0);
        for (std::size_t c = 0; c < n; ++c) square += (row[c] - ready[c]) * (row[c] - ready[c]);
        T r = std::sqrt(square);
        if (r > farthest) r = farthest;  // farther away the effect of the map is below rounding
        T amount;
        if (inverse) {  // solves r (end + r) / (alpha + r) = distance of x for r
            const T b = r - end, root = std::sqrt(b * b + alpha * r * T(4));
            r = b > T(0) ? (b + root) * T(0.5) : alpha * r * T(2) / (root - b);
            amount = (alpha - end) / (end + r);
        } else {
            amount = (end - alpha) / (alpha + r);
        }
        const T inverse_reach = T(1) / (alpha + r);
        const T across = (end + r) * inverse_reach;
        const T outward = (r * (alpha * T(2) + r) + alpha * end) * inverse_reach * inverse_reach;
        const double log_factor = static_cast<double>(features - 1) * static_cast<double>(std::log(across)) +
                                  static_cast<double>(std::log(outward));
        log_det += inverse ? -log_factor : log_factor;
        for (std::size_t c = 0; c < n; ++c) row[c] += (row[c] - ready[c]) * amount;
    }
};

// A planar or radial transform, with one set of parameters, made ready in float64, or with parameters from a network
// that reads the context.
template <class T, class Map>
class VectorTransform : public Transform<T> {
  public:
    VectorTransform(const TransformDescription<T>& d, VectorDescription<T> own) : Transform<T>(d), map_(own) {
        ready_.resize(static_cast<std::size_t>(Map::n_ready(this->features_)));
        if (this->context_) {
            network_ = std::make_unique<Network<T>>(std::move(own.layers));
            return;
        }
        std::vector<double> ready(ready_.size());
        Map::prepare(own.raw.data(), this->features_, ready.data());
        for (std::size_t k = 0; k < ready.size(); ++k) ready_[k] = narrowed<T>(ready[k]);
    }

    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        const T* ready = ready_.data();
        if (network_) {
            s.inputs.assign(context, context + this->context_);
            for (T& c : s.inputs) c = network_->read(c);
            network_->run(s);
            s.params.resize(ready_.size());
            Map::prepare(network_->outputs(s).data(), this->features_, s.params.data());
            ready = s.params.data();
        }
        map_.apply(ready, this->features_, !to_data, row, log_det);
    }

  private:
    Map map_;
    std::vector<T> ready_;
    std::unique_ptr<Network<T>> network_;
};

}  // namespace detail
}  // namespace headrace
