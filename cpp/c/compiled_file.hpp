// Compiled programs of the flows that files describe.
#pragma once

#include <memory>

#include "../core/program.hpp"
#include "lowered_file.hpp"

namespace headrace {

// The compiled program of a flow. Throws FileFormatError where the core refuses the description.
template <class T>
std::shared_ptr<const Program<T>> compiled(int features, int context, Base base, LoweredSteps<T> lowered,
                                           size_t base_steps, ContextScale scale, int bf16_kind);

// The compiled program of a single transform, without a context.
template <class T>
std::shared_ptr<const Program<T>> compiled_transform(int features, LoweredSteps<T> lowered) {
    return compiled<T>(features, 0, Base::none, std::move(lowered), 0, {}, 0);
}

// The compiled program of a flow, whose transforms are moved out of `flow`.
template <class T>
std::shared_ptr<const Program<T>> compiled_flow(detail::FlowDescription<LoweredSteps<T>>& flow, int bf16_kind);

}  // namespace headrace
