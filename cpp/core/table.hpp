// A table of the kernels of one instruction set; isa.cpp chooses the set at import.
#pragma once

#include "scratch.hpp"
#include "views.hpp"

namespace headrace {

template <class T>
struct KernelsOf {
    // Computes rows [row, row + rows) of a call. `vectors` is the height of the tile in vectors; scratch has
    // tile_scratch values.
    void (*run_tile)(const Chain<T>&, const Call<T>&, int64_t row, int rows, int vectors, T* scratch) noexcept;
    // Computes a whole call of fewer than small_batch rows; scratch has small_scratch values.
    void (*run_small)(const Chain<T>&, const Call<T>&, T* scratch) noexcept;
    // Folds the only context row of a call into the first biases.
    void (*fold_context)(const NetworkStep<T>&, const T* weights, const T* context, int n, T* folded) noexcept;
    // Maps of elements for hr.ops, whose parameters come from a network outside this library.
    void (*coupling)(int map, bool inverse, const MapOptions<T>&, const T* in, const T* params, T* value, T* log_det,
                     int64_t rows, int64_t active) noexcept;
    void (*coupling_backward)(int map, bool inverse, const MapOptions<T>&, const T* in, const T* params,
                              const T* grad_value, const T* grad_log_det, T* grad_in, T* grad_params, int64_t rows,
                              int64_t active) noexcept;
    // Vector maps of at most vector_rows_of_tile rows for hr.ops. The backward pass adds gradients by ready parameters
    // that all rows share to `sums`.
    void (*vector_rows)(const VectorRows<T>&, int64_t row, int rows, T* scratch) noexcept;
    void (*vector_rows_backward)(const VectorRows<T>&, const VectorRowsBack<T>&, int64_t row, int rows, double* sums,
                                 T* scratch) noexcept;
    // A step of dual ascent on at most ascent_block_rows rows; `sums` has ascent_sums_of(features) values, or is null.
    // The maps' terms of the log-Jacobian are added to the log-Jacobian of each row, or, if log_jacobian is null, to
    // the sums. Scratch has ascent_scratch values. ascent_load copies rows to tiles, and ascent_store copies tiles
    // back.
    void (*ascent_block)(const AscentStep<T>&, T* z, double* log_jacobian, const T* weights, int64_t rows, double* sums,
                         T* scratch) noexcept;
    void (*ascent_load)(const ArrayView&, int64_t row, int64_t rows, int features, int tile_rows, T* z) noexcept;
    void (*ascent_store)(const T* z, int64_t rows, int features, int tile_rows, T* out) noexcept;
    // record_tile computes rows [row, row + rows) of a call on a tape; it returns false if a result is not finite.
    // backward_tile computes the backward pass of one network, called from the last network to network 0; sum_weights
    // computes the gradient of the weights from a group of tapes.
    bool (*record_tile)(const Chain<T>&, const Call<T>&, const Back<T>&, int64_t row, int rows, T* tape) noexcept;
    void (*backward_tile)(const Chain<T>&, const Call<T>&, const Back<T>&, int64_t row, int rows, int network,
                          T* tape) noexcept;
    void (*sum_weights)(const Chain<T>&, const Back<T>&, const WeightTask&, const TapeGroup<T>&) noexcept;
    // `adam` computes a step of Adam on n weights, and sum_squares the sum of the squares of n values.
    void (*adam)(const AdamStep<T>&, bool decays, const T* gradient, T* weights, T* mean, T* square, T* average,
                 int64_t n) noexcept;
    double (*sum_squares)(const T*, int64_t n) noexcept;
    // A step of Muon on a block, whose offsets are relative to the pointers; average may be null; scratch has
    // muon_scratch values. `flush` sets to zero those of n moments that would become denormal.
    void (*muon)(const MuonStep<T>&, const MuonBlock&, const T* gradient, T* weights, T* mean, T* average,
                 T* scratch) noexcept;
    void (*flush)(T* moments, int64_t n) noexcept;
    int width;  // number of lanes of a vector
};

struct KernelTable {
    KernelsOf<float> f32;
    KernelsOf<double> f64;
    // Computes multiply-adds in registers for the given number of rounds, and returns a value that depends on the
    // results of all rounds.
    double (*fma_chain)(int64_t rounds) noexcept;
    double fma_chain_flops;  // number of floating-point operations of a round
};

template <class T>
const KernelsOf<T>& kernels_of(const KernelTable& table) {
    if constexpr (sizeof(T) == 4) {
        return table.f32;
    } else {
        return table.f64;
    }
}

// The number of scratch values for a tile and for a small batch.
template <class T>
int64_t tile_scratch(const Chain<T>& chain, int64_t height) {
    return (2 * int64_t(chain.context + chain.features) + chain.units + chain.pairs + 1) * height;
}

template <class T>
int64_t ascent_scratch(const AscentStep<T>& s) {
    return int64_t(s.features) * (s.tile_rows + (ascent_sum_count + 2) * (cache_line / sizeof(T)));
}

template <class T>
int64_t vector_rows_scratch(const VectorRows<T>& a) {
    return (4 * int64_t(a.features) + a.n_raw + a.n_ready) * vector_rows_of_tile;
}

inline int64_t muon_scratch(const MuonBlock& b) {
    const int64_t side = std::min(b.rows, b.columns);
    return 2 * int64_t(padded_row(b.rows)) * padded_row(b.columns) + 5 * side * padded_row(int(side));
}

template <class T>
int64_t small_scratch(const Chain<T>& chain) {
    const auto padded = [](int64_t n) { return (n + row_padding - 1) / row_padding * row_padding; };
    return small_batch * (2 * padded(chain.context + chain.features) + chain.units + chain.pairs + chain.sums);
}

}  // namespace headrace
