// Applies a scale and a shift to each coordinate, in place, and computes the backward pass.
#pragma once

#include "../tape-inl.hpp"

namespace headrace {
namespace {

template <class T>
HR_FN void run_step(const ScaleStep<T>& s, const Chain<T>& chain, const Call<T>&, const TileBuffers<T>& b) {
    for (int64_t c = 0; c < chain.features; ++c) {
        T* p = b.given + (chain.context + c) * b.height;
        for (int64_t i = 0; i < b.height; ++i) p[i] = scaled(s, int(c), p[i]);
    }
}

template <class T>
HR_FN void run_step(const ScaleStep<T>& s, const Chain<T>& chain, const Call<T>&, const SmallBuffers<T>& b) {
    for (int r = 0; r < b.rows; ++r)
        for (int c = 0; c < chain.features; ++c) {
            T& x = b.given[r * b.stride + chain.context + c];
            x = scaled(s, c, x);
        }
}

template <class T>
HR_FN void record_step(const ScaleStep<T>& s, const Tape<T>& t, const Call<T>&, int step) {
    const TileBuffers<T> b = t.buffers(step);
    for (int64_t c = 0; c < t.chain.features; ++c) {
        const int64_t line = (t.chain.context + c) * t.height;
        for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; ++i)
            b.built[line + i] = scaled(s, int(c), b.given[line + i]);
    }
}

template <class T>
HR_FN void backward_step(const ScaleStep<T>& s, const Tape<T>& t, const Call<T>&, const Back<T>& back, int step, int) {
    carry_context(t, back, step);
    const T* after = t.gradient(step + 1);
    T* const before = t.gradient(step);
    for (int64_t c = 0; c < t.chain.features; ++c) {
        const int64_t line = (t.chain.context + c) * t.height;
        const T factor = T(s.scale[c]);
        for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; i += width<T>)
            store(before + line + i, load(after + line + i) * factor);
    }
}

}  // namespace
}  // namespace headrace
