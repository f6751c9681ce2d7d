// Chains over time as Python objects.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "../core/sequences/chain_stream.hpp"
#include "bindings.hpp"
#include "initialised.hpp"
#include "state_in_use.hpp"

namespace headrace {

// Weights of a chain, with the chain to which they belong.
template <class T>
struct HeldChainWeights {
    std::shared_ptr<const SequenceChain<T>> chain;
    std::shared_ptr<const ChainWeights<T>> weights;

    const ChainWeights<T>& of(const SequenceChain<T>& called) const {
        require(chain.get() == &called, "weights: expected those of this chain");
        return *weights;
    }
};

// The state of sequences, with a flag that is set while a call uses the state.
template <class T>
struct HeldChainState {
    std::shared_ptr<const SequenceChain<T>> chain;
    std::shared_ptr<ChainState<T>> state;
    std::atomic<bool> is_in_use{false};
    bool& is_broken = state->is_broken;
};

// A stream, with the state that it shares with Python.
template <class T>
struct HeldChainStream {
    std::shared_ptr<HeldChainState<T>> held;
    ChainStream<T> stream;
};

}  // namespace headrace

HR_REFUSE_UNINITIALISED(headrace::SequenceChain<float>);
HR_REFUSE_UNINITIALISED(headrace::SequenceChain<double>);
HR_REFUSE_UNINITIALISED(headrace::HeldChainWeights<float>);
HR_REFUSE_UNINITIALISED(headrace::HeldChainWeights<double>);
HR_REFUSE_UNINITIALISED(headrace::HeldChainState<float>);
HR_REFUSE_UNINITIALISED(headrace::HeldChainState<double>);
HR_REFUSE_UNINITIALISED(headrace::HeldChainStream<float>);
HR_REFUSE_UNINITIALISED(headrace::HeldChainStream<double>);

namespace headrace {

// A copy of values as an array of the given shape, in the dtype of the values.
inline py::array copied(StepValues values, const std::vector<py::ssize_t>& shape) {
    if (values.is_double) return Array<double>(shape, static_cast<const double*>(values.data));
    return Array<float>(shape, static_cast<const float*>(values.data));
}

// Calls on sequences of any lengths (ragged.cpp).
void bind_sequences_given(py::module_& m);
template <class T>
void bind_ragged_of(py::class_<SequenceChain<T>, std::shared_ptr<SequenceChain<T>>>& chain);

}  // namespace headrace
