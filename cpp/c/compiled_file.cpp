#include "compiled_file.hpp"

#include <iterator>
#include <stdexcept>
#include <utility>

namespace headrace {
namespace {

template <class T>
void append(LoweredSteps<T>& to, LoweredSteps<T>& from) {
    std::move(from.steps.begin(), from.steps.end(), std::back_inserter(to.steps));
    to.weights.insert(to.weights.end(), from.weights.begin(), from.weights.end());
    from = {};
}

}  // namespace

template <class T>
std::shared_ptr<const Program<T>> compiled(int features, int context, Base base, LoweredSteps<T> lowered,
                                           size_t base_steps, ContextScale scale, int bf16_kind) {
    try {
        const auto program = std::make_shared<Program<T>>(features, context, base, std::move(lowered.steps), base_steps,
                                                          std::move(scale), bf16_kind);
        if (lowered.weights.size() != program->n_weights())
            throw std::logic_error("weights: expected as many as the program has");
        program->set_weights(lowered.weights.data());
        return program;
    } catch (const std::invalid_argument& error) {
        detail::refuse(error.what());
    }
}

template <class T>
std::shared_ptr<const Program<T>> compiled_flow(detail::FlowDescription<LoweredSteps<T>>& flow, int bf16_kind) {
    LoweredSteps<T> all = lowered_base<T>(flow.base);
    const size_t base_steps = all.steps.size();
    for (LoweredSteps<T>& one : flow.transforms) append(all, one);
    return compiled<T>(flow.features, flow.context, standard_of(flow.base), std::move(all), base_steps,
                       {std::move(flow.context_mean), std::move(flow.context_std)}, bf16_kind);
}

#define HR_INSTANTIATE(T)                                                                                         \
    template std::shared_ptr<const Program<T>> compiled<T>(int, int, Base, LoweredSteps<T>, size_t, ContextScale, \
                                                           int);                                                  \
    template std::shared_ptr<const Program<T>> compiled_flow<T>(detail::FlowDescription<LoweredSteps<T>>&, int);
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
