// Maps coordinates to their support and back, in place, where the map is not part of loading and storing.
#pragma once

#include "../tape-inl.hpp"

namespace headrace {
namespace {

template <class T>
HR_FN void run_step(const SupportStep<T>& s, const Chain<T>& chain, const Call<T>&, const TileBuffers<T>& b) {
    for (int64_t c = 0; c < chain.features; ++c) {
        if (s.column[c].kind == Support::any) continue;
        T* p = b.given + (chain.context + c) * b.height;
        for (int64_t i = 0; i < b.height; ++i) {
            const Supported made = supported(s, int(c), double(p[i]));
            p[i] = T(made.value);
            b.sum[i] += T(made.log_det);
        }
    }
}

template <class T>
HR_FN void run_step(const SupportStep<T>& s, const Chain<T>& chain, const Call<T>&, const SmallBuffers<T>& b) {
    for (int r = 0; r < b.rows; ++r)
        for (int c = 0; c < chain.features; ++c) {
            if (s.column[c].kind == Support::any) continue;
            T& x = b.given[r * b.stride + chain.context + c];
            const Supported made = supported(s, c, double(x));
            x = T(made.value);
            b.sum[r] += T(made.log_det);
        }
}

template <class T>
HR_FN void record_step(const SupportStep<T>& s, const Tape<T>& t, const Call<T>&, int step) {
    const TileBuffers<T> b = t.buffers(step);
    for (int64_t c = 0; c < t.chain.features; ++c) {
        const int64_t line = (t.chain.context + c) * t.height;
        for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; ++i) {
            const Supported made = supported(s, int(c), double(b.given[line + i]));
            b.built[line + i] = T(made.value);
            b.sum[i] += T(made.log_det);
        }
    }
}

template <class T>
HR_FN void backward_step(const SupportStep<T>& s, const Tape<T>& t, const Call<T>&, const Back<T>& back, int step,
                         int) {
    carry_context(t, back, step);
    const T *after = t.gradient(step + 1), *given = t.state(step);
    T* const before = t.gradient(step);
    for (int64_t c = 0; c < t.chain.features; ++c) {
        const int64_t line = (t.chain.context + c) * t.height;
        for (int64_t i = 0; i < int64_t(t.vectors) * width<T>; ++i) {
            const Supported made = supported(s, int(c), double(given[line + i]));
            before[line + i] = T(double(after[line + i]) * made.slope + double(t.grad_log_det()[i]) * made.bend);
        }
    }
}

}  // namespace
}  // namespace headrace
