// Transforms over time, and transforms of the values of a step, as links of a chain that proceeds step by step.
#pragma once

#include "causal.hpp"
#include "maps.hpp"
#include "prediction.hpp"
#include "transform.hpp"

namespace headrace {
namespace detail {

// Arguments for a step of one stream.
template <class T>
struct StepCall {
    bool to_data;
    std::uint64_t position;
    const T* starts;  // starts of the link's network
    const T* frame;   // covariates of the step, or null
};

template <class T>
struct StepWork {
    CausalWork<T> network;
    std::vector<T> raw, row;
    Scratch<T> scratch;
};

template <class T>
class Link {
  public:
    virtual ~Link() = default;
    Link() = default;
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;

    // The rings of a link's state, in the order of Stream::state, and the number of values of the state.
    virtual std::vector<Ring> rings() const { return {}; }
    virtual std::size_t numbers() const { return 0; }
    // Values that a link computes once for a context, which may be null.
    virtual std::vector<T> starts(const T*) const { return {}; }

    // Maps the values of a step to data or to latent values, adds log |det|, and stores the values as part of the past.
    virtual void run(const StepCall<T>& call, T* state, T* values, double& log_det, StepWork<T>& work) const = 0;
};

template <class T>
class StepLink : public Link<T> {
  public:
    explicit StepLink(TransformPtr<T> transform) : transform_(std::move(transform)) {}
    void run(const StepCall<T>& call, T*, T* values, double& log_det, StepWork<T>& work) const override {
        transform_->run(call.to_data, values, nullptr, work.scratch, log_det);
    }

  private:
    TransformPtr<T> transform_;
};

template <class T>
class PredictionLink : public Link<T> {
  public:
    explicit PredictionLink(const PredictionDescription<T>& d)
        : ring_{0, static_cast<std::size_t>(d.order), static_cast<std::size_t>(d.features)} {
        const Predictor own(d.reflection, ring_.columns, ring_.slots);
        for (const double a : own.coefficients) coefficients_.push_back(narrowed<T>(a));
        for (const double log_gain : own.log_gain) {
            gain_.push_back(narrowed<T>(std::exp(log_gain)));
            log_det_ += log_gain;
        }
    }
    std::vector<Ring> rings() const override { return {ring_}; }
    std::size_t numbers() const override { return ring_.slots * ring_.columns; }

    void run(const StepCall<T>& call, T* state, T* values, double& log_det, StepWork<T>& work) const override {
        std::vector<T>& sums = work.row;
        sums.assign(ring_.columns, T(0));
        for (std::size_t i = 0; i < ring_.slots; ++i) {
            const T* const x = ring_.at(state, call.position + i);
            for (std::size_t c = 0; c < ring_.columns; ++c) sums[c] += coefficients_[c * ring_.slots + i] * x[c];
        }
        T* const now = ring_.at(state, call.position);
        for (std::size_t c = 0; c < ring_.columns; ++c) {
            now[c] = call.to_data ? values[c] / gain_[c] + sums[c] : values[c];
            values[c] = call.to_data ? now[c] : (values[c] - sums[c]) * gain_[c];
        }
        log_det += call.to_data ? -log_det_ : log_det_;
    }

  private:
    Ring ring_;
    std::vector<T> coefficients_, gain_;
    double log_det_ = 0.0;
};

// A map of a step's values whose parameters are the outputs of a causal network: a map of each value, or an inner flow
// of all values.
template <class T>
class CausalLink : public Link<T> {
  public:
    CausalLink(CausalDescription<T, TransformPtr<T>> d, bool is_rounded)
        : network_(d, is_rounded),
          map_(d.map),
          features_(static_cast<std::size_t>(d.features)),
          reads_data_(d.reads_data),
          has_level_(d.has_level),
          has_map_(!d.inner) {
        if (has_map_) return;
        inner_ = std::move(d.inner->transforms);
        mean_ = std::move(d.inner->context_mean);
        std_ = std::move(d.inner->context_std);
    }
    std::vector<Ring> rings() const override { return network_.rings(); }
    std::size_t numbers() const override { return network_.numbers(); }
    std::vector<T> starts(const T* context) const override { return network_.starts(context); }

    void run(const StepCall<T>& call, T* state, T* values, double& log_det, StepWork<T>& work) const override {
        work.raw.resize(network_.outputs());
        network_.run(state, call.position, call.starts, call.frame, work.network, work.raw.data());
        const bool reads_result = reads_data_ == call.to_data;
        if (!reads_result) network_.keep(state, call.position, values);
        if (has_map_) {
            for (std::size_t c = 0; c < features_; ++c)
                values[c] =
                    moved(work.raw.data() + c * (network_.outputs() / features_), call.to_data, values[c], log_det);
        } else {
            run_inner(call.to_data, values, log_det, work);
        }
        if (reads_result) network_.keep(state, call.position, values);
    }

  private:
    T moved(const T* p, bool to_data, T value, double& log_det) const {
        if (!has_level_) return map_.template move<T>(p, to_data, value, log_det);
        T level = p[map_.n_params()];
        if (level < T(least_level)) level = T(least_level);
        if (level > T(most_level)) level = T(most_level);
        log_det += static_cast<double>(to_data ? level : -level);
        if (to_data) return map_.template move<T>(p, true, value, log_det) * std::exp(level);
        return map_.template move<T>(p, false, value * std::exp(-level), log_det);
    }

    void run_inner(bool to_data, T* values, double& log_det, StepWork<T>& work) const {
        for (std::size_t k = 0; k < mean_.size(); ++k)
            work.raw[k] = narrowed<T>((static_cast<double>(work.raw[k]) - mean_[k]) / std_[k]);
        for (std::size_t i = 0; i < inner_.size(); ++i)
            inner_[to_data ? i : inner_.size() - 1 - i]->run(to_data, values, work.raw.data(), work.scratch, log_det);
    }

    CausalNetwork<T> network_;
    Map map_;
    std::size_t features_;
    bool reads_data_, has_level_, has_map_;
    std::vector<TransformPtr<T>> inner_;
    std::vector<double> mean_, std_;
};

// Makes a link from a description, by one function for each kind.
template <class T>
struct LinkMaker {
    bool is_rounded;

    std::unique_ptr<Link<T>> operator()(CausalDescription<T, TransformPtr<T>>& d) const {
        return std::make_unique<CausalLink<T>>(std::move(d), is_rounded);
    }
    std::unique_ptr<Link<T>> operator()(const PredictionDescription<T>& d) const {
        return std::make_unique<PredictionLink<T>>(d);
    }
    std::unique_ptr<Link<T>> operator()(const AdaptiveDescription&) const {
        refuse("transforms: AdaptivePrediction is not in this header; the C library has it");
    }
    std::unique_ptr<Link<T>> operator()(StepDescription<TransformPtr<T>>& d) const {
        return std::make_unique<StepLink<T>>(std::move(d.made));
    }
};

}  // namespace detail
}  // namespace headrace
