// Masked autoregressive transforms and couplings: maps of coordinates whose parameters a network computes.
#pragma once

#include "maps.hpp"
#include "plan.hpp"
#include "transform.hpp"

namespace headrace {
namespace detail {

template <class T>
class MaskedTransform : public Transform<T> {
  public:
    MaskedTransform(const TransformDescription<T>& d, MaskedDescription<T> masked)
        : Transform<T>(d),
          map_(masked.map),
          network_(std::move(masked.layers)),
          reads_(std::move(masked.reads)),
          active_(std::move(masked.active)),
          place_(std::move(masked.place)),
          reads_data_(masked.reads_data),
          is_coupling_(masked.is_coupling) {
        if (!is_coupling_) plan_ = std::make_unique<Plan>(d.place, network_, place_, map_.n_params());
    }

    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        s.inputs.resize(static_cast<std::size_t>(network_.columns()));
        std::transform(context, context + this->context_, s.inputs.begin() + static_cast<std::ptrdiff_t>(reads_.size()),
                       [&](T c) { return network_.read(c); });
        s.params.resize(map_.n_params());
        if (is_coupling_ || reads_data_ != to_data) {  // the network reads the input
            for (std::size_t i = 0; i < reads_.size(); ++i) s.inputs[i] = network_.read(row[reads_[i]]);
            network_.run(s);
            for (std::size_t k = 0; k < active_.size(); ++k) map_coordinate(k, to_data, row, s, log_det);
            return;
        }
        // The network reads coordinates that are being built: those that are not built yet are never read.
        std::fill(s.inputs.begin(), s.inputs.begin() + static_cast<std::ptrdiff_t>(reads_.size()), T(0));
        network_.open(s);
        for (const Plan::Step& step : plan_->steps()) {
            if (step.layer >= 0) {
                network_.run_unit(s, static_cast<std::size_t>(step.layer), step.index);
            } else {
                map_coordinate(step.index, to_data, row, s, log_det);
                s.inputs[step.index] = network_.read(row[step.index]);
            }
        }
    }

  private:
    void map_coordinate(std::size_t k, bool to_data, T* row, Scratch<T>& s, double& log_det) const {
        const std::vector<T>& outputs = network_.outputs(s);
        const std::size_t n = s.params.size();
        for (std::size_t p = 0; p < n; ++p) s.params[p] = outputs[place_[k * n + p]];
        T& value = row[active_[k]];
        value = map_.template move<T>(s.params.data(), to_data, value, log_det);
    }

    Map map_;
    Network<T> network_;
    std::unique_ptr<Plan> plan_;
    std::vector<int> reads_, active_;
    std::vector<std::size_t> place_;
    bool reads_data_, is_coupling_;
};

}  // namespace detail
}  // namespace headrace
