// Maps between unbounded values and values of a column's support, always in float64, because near a bound only the
// distance to the bound matters.
#pragma once

#include "transform.hpp"

namespace headrace {
namespace detail {

// t modulo 1, in [0, 1). Values too large for fractional digits give 0, and values that are not finite NaN.
inline double circle_turns(double t) {
    if (!(std::abs(t) < 4611686018427387904.0)) return t - t;
    t -= std::trunc(t);
    if (t < 0.0) t += 1.0;
    return t < 1.0 ? t : 0.0;
}

class SupportColumn {
  public:
    explicit SupportColumn(const SupportEnds& ends) : kind_(ends.kind), low_(ends.low), high_(ends.high) {}

    // Maps y to lower + e^y, to upper - e^-y, to lower + width / (1 + e^-y), linearly from [-1, 1], or around the
    // circle.
    double to_data(double y, double& log_det) const {
        const double width = high_ - low_, e = std::exp(-std::abs(y));
        switch (kind_) {
            case SupportKind::any: break;
            case SupportKind::lower: log_det += y; return low_ + std::exp(y);
            case SupportKind::upper: log_det -= y; return high_ - std::exp(-y);
            case SupportKind::interval: {
                const double near = width * (e / (1.0 + e));  // the distance to the nearer bound
                log_det += std::log(width) - std::abs(y) - 2.0 * std::log1p(e);
                return y < 0.0 ? low_ + near : high_ - near;
            }
            case SupportKind::linear:
                log_det += std::log(0.5 * width);
                return y < 0.0 ? low_ + 0.5 * width * (1.0 + y) : high_ - 0.5 * width * (1.0 - y);
            case SupportKind::circle:
                log_det += std::log(0.5 * width);
                return low_ + width * circle_turns(0.5 * (y + 1.0));
        }
        return y;
    }
    // Maps x to an unbounded value: NaN beyond a bound, and an infinity on the bound.
    double to_latent(double x, double& log_det) const {
        const double below = x - low_, above = high_ - x, width = high_ - low_;
        switch (kind_) {
            case SupportKind::any: break;
            case SupportKind::lower: log_det -= std::log(below); return std::log(below);
            case SupportKind::upper: log_det -= std::log(above); return -std::log(above);
            case SupportKind::interval:
                log_det += std::log(width) - std::log(below) - std::log(above);
                return std::log(below) - std::log(above);
            case SupportKind::linear:
                log_det += std::log(2.0 / width);
                return below < above ? 2.0 * (below / width) - 1.0 : 1.0 - 2.0 * (above / width);
            case SupportKind::circle: log_det += std::log(2.0 / width); return 2.0 * circle_turns(below / width) - 1.0;
        }
        return x;
    }

    // Whether a value is on a bound or beyond; bounds are rounded to In.
    template <class In>
    bool is_outside(double x) const {
        const bool has_low = kind_ == SupportKind::lower || has_both();
        const bool has_high = kind_ == SupportKind::upper || has_both();
        return (has_low && x <= static_cast<double>(narrowed<In>(low_))) ||
               (has_high && x >= static_cast<double>(narrowed<In>(high_)));
    }

    // The output for a value: one that rounds to a bound or beyond becomes the nearest value inside. A circle includes
    // its lower end. Where no value of type Out is inside, the output is the value nearest to the middle.
    template <class Out>
    Out inside(double x) const {
        const Out value = narrowed<Out>(x);
        const bool is_circle = kind_ == SupportKind::circle;
        constexpr Out most = std::numeric_limits<Out>::max();
        Out least = -most, last = most;
        if (kind_ == SupportKind::lower || has_both() || is_circle) least = above<Out>(low_, is_circle);
        if (kind_ == SupportKind::upper || has_both() || is_circle) last = -above<Out>(-high_, false);
        if (!(least <= last)) least = last = narrowed<Out>(low_ / 2.0 + high_ / 2.0);
        return value < least ? least : value > last ? last : value;  // a NaN stays NaN
    }

  private:
    bool has_both() const { return kind_ == SupportKind::interval || kind_ == SupportKind::linear; }

    template <class Out>
    static Out above(double low, bool itself) {
        const Out nearest = narrowed<Out>(low);
        if (itself && static_cast<double>(nearest) >= low) return nearest;
        return std::nextafter(nearest, std::numeric_limits<Out>::infinity());
    }

    SupportKind kind_;
    double low_, high_;
};

template <class T>
class Support : public Transform<T> {
  public:
    Support(const TransformDescription<T>& d, const SupportDescription& own)
        : Transform<T>(d), is_identity_(own.is_identity()) {
        for (const SupportEnds& ends : own.columns) columns_.emplace_back(ends);
    }

    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        for (std::size_t c = 0; c < columns_.size(); ++c)
            row[c] = narrowed<T>(moved(to_data, c, static_cast<double>(row[c]), log_det));
    }
    bool is_exact() const override { return true; }
    void run_exact(bool to_data, std::vector<double>& row, double& log_det) const override {
        for (std::size_t c = 0; c < columns_.size(); ++c) row[c] = moved(to_data, c, row[c], log_det);
    }

    bool is_identity() const { return is_identity_; }

    // Whether a row of In values has a value on a bound or beyond; these values become NaN.
    template <class In>
    bool marks_outside(std::vector<double>& row) const {
        bool found = false;
        for (std::size_t c = 0; c < columns_.size(); ++c) {
            if (!columns_[c].template is_outside<In>(row[c])) continue;
            row[c] = std::numeric_limits<double>::quiet_NaN();
            found = true;
        }
        return found;
    }

    template <class Out>
    Out inside(double x, std::size_t c) const {
        return columns_[c].template inside<Out>(x);
    }

  private:
    double moved(bool to_data, std::size_t c, double value, double& log_det) const {
        if (!to_data) return columns_[c].to_latent(value, log_det);
        const double result = columns_[c].to_data(value, log_det);
        const T narrow = narrowed<T>(result);
        log_det += static_cast<double>(narrow - narrow);  // NaN for the row if the value overflows T
        return result;
    }

    bool is_identity_;
    std::vector<SupportColumn> columns_;
};

}  // namespace detail
}  // namespace headrace
