// Moves coordinates from slots to slots, and gradients back.
#pragma once

#include "../tape-inl.hpp"

namespace headrace {
namespace {

template <class T, class Buffers>
HR_FN void run_step(const MoveStep<T>& s, const Chain<T>& chain, const Call<T>&, const Buffers& b) {
    copy_slots(b, s.given, s.built, chain.features);
}

template <class T>
HR_FN void record_step(const MoveStep<T>& s, const Tape<T>& t, const Call<T>&, int step) {
    copy_slots(t.buffers(step), s.given, s.built, t.chain.features);
}

template <class T>
HR_FN void backward_step(const MoveStep<T>& s, const Tape<T>& t, const Call<T>&, const Back<T>& back, int step, int) {
    carry_context(t, back, step);
    copy_slots(t.gradient_buffers(step), s.built, s.given, t.chain.features);
}

}  // namespace
}  // namespace headrace
