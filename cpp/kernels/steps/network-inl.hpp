// A conditioner and its map over one tile or one small batch, and their backward pass, for all kinds of conditioners.
// Where the conditioner reads given coordinates, all positions are computed at once; where it reads coordinates that
// are being computed, positions are computed one after another.
#pragma once

#include "../conditioners-inl.hpp"
#include "../coordinates-inl.hpp"
#include "../vector-inl.hpp"

namespace headrace {
namespace {

// ---- uses of parameters --------------------------------------------------------------------------------------------

// The coordinates of a vector map whose raw parameters, line by line, are the network's outputs.
template <class T>
HR_FN VectorLines<T> vector_lines(const NetworkStep<T>& s, const TileBuffers<T>& b) {
    return {b.given, b.built, s.map.given, s.map.built, s.map.n, b.height};
}

template <class T>
HR_FN void tile_vector_map(const NetworkStep<T>& s, const TileBuffers<T>& b, const T* params) {
    T* const ready = line_of(b, b.is_recorded ? s.tape_ready : s.ready);
    with_vector_map(s.vector_map, [&]<class Map>() {
        if (s.map.inverse) {
            vector_rows_tile<Map, true>(vector_lines(s, b), s.map.options, b.vectors, params, ready, b.sum);
        } else {
            vector_rows_tile<Map, false>(vector_lines(s, b), s.map.options, b.vectors, params, ready, b.sum);
        }
    });
}

// Computes coordinates [begin, end) of the map from their parameters.
template <class T>
HR_FN void settle(const NetworkStep<T>& s, const TileBuffers<T>& b, const T* params, int begin, int end) {
    if (s.vector_map >= 0) return tile_vector_map(s, b, params);
    if (begin < end) settle(s.map, b, params, begin, end);
}

template <class T>
HR_FN void settle(const NetworkStep<T>& s, const SmallBuffers<T>& b, const T* params, int begin, int end) {
    if (begin < end) settle(s.map, b, params, begin, end);
}

template <class T>
HR_FN void tile_vector_map_vjp(const NetworkStep<T>& s, const Tape<T>& t, int step, T* params) {
    const VectorLines<T> lines = vector_lines(s, t.buffers(step));
    T* const ready = t.at(s.tape + s.tape_ready);
    with_vector_map(s.vector_map, [&]<class Map>() {
        if (s.map.inverse) {
            vector_rows_vjp_tile<Map, true>(lines, s.map.options, t.vectors, params, ready, t.gradient(step + 1),
                                            t.gradient(step), t.grad_log_det());
        } else {
            vector_rows_vjp_tile<Map, false>(lines, s.map.options, t.vectors, params, ready, t.gradient(step + 1),
                                             t.gradient(step), t.grad_log_det());
        }
    });
}

// Replaces parameters by gradients by these parameters.
template <class T>
HR_FN void settle_back(const NetworkStep<T>& s, const Tape<T>& t, int step, T* params, int begin, int end) {
    if (s.vector_map >= 0) return tile_vector_map_vjp(s, t, step, params);
    settle_back(s.map, t, step, params, begin, end);
}

template <class C, class T>
HR_FN const T* parameters_of(const C& c, const TileBuffers<T>& b, int from) {
    return line_of(b, parameters(c, from, b.is_recorded));
}
template <class C, class T>
HR_FN const T* parameters_of(const C& c, const SmallBuffers<T>& b, int from) {
    return line_of(b, parameters(c, from, false));
}

// ---- position by position, or all at once ---------------------------------------------------------------------------

template <class T, class Buffers>
HR_FN void run_step(const NetworkStep<T>& s, const Chain<T>& chain, const Call<T>& call, const Buffers& b) {
    copy_slots(b, s.passive_given, s.passive_built, s.n_passive);
    const Known<T, Buffers> known = known_of(s, chain, call, b);
    with_conditioner(s.conditioner, [&](const auto& c) {
        if constexpr (requires { advance(c, known, 0, 0); }) {  // a kind may lack this function for small batches
            const int n = positions(c, s.map.n), span = span_of(s, n);
            for (int from = 0; from < n; from += span) {
                const int to = from + span;
                advance(c, known, from, to);
                settle(s, b, parameters_of(c, b, from), first_coordinate(c, from), first_coordinate(c, to));
            }
        }
    });
}

template <class T>
HR_FN void record_step(const NetworkStep<T>& s, const Tape<T>& t, const Call<T>& call, int step) {
    TileBuffers<T> b = t.buffers(step);
    b.units = t.at(s.tape);
    b.is_recorded = true;
    if (call.drops) b.drops = &call;
    b.row = t.row;
    run_step(s, t.chain, call, b);
}

// Computes the gradient by the state before a network step from the gradient by the state after the step.
template <class T>
HR_FN void backward_step(const NetworkStep<T>& s, const Tape<T>& t, const Call<T>& call, const Back<T>& back, int step,
                         int network) {
    // Gradients of copied coordinates are carried over before the conditioner adds its own to them if it reads given
    // coordinates, and afterwards if it reads coordinates that are being built.
    const auto carry_passive = [&] {
        copy_slots(t.gradient_buffers(step), s.passive_built, s.passive_given, s.n_passive);
        carry_context(t, back, step);
    };
    if (!s.reads_built) carry_passive();
    const KnownBack<T> known{s, t, call, back, step, network};
    with_conditioner(s.conditioner, [&](const auto& c) {
        const int n = positions(c, s.map.n), span = span_of(s, n);
        for (int to = n; to > 0; to -= span) {
            const int from = to - span;
            settle_back(s, t, step, known.line(parameters(c, from, true)), first_coordinate(c, from),
                        first_coordinate(c, to));
            advance_back(c, known, from, to);
        }
    });
    if (s.reads_built) carry_passive();
}

// Folds the only context row of a call into first biases.
template <class T>
void fold_context(const NetworkStep<T>& s, const T* weights, const T* context, int n, T* folded) noexcept {
    with_conditioner(s.conditioner, [&]<class C>(const C& c) {
        if constexpr (requires { fold_context(c, weights, context, n, folded); })
            fold_context(c, weights + s.weights, context, n, folded + s.fold);
    });
}

}  // namespace
}  // namespace headrace
