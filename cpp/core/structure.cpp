#include "structure.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "blocks.hpp"
#include "lowering.hpp"
#include "shared_maps.hpp"

namespace headrace {

namespace {

bool density_fits(const StepSpec& s, size_t features) {
    int n = 0;
    for (const ColumnDensity column : s.columns) n += column == ColumnDensity::student;
    if (s.components > 0) n = int(size_t(s.components) * (1 + 2 * features));
    const bool has_all = s.components > 0 ? s.columns.empty() : s.columns.size() == features;
    return has_all && s.components >= 0 && s.n_raw == n && (s.fixed.empty() || int(s.fixed.size()) == n);
}

}  // namespace

Structure::Structure(int features, int context, std::vector<StepSpec> steps, ContextScale context_scale,
                     Bf16Layout bf16)
    : features_(features),
      context_(context),
      bf16_(bf16),
      steps_(std::move(steps)),
      context_shift_(std::move(context_scale.mean)) {
    if (features < 1 || context < 0) throw std::invalid_argument("features: expected at least 1");
    for (double std : context_scale.std) context_scale_.push_back(1 / std);
    if (context_shift_.size() != context_scale_.size() ||
        (!context_shift_.empty() && context_shift_.size() != size_t(context)))
        throw std::invalid_argument("context_scale: expected a mean and a std for each context column");
    for (const StepSpec& s : steps_) {
        const size_t n = size_t(features);
        bool fits = true;
        switch (s.kind) {
            case StepSpec::Kind::masked:
                fits = s.masked && s.masked->options().features == features &&
                       (s.masked->options().context == 0 || s.masked->options().context == context);
                break;
            case StepSpec::Kind::permutation: {
                std::vector<bool> seen(n, false);
                fits = s.order.size() == n;
                for (size_t i = 0; fits && i < n; ++i) {
                    fits = s.order[i] >= 0 && s.order[i] < features && !seen[s.order[i]];
                    if (fits) seen[s.order[i]] = true;
                }
                break;
            }
            case StepSpec::Kind::rotation: fits = blocks_fit(s.blocks, n, s.matrix.size()); break;
            case StepSpec::Kind::standardize: fits = s.mean.size() == n && s.std.size() == n; break;
            case StepSpec::Kind::support:
                fits = s.supports.size() == n && s.low.size() == n && s.high.size() == n;
                break;
            case StepSpec::Kind::marginal:
                fits = s.masked && s.masked->options().features == features && has_ready_derivative(*s.masked) &&
                       s.fixed.size() == n * size_t(s.masked->n_params());
                break;
            case StepSpec::Kind::density: fits = density_fits(s, n) && step_weights_.empty(); break;
        }
        if (!fits)
            throw std::invalid_argument("transforms: a transform does not fit the program's features or context");
        step_weights_.push_back(int64_t(n_weights_));
        step_pairs_.push_back(int64_t(n_pairs_));
        step_back_pairs_.push_back(int64_t(n_back_pairs_));
        step_places_.emplace_back();
        step_fold_.push_back(-1);
        if (s.trains()) n_weights_ += size_t(padded(s.n_raw));
        if (s.kind != StepSpec::Kind::masked) continue;
        n_weights_ += s.masked->n_weights();
        if (is_bf16(step_pairs_.size() - 1)) place_rounded(*s.masked);
        if (s.masked->options().context > 0) {
            step_fold_.back() = int(n_folded_);
            for (const auto& layer : s.masked->layers())
                if (layer.below < 0) n_folded_ += size_t(layer.out);
        }
    }
}

void Structure::place_rounded(const MaskedTransform& t) {
    const int numbers = 2 * bf16_.step;  // at once
    const auto pairs_before = [&](int n) { return int64_t(n / numbers) * bf16_.step; };
    const auto pairs_with = [&](int n) { return pairs_before(n + numbers - 1); };
    int64_t pairs = 0, back = 0;
    for (const auto& layer : t.layers()) {
        RoundedPlaces places;
        for (int u = 0; u < layer.out; u += bf16_units) {
            places.block.push_back(uint32_t(pairs));
            pairs += pairs_with(layer.visible[size_t(std::min(layer.out, u + bf16_units)) - 1]) * bf16_units;
        }
        places.block.push_back(uint32_t(pairs));
        for (int k = 0; k < layer.in; k += bf16_units) {
            const auto first = std::upper_bound(layer.visible.begin(), layer.visible.end(), k) - layer.visible.begin();
            places.back.push_back(back - pairs_before(int(first)) * bf16_units);
            back += (pairs_with(layer.out) - pairs_before(int(first))) * bf16_units;
        }
        step_places_.back().push_back(std::move(places));
    }
    n_pairs_ += size_t(pairs) * size_t(bf16_.parts * bf16_.copies);
    n_back_pairs_ += size_t(back) * size_t(bf16_.parts);
}

std::vector<Structure::Part> Structure::parts() const {
    std::vector<Part> parts;
    for (size_t i = 0; i < steps_.size(); ++i) {
        if (steps_[i].trains()) parts.push_back({step_weights_[i], step_weights_[i] + padded(steps_[i].n_raw), true});
        if (steps_[i].kind != StepSpec::Kind::masked) continue;
        int64_t begin = step_weights_[i];
        for (const auto& layer : steps_[i].masked->layers()) {
            const int64_t bias = step_weights_[i] + layer.bias, end = bias + padded(layer.out);
            parts.push_back({begin, bias, false});
            parts.push_back({bias, end, true});
            begin = end;
        }
    }
    return parts;
}

template <class T>
void Structure::clear_masked(T* vector) const {
    for (size_t i = 0; i < steps_.size(); ++i) {
        if (steps_[i].kind == StepSpec::Kind::masked) steps_[i].masked->clear_masked(vector + step_weights_[i]);
        if (steps_[i].trains())
            std::fill(vector + step_weights_[i] + steps_[i].n_raw, vector + step_weights_[i] + padded(steps_[i].n_raw),
                      T(0));
    }
}

std::vector<uint8_t> Structure::is_weight() const {
    std::vector<float> ones(n_weights_, 1.0f);
    clear_masked(ones.data());
    return std::vector<uint8_t>(ones.begin(), ones.end());
}

template <class T>
void Structure::clear_dead(T* gradient) const {
    for (size_t i = 0; i < steps_.size(); ++i)
        if (steps_[i].kind == StepSpec::Kind::masked) steps_[i].masked->clear_dead(gradient + step_weights_[i]);
}

template <class T>
Chains<T>::Chains(const Structure& structure, size_t base_steps) {
    if (base_steps > structure.steps().size())
        throw std::invalid_argument("base_steps: expected at most the number of steps");
    for (const bool inverse : {false, true}) {
        with_base_[inverse] = transforms_only_[inverse] = lowered<T>(structure, inverse, 0, inverse);
        if (base_steps > 0) transforms_only_[inverse] = lowered<T>(structure, inverse, base_steps, 2 + inverse);
    }
}

#define HR_INSTANTIATE(T)                            \
    template void Structure::clear_masked(T*) const; \
    template void Structure::clear_dead(T*) const;   \
    template class Chains<T>;
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
