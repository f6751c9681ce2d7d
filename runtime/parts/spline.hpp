// Monotone rational-quadratic splines (Durkan, Bekasov, Murray, Papamakarios 2019). Within a bin, t and eta are
// positions from 0 to 1, and derivatives d0 and d1 are divided by the bin's slope. With r = 1 - t,
//   eta = (t^2 + d0 t r) / D,   D = t^2 + r^2 + (d0 + d1) t r,   dy/dx = slope N / D^2,   N = d0 r^2 + 2 t r + d1 t^2,
// D and N are sums of positive terms. The discriminant of the inverse is also such a sum: q^2 + 4 eta (1 - eta), q = d0
// (1 - eta) - d1 eta.
#pragma once

#include "numbers.hpp"

namespace headrace {
namespace detail {

// Derivatives at the two ends: 1; a separate one for each end; one for both ends; a separate one for each end, where
// the bins at the ends have half the least size.
enum class Ends { one, free, shared, halved };
enum class Tails { identity, linear, periodic };  // the spline outside of its interval

struct SplineSettings {
    int bins = 8;
    double low = -5.0, high = 5.0, min_bin = 1e-3, slope = 1e-3;
    bool is_clamped = true;  // rq_spline: raw values are softly clamped, and bins have no least size
    Ends ends = Ends::one;
    Tails tails = Tails::identity;

    int n_derivatives() const { return ends == Ends::one ? bins - 1 : ends == Ends::shared ? bins : bins + 1; }
};

template <class T>
class Spline {
  public:
    Spline(const SplineSettings& settings, const T* params) : s_(settings), p_(params) {
        low_ = static_cast<T>(s_.low);
        high_ = static_cast<T>(s_.high);
        range_ = s_.is_clamped ? T(2) * high_ : high_ - low_;
        clamp_ = static_cast<T>(1.0 / std::log(1.0 / s_.slope));
        width_sum_ = sizes(p_, width_);
        height_sum_ = sizes(p_ + s_.bins, height_);
        poison_ = T(0);  // NaN if any parameter is not finite, even where the spline is the identity
        for (int k = 0; k < 2 * s_.bins + s_.n_derivatives(); ++k) poison_ += p_[k] - p_[k];
    }

    T apply(bool inverse, T given, double& log_det) const {
        T value = given, beyond = T(0);
        if (s_.tails == Tails::linear) beyond = value - clamped(value);
        if (s_.tails == Tails::periodic) {
            beyond = std::nearbyint((value - (low_ + range_ * T(0.5))) * (T(1) / range_)) * range_;
            value -= beyond;
        }
        if (s_.tails == Tails::identity && (value < low_ || value > high_)) {
            log_det += static_cast<double>(poison_);
            return value + poison_;
        }
        const Bin bin = find(inverse ? height_ : width_, inverse ? height_sum_ : width_sum_, value);
        T t, r;
        if (inverse) {
            solve(bin, t, r);
        } else {
            t = between_0_and_1(bin.inside / bin.width);
            r = T(1) - t;
        }
        // On a straight tail the derivative is that at the end of the interval, which may differ much from that a
        // rounding error away.
        if (s_.tails == Tails::linear && value >= high_) t = T(1), r = T(0);
        if (s_.tails == Tails::linear && value <= low_) t = T(0), r = T(1);
        const T d = t * t + r * r + (bin.d0 + bin.d1) * t * r;
        const T n = bin.d0 * r * r + T(2) * t * r + bin.d1 * t * t, slope = n / d / d * bin.slope;
        T result;
        if (inverse) {
            result = spread((bin.left_width + bin.width * t) / width_sum_);
        } else {
            result = spread((bin.left_height + bin.height * (t * (t + bin.d0 * r) / d)) / height_sum_);
        }
        result = clamped(result);  // rounding must not lead out of the interval, where a uniform base has no density
        const T log_slope = std::log(slope) + poison_;
        log_det += static_cast<double>(inverse ? -log_slope : log_slope);
        if (s_.tails == Tails::linear) return result + (inverse ? beyond / slope : beyond * slope) + poison_;
        return result + beyond + poison_;
    }

  private:
    static constexpr int most_bins = 64;

    struct Bin {
        T left_width, width, left_height, height;  // in a unit in which all sizes of a side have a given sum
        T inside;                                  // distance of the input from the bin's lower end
        T slope, d0, d1;                           // derivatives divided by the slope
    };

    static T between_0_and_1(T x) { return x < T(0) ? T(0) : x > T(1) ? T(1) : x; }
    T clamped(T x) const { return x < low_ ? low_ : x > high_ ? high_ : x; }
    T spread(T share) const { return s_.is_clamped ? share * range_ - high_ : share * range_ + low_; }

    // Computes the sizes of the bins of one side, and returns their sum.
    T sizes(const T* raw, T* out) const {
        T sum = T(0);
        if (s_.is_clamped) {
            for (int k = 0; k < s_.bins; ++k) {
                out[k] = std::exp(raw[k] / (std::abs(raw[k]) * T(2) * clamp_ + T(1)));
                sum += out[k];
            }
            return sum;
        }
        T top = raw[0];
        for (int k = 1; k < s_.bins; ++k) top = raw[k] > top ? raw[k] : top;
        for (int k = 0; k < s_.bins; ++k) {
            out[k] = std::exp(raw[k] - top);
            sum += out[k];
        }
        const bool is_halved = s_.ends == Ends::halved;
        const T least = static_cast<T>(s_.min_bin), left_over = T(1) - T(s_.bins - (is_halved ? 1 : 0)) * least;
        for (int k = 0; k < s_.bins; ++k) {
            const bool is_at_end = k == 0 || k == s_.bins - 1;
            out[k] = out[k] * left_over + sum * (is_halved && is_at_end ? T(0.5) * least : least);
        }
        return sum;
    }

    T derivative(int knot) const {
        int place = knot;
        if (s_.ends == Ends::one) {
            if (knot == 0 || knot == s_.bins) return T(1);
            place = knot - 1;
        } else if (s_.ends == Ends::shared && knot == s_.bins) {
            place = 0;
        }
        const T raw = p_[2 * s_.bins + place];
        if (s_.is_clamped) return std::exp(raw / (std::abs(raw) * clamp_ + T(1)));
        return softplus(raw) + static_cast<T>(s_.slope);
    }

    // The last bin whose lower end is not above the input.
    Bin find(const T* sizes_here, T sum, T value) const {
        const T share =
            s_.is_clamped ? (clamped(value) + high_) * (T(0.5) / high_) : (clamped(value) - low_) * (T(1) / range_);
        const T target = share * sum;
        Bin bin{T(0), width_[0], T(0), height_[0], target, T(1), T(1), T(1)};
        T end = T(0), width_end = T(0), height_end = T(0);
        int index = 0;
        for (int k = 0; k < s_.bins; ++k) {
            if (target >= end) {
                index = k;
                bin.left_width = width_end;
                bin.width = width_[k];
                bin.left_height = height_end;
                bin.height = height_[k];
                bin.inside = target - end;
            }
            end += sizes_here[k];
            width_end += width_[k];
            height_end += height_[k];
        }
        bin.slope = bin.height * width_sum_ / (bin.width * height_sum_);
        bin.d0 = derivative(index) / bin.slope;
        bin.d1 = derivative(index + 1) / bin.slope;
        return bin;
    }

    void solve(const Bin& bin, T& t, T& r) const {
        const T eta = between_0_and_1(bin.inside / bin.height), rest = T(1) - eta;
        const T q = bin.d0 * rest - bin.d1 * eta, size = std::abs(q);
        // q * q may overflow where derivatives are not bounded.
        const T root = size + (size > T(1e15) ? size : std::sqrt(q * q + T(4) * eta * rest));
        const T near = T(2) * (q >= T(0) ? eta : rest), a = near / (near + root), b = root / (near + root);
        t = q >= T(0) ? a : b;
        r = q >= T(0) ? b : a;
    }

    const SplineSettings& s_;
    const T* p_;
    T low_, high_, range_, clamp_, width_sum_, height_sum_, poison_;
    T width_[most_bins], height_[most_bins];
};

}  // namespace detail
}  // namespace headrace
