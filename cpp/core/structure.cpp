#include "structure.hpp"

#include <stdexcept>
#include <utility>

#include "lowering.hpp"

namespace headrace {

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
    for (size_t i = 0; i < steps_.size(); ++i) {
        const bool fits = std::visit(
            [&]<class Spec>(const Spec& spec) {
                if constexpr (requires { Spec::is_first; })
                    if (i > 0) return false;
                return spec.fits(features, context);
            },
            steps_[i]);
        if (!fits)
            throw std::invalid_argument("transforms: a transform does not fit the program's features or context");
        step_weights_.push_back(int64_t(n_weights_));
        step_pairs_.push_back(int64_t(n_pairs_));
        step_back_pairs_.push_back(int64_t(n_back_pairs_));
        step_fold_.push_back(-1);
        std::visit(
            [&](const auto& spec) {
                if constexpr (requires { spec.n_weights(); }) n_weights_ += size_t(spec.n_weights());
            },
            steps_[i]);
        if (const Conditioner* const c = conditioner(i)) place(*c, i);
    }
}

void Structure::place(const Conditioner& c, size_t i) {
    const Conditioner::Pairs pairs = c.n_pairs(bf16_of(i));
    n_pairs_ += pairs.forth;
    n_back_pairs_ += pairs.back;
    if (c.context() == 0) return;
    step_fold_[i] = int(n_folded_);
    n_folded_ += c.n_folded();
}

Bf16Layout Structure::bf16_of(size_t i) const {
    const Conditioner* const c = conditioner(i);
    return c && bf16_.parts > 0 ? c->bf16(bf16_) : Bf16Layout{};
}

template <class F>
void Structure::for_weighted(const F& visit) const {
    for (size_t i = 0; i < steps_.size(); ++i)
        std::visit(
            [&](const auto& spec) {
                if constexpr (requires { spec.n_weights(); }) visit(spec, step_weights_[i]);
            },
            steps_[i]);
}

std::vector<WeightRange> Structure::parts() const {
    std::vector<WeightRange> all;
    for_weighted([&](const auto& spec, int64_t first) {
        for (const WeightRange& part : spec.parts())
            all.push_back({first + part.begin, first + part.end, part.is_bias});
    });
    return all;
}

std::vector<WeightBlock> Structure::blocks() const {
    std::vector<WeightBlock> all;
    for (size_t i = 0; i < steps_.size(); ++i) {
        const Conditioner* const c = conditioner(i);
        if (!c) continue;
        for (WeightBlock& block : c->blocks()) {
            block.begin = step_weights_[i];
            all.push_back(std::move(block));
        }
    }
    return all;
}

template <class T>
void Structure::clear_masked(T* vector) const {
    for_weighted([&](const auto& spec, int64_t first) { spec.clear_masked(vector + first); });
}

std::vector<uint8_t> Structure::is_weight() const {
    std::vector<float> ones(n_weights_, 1.0f);
    clear_masked(ones.data());
    return std::vector<uint8_t>(ones.begin(), ones.end());
}

template <class T>
void Structure::clear_dead(T* gradient) const {
    for_weighted([&](const auto& spec, int64_t first) { spec.clear_dead(gradient + first); });
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
