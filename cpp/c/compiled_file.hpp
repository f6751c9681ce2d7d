// Programs of the flows that files describe.
#pragma once

#include <memory>

#include "../core/program.hpp"
#include "lowered_file.hpp"

namespace headrace {

// Throws FileFormatError where the core refuses.
template <class T>
std::shared_ptr<const Program<T>> compiled(int features, int context, Base base, LoweredSteps<T> lowered,
                                           size_t base_steps, ContextScale scale, int bf16_kind);

// A transform alone, without a context.
template <class T>
std::shared_ptr<const Program<T>> compiled_transform(int features, LoweredSteps<T> lowered) {
    return compiled<T>(features, 0, Base::none, std::move(lowered), 0, {}, 0);
}

// Takes the flow's transforms.
template <class T>
std::shared_ptr<const Program<T>> compiled_flow(detail::FlowDescription<LoweredSteps<T>>& flow, int bf16_kind);

}  // namespace headrace
