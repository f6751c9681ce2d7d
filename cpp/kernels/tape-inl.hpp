// The tape of a tile: the record of a run through a chain, for the backward pass.
#pragma once

#include "tile-inl.hpp"

namespace headrace {
namespace {

template <class T>
struct Tape {
    const Chain<T>& chain;
    T* lines;
    int64_t height;
    int vectors, rows;
    int64_t row = 0;  // index in the call of the tile's first row

    HR_FN T* at(int64_t line) const { return lines + line * height; }
    HR_FN int64_t slots() const { return chain.context + chain.features; }
    HR_FN T* state(int step) const { return at(chain.tape.states + step * slots()); }  // the state before a step
    HR_FN T* gradient(int step) const { return at(chain.tape.gradients + (step & 1) * slots()); }
    HR_FN T* log_det() const { return at(chain.tape.sums); }
    HR_FN T* grad_log_det() const { return at(chain.tape.sums + 1); }
    HR_FN T* panels(int network, int panel) const { return at(chain.tape.panels[network & 1] + panel); }
    HR_FN TileBuffers<T> buffers(int step) const {
        TileBuffers<T> b;
        b.given = state(step);
        b.built = state(step + 1);
        b.units = nullptr;
        b.pairs = as_pairs(at(chain.tape.pairs));
        b.sum = log_det();
        b.vectors = vectors;
        b.height = height;
        return b;
    }
    // Buffers from the gradient after the step to the gradient before the step.
    HR_FN TileBuffers<T> gradient_buffers(int step) const {
        TileBuffers<T> b = buffers(step);
        b.given = gradient(step + 1);
        b.built = gradient(step);
        return b;
    }
};

// Copies gradients by the context past a step that does not read the context.
template <class T>
HR_FN void carry_context(const Tape<T>& t, const Back<T>& back, int step) {
    if (!back.context) return;
    for (int64_t i = 0; i < t.chain.context * t.height; i += width<T>)
        store(t.gradient(step) + i, load(t.gradient(step + 1) + i));
}

}  // namespace
}  // namespace headrace
