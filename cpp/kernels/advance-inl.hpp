// Functions of a conditioner, and their arguments. Each kind of conditioner has overloads of the following functions
// for its struct, in conditioners/:
//
//   advance(c, known, from, to)                computes parameters of positions [from, to) from earlier positions
//   advance_back(c, known, from, to)           computes gradients by inputs and weights from gradients by parameters
//   fold_context(c, weights, context, n, out)  optional: adds a context row that all rows share to biases, once a call
//
// `advance` exists for tiles and for small batches; without `advance` for small batches, chains with the kind run in
// tiles only.
#pragma once

#include "tape-inl.hpp"

namespace headrace {
namespace {

// A line of a conditioner's state and scratch, which are on the tape in a run that is recorded.
template <class T>
HR_FN T* line_of(const TileBuffers<T>& b, int64_t line) {
    return b.units + line * b.height;
}
template <class T>
HR_FN T* line_of(const SmallBuffers<T>& b, int64_t line) {
    return b.units + line;
}

// The line of a slot.
template <class T>
HR_FN const T* slot_of(const TileBuffers<T>& b, const T* slots, int slot) {
    return slots + slot * b.height;
}
template <class T>
HR_FN const T* slot_of(const SmallBuffers<T>&, const T* slots, int slot) {
    return slots + slot;
}

// The step, the call and the buffers of a conditioner in a run.
template <class T, class Buffers>
struct Known {
    const NetworkStep<T>& step;
    const Chain<T>& chain;
    const Call<T>& call;
    const Buffers& b;
    const T* weights;  // first weight of the conditioner
    const T* input;    // context of the conditioner, then its input coordinates, in the order of its inputs
};

template <class T, class Buffers>
HR_FN Known<T, Buffers> known_of(const NetworkStep<T>& s, const Chain<T>& chain, const Call<T>& call,
                                 const Buffers& b) {
    return {s, chain, call, b, call.weights + s.weights, slot_of(b, s.reads_built ? b.built : b.given, s.input_slot)};
}

// The step, the call and the tape of a conditioner in the backward pass.
template <class T>
struct KnownBack {
    const NetworkStep<T>& step;
    const Tape<T>& tape;
    const Call<T>& call;
    const Back<T>& back;
    int number, network;  // index of the step among all steps, and among those with weights

    HR_FN T* line(int64_t line) const { return tape.at(step.tape + line); }
    HR_FN const T* weights() const { return call.weights + step.weights; }
    // The index of the state whose coordinates were inputs of the conditioner.
    HR_FN int read() const { return step.reads_built ? number + 1 : number; }
    HR_FN const T* input() const { return tape.state(read()) + step.input_slot * tape.height; }
    HR_FN T* input_gradient() const { return tape.gradient(read()) + step.input_slot * tape.height; }
};

}  // namespace
}  // namespace headrace
