// Multiplies the coordinates by a block diagonal matrix, and gradients by its transpose.
#pragma once

#include "../product-inl.hpp"
#include "../tape-inl.hpp"

namespace headrace {
namespace {

template <class T>
HR_FN void rotate(const RotationStep<T>& s, const T* matrix, const Chain<T>& chain, const TileBuffers<T>& b) {
    const int64_t start = chain.context * b.height;
    block_product(matrix, s.row, s.first, s.blocks, s.zeros, b.given + start, b.built + start, b.height, b.vectors);
}

template <class T>
HR_FN void run_step(const RotationStep<T>& s, const Chain<T>& chain, const Call<T>&, const TileBuffers<T>& b) {
    rotate(s, s.matrix, chain, b);
}

template <class T>
HR_FN void record_step(const RotationStep<T>& s, const Tape<T>& t, const Call<T>&, int step) {
    rotate(s, s.matrix, t.chain, t.buffers(step));
}

template <class T>
HR_FN void backward_step(const RotationStep<T>& s, const Tape<T>& t, const Call<T>&, const Back<T>& back, int step,
                         int) {
    carry_context(t, back, step);
    rotate(s, s.transpose, t.chain, t.gradient_buffers(step));
}

}  // namespace
}  // namespace headrace
