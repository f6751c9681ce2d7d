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
    MaskedTransform(Stored& stored, bool is_coupling) {
        const int n = this->features_ = stored.size("features", 1);
        const int context = this->context_ = stored.size("context");
        const MapSettings map(stored);
        map_ = std::make_unique<MapSettings>(map);
        const Activation activation = static_cast<Activation>(stored.choice("activation", activation_names()));
        formula_to_data_ = stored.choice("formula", {"to_data", "to_latent"}) == 0;
        if (is_coupling) {
            read_sides(stored);
        } else {
            reads_data_ = stored.choice("reads", {"data", "latent"}) == 0;
            for (int c = 0; c < n; ++c) active_.push_back(c);
            reads_ = active_;
        }
        is_coupling_ = is_coupling;
        const std::uint64_t n_active = active_.size(), n_params = static_cast<std::uint64_t>(map.n_params());
        network_ = std::make_unique<Network<T>>(stored, static_cast<int>(reads_.size()) + context, context,
                                                n_active * n_params, activation, true);
        place_ = places(stored, map);
        check_staircase(stored);
        if (!is_coupling) plan_ = std::make_unique<Plan>(stored, *network_, place_, map.n_params());
    }

    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        s.inputs.resize(static_cast<std::size_t>(network_->columns()));
        std::transform(context, context + this->context_, s.inputs.begin() + static_cast<std::ptrdiff_t>(reads_.size()),
                       [&](T c) { return network_->read(c); });
        s.params.resize(static_cast<std::size_t>(map_->n_params()));
        const bool inverse = to_data != formula_to_data_;
        if (is_coupling_ || reads_data_ != to_data) {  // the network reads the input
            for (std::size_t i = 0; i < reads_.size(); ++i) s.inputs[i] = network_->read(row[reads_[i]]);
            network_->run(s);
            for (std::size_t k = 0; k < active_.size(); ++k) map_coordinate(k, inverse, row, s, log_det);
            return;
        }
        // The network reads coordinates that are being built: those that are not built yet are never read.
        std::fill(s.inputs.begin(), s.inputs.begin() + static_cast<std::ptrdiff_t>(reads_.size()), T(0));
        network_->open(s);
        for (const Plan::Step& step : plan_->steps()) {
            if (step.layer >= 0) {
                network_->run_unit(s, static_cast<std::size_t>(step.layer), step.index);
            } else {
                map_coordinate(step.index, inverse, row, s, log_det);
                s.inputs[step.index] = network_->read(row[step.index]);
            }
        }
    }

  private:
    void map_coordinate(std::size_t k, bool inverse, T* row, Scratch<T>& s, double& log_det) const {
        const std::vector<T>& outputs = network_->outputs(s);
        const std::size_t n = s.params.size();
        for (std::size_t p = 0; p < n; ++p) s.params[p] = outputs[place_[k * n + p]];
        T& value = row[active_[k]];
        value = map_->template apply<T>(s.params.data(), inverse, value, log_det);
    }

    void read_sides(Stored& stored) {
        reads_ = stored.integers("passive", 0, this->features_ - 1);
        std::vector<bool> is_passive(static_cast<std::size_t>(this->features_), false);
        for (const int c : reads_) {
            if (is_passive[static_cast<std::size_t>(c)]) stored.fail("passive: expected each coordinate once");
            is_passive[static_cast<std::size_t>(c)] = true;
        }
        for (int c = 0; c < this->features_; ++c)
            if (!is_passive[static_cast<std::size_t>(c)]) active_.push_back(c);
        if (active_.empty()) stored.fail("passive: expected a coordinate that is not");
    }

    // The row of the last layer that is parameter p of the k-th coordinate that is mapped, both in the map's own order.
    std::vector<std::size_t> places(Stored& stored, const MapSettings& map) const {
        const auto groups = map.groups();
        const std::vector<Value>& outputs = stored.items("outputs");
        const bool is_blocked = stored.choice("layout", {"interleaved", "blocked"}) == 1;
        const std::size_t n = static_cast<std::size_t>(map.n_params()), active = active_.size();
        std::vector<std::size_t> result(active * n), start(groups.size(), n);
        if (outputs.size() != groups.size()) stored.fail("outputs: expected the names of the map's parameters");
        std::size_t next = 0;
        for (const Value& output : outputs) {
            std::size_t g = 0;
            while (g < groups.size() && !(output.is(Value::Kind::text) && output.text() == groups[g].first)) ++g;
            if (g == groups.size() || start[g] != n) stored.fail("outputs: expected the names of the map's parameters");
            start[g] = next;
            next += static_cast<std::size_t>(groups[g].second);
        }
        std::size_t own = 0;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            const std::size_t size = static_cast<std::size_t>(groups[g].second);
            for (std::size_t k = 0; k < active; ++k)
                for (std::size_t i = 0; i < size; ++i)
                    result[k * n + own + i] = is_blocked ? active * start[g] + k * size + i : k * n + start[g] + i;
            own += size;
        }
        return result;
    }

    // Levels and degrees follow from the masks; a file in which they differ is broken.
    void check_staircase(Stored& stored) const {
        const Value &levels_value = stored.take("levels"), &degrees_value = stored.take("degrees");
        if (levels_value.is(Value::Kind::null) && degrees_value.is(Value::Kind::null)) return;
        const int n = this->features_;
        const std::vector<int> levels = stored.integers(levels_value, "levels", 1, n);
        const std::vector<Layer<T>>& layers = network_->layers();
        if (levels.size() != static_cast<std::size_t>(n)) stored.fail("levels: expected one for each coordinate");
        if (!degrees_value.is(Value::Kind::list) || degrees_value.items().size() != layers.size() - 1)
            stored.fail("degrees: expected a list for each hidden layer");
        std::vector<int> seen;
        for (const int c : reads_) seen.push_back(levels[static_cast<std::size_t>(c)]);
        seen.resize(seen.size() + static_cast<std::size_t>(this->context_), 0);
        for (std::size_t l = 0; l < layers.size(); ++l) {
            const bool is_last = l + 1 == layers.size();
            std::vector<int> own;
            if (is_last) {
                own.resize(place_.size());
                for (std::size_t i = 0; i < place_.size(); ++i) {
                    const std::size_t k = i / static_cast<std::size_t>(map_->n_params());
                    own[place_[i]] = levels[static_cast<std::size_t>(active_[k])] - 1;
                }
            } else {
                own = stored.integers(degrees_value.items()[l], "degrees", 0, n);
            }
            const Layer<T>& layer = layers[l];
            if (own.size() != layer.units()) stored.fail("degrees: expected one for each unit");
            for (std::size_t u = 0; u < own.size(); ++u) {
                std::size_t entry = layer.first[u];
                for (std::size_t c = 0; c < seen.size(); ++c) {
                    const bool shows = entry < layer.first[u + 1] && layer.column[entry] == c;
                    if (shows != (seen[c] <= own[u])) stored.fail("masks: expected those that levels and degrees make");
                    entry += shows;
                }
            }
            seen = std::move(own);
        }
    }

    std::unique_ptr<MapSettings> map_;
    std::unique_ptr<Network<T>> network_;
    std::unique_ptr<Plan> plan_;
    std::vector<int> reads_, active_;
    std::vector<std::size_t> place_;
    bool formula_to_data_ = true, reads_data_ = true, is_coupling_ = false;
};

}  // namespace detail
}  // namespace headrace
