// A step of Muon on a block of a weight matrix, which reads and writes each entry once.
//
// Newton and Schulz's steps are polynomials of G, the Gram matrix of X on the shorter side of X. All products but the
// last multiply matrices of the size of G. The first product gives G; each step's products give Q, the product of the
// steps' polynomials, and the next G; the last product gives Q X, or X Q where there are fewer columns than rows.
#pragma once

#include "../math/muon.hpp"
#include "adam-inl.hpp"
#include "gradient_product-inl.hpp"
#include "transpose-inl.hpp"

namespace headrace {
namespace {

// The least share of an entry in a matrix's norm; smaller entries become zero, so that no product of two entries is
// denormal.
template <class T>
constexpr T least_share = sizeof(T) == 4 ? T(1e-15) : T(1e-100);
template <class T>
constexpr T least_momentum = sizeof(T) == 4 ? T(1e-30) : T(1e-200);

template <class T>
HR_FN Pack<T> without_small(Pack<T> v, T least) {
    return select(abs(v) < least, Pack<T>{}, v);
}

// Products of symmetric matrices with n rows, which are `stride` apart. Products of polynomials of one matrix are
// symmetric, so that blocks below the diagonal, each a vector wide, are transposed copies of blocks above.
template <class T>
struct Symmetric {
    int n, stride;
    const uint32_t* row;  // offset of row i: i stride

    // Calls f(values) for each vector of a row.
    template <class F>
    HR_FN void for_vectors(const F& f) const {
        for (int64_t i = 0; i < n; ++i)
            for (int64_t k = 0; k < n; k += width<T>) f(i * stride + k);
    }
    HR_FN void set_diagonal(T* to, T value) const {
        for_vectors([&](int64_t k) { store(to + k, Pack<T>{}); });
        for (int64_t i = 0; i < n; ++i) to[i * stride + i] = value;
    }
    // Calls product(first row, rows, first vector, vectors) for blocks on and above the diagonal.
    template <class F>
    HR_FN void by_blocks(T* to, const F& product) const {
        constexpr int W = width<T>, units = W < row_block ? W : row_block;
        const int vectors = (n + W - 1) / W;
        for (int u = 0; u < n; u += units) product(u, n - u < units ? n - u : units, u / W, vectors - u / W);
        for (int64_t i = W; i < n; i += W)
            for (int64_t j = 0; j < i; j += W) {
                Pack<T> v[W];
                for (int k = 0; k < W; ++k) v[k] = load(to + (j + k) * stride + i);
                transpose(v);
                for (int k = 0; k < W && i + k < n; ++k) store(to + (i + k) * stride + j, v[k]);
            }
    }
    // Adds the matrix product of `left` and `right` to `to`, where `left` has the given rows and k columns.
    HR_FN void add_product(const T* left, const uint32_t* left_row, int k, const T* right, T* to) const {
        by_blocks(to, [&](int u, int rows, int v, int vectors) {
            const int64_t lane = v * width<T>;
            tile_product(
                ProductArgs<T>{left, left_row + u, 0, k, right + lane, to + u * stride + lane, stride, nullptr, false},
                rows, vectors);
        });
    }
    HR_FN void product(const T* left, const T* right, T* to) const {
        set_diagonal(to, T(0));
        add_product(left, row, n, right, to);
    }
};

// The factor that makes X orthogonal, from X's Gram matrix `g`, which is overwritten. The result is in one of the
// buffers.
template <class T>
T* orthogonal_factor(const Symmetric<T>& square, T* g, T* p, T* q, T* next, T* h) {
    constexpr T a = T(orthogonal_a), b = T(orthogonal_b), c = T(orthogonal_c);
    for (int step = 0;; ++step) {
        square.for_vectors([&](int64_t k) { store(h + k, load(g + k) * c); });
        for (int64_t i = 0; i < square.n; ++i) h[i * square.stride + i] += b;
        square.set_diagonal(step == 0 ? q : p, a);
        square.add_product(h, square.row, square.n, g, step == 0 ? q : p);
        if (step > 0) {
            square.product(p, q, next);
            T* const last = q;
            q = next;
            next = last;
        }
        if (step + 1 == orthogonal_steps) return q;
        square.product(g, step == 0 ? q : p, h);
        square.product(h, step == 0 ? q : p, g);
    }
}

// The step of Muon; scratch has muon_scratch values.
template <class T>
void muon(const MuonStep<T>& s, const MuonBlock& block, const T* gradient, T* weights, T* mean, T* average,
          T* scratch) noexcept {
    constexpr int W = width<T>;
    const int rows = block.rows, columns = block.columns, side = rows < columns ? rows : columns;
    const int length = padded_row(columns), stride = padded_row(side), vectors = (columns + W - 1) / W;
    const int64_t matrix = int64_t(padded_row(rows)) * length, square_size = int64_t(side) * stride;
    T *const x = scratch, *const result = x + matrix, *const g = result + matrix;

    // Calls f(index of the first of W entries in a vector like the weights, its index in X, number of entries).
    const auto for_entries = [&](const auto& f) {
        for (int64_t i = 0; i < rows; ++i)
            for (int k = 0; k < columns; k += W) f(int64_t(block.row[i]) + k, i * length + k, columns - k);
    };
    const auto of_weights = [&](Pack<T> v, int64_t place, int lanes) {
        if (lanes < W) v = first_lanes<T>(v, lanes);
        for (int i = 0; block.is_weight && i < W; ++i)
            if (!block.is_weight[place + i]) v[i] = T(0);
        return v;
    };
    for_entries([&](int64_t place, int64_t k, int lanes) {
        const Pack<T> change = of_weights(load(gradient + place), place, lanes) * s.adam.gradient_scale * s.gain;
        const Pack<T> momentum = without_small(fma(load(mean + place), s.momentum, change), least_momentum<T>);
        store(mean + place, momentum);
        store(x + k, fma(momentum, s.momentum, change));
    });
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) sum += sum_squares(x + i * length, vectors * W);
    const T factor = T(1 / (orthogonal_margin * sqrt(sum) + orthogonal_least));
    for_entries([&](int64_t, int64_t k, int) { store(x + k, without_small(load(x + k) * factor, least_share<T>)); });

    const Symmetric<T> square{side, stride, block.side_row};
    const auto factor_of = [&] {
        T* const buffer = g + square_size;
        return orthogonal_factor(square, g, buffer, buffer + square_size, buffer + 2 * square_size,
                                 buffer + 3 * square_size);
    };
    if (rows <= columns) {
        for (int64_t i = rows; i < stride; ++i)
            for (int k = 0; k < columns; k += W) store(x + i * length + k, Pack<T>{});
        lines_to_rows(x, length, stride, static_cast<const int*>(nullptr), nullptr, nullptr, vectors * W, result);
        square.set_diagonal(g, T(0));
        square.add_product(x, block.x_row, columns, result, g);
        const T* const q = factor_of();
        for_entries([&](int64_t, int64_t k, int) { store(result + k, Pack<T>{}); });
        tile_product(ProductArgs<T>{q, block.side_row, 0, side, x, result, length, nullptr, false}, rows, vectors);
    } else {
        square.by_blocks(g, [&](int u, int n, int v, int count) {
            T* const to = g + int64_t(u) * stride + v * W;
            data_product(DataArgs<T>{x, block.x_row, rows, u, x + v * W, to, to, stride, Gate::pass}, n, count);
        });
        const T* const q = factor_of();
        for_entries([&](int64_t, int64_t k, int) { store(result + k, Pack<T>{}); });
        tile_product(ProductArgs<T>{x, block.x_row, 0, side, q, result, length, nullptr, false}, rows, vectors);
    }
    for_entries([&](int64_t place, int64_t k, int lanes) {
        const Pack<T> update = of_weights(load(result + k), place, lanes);
        const Pack<T> w = fma(load(weights + place), s.adam.shrink, update * -s.rate);
        store(weights + place, w);
        if (average) store(average + place, load(average + place) + (w - load(average + place)) * s.adam.average_gain);
    });
}

// Sets entries that would become denormal to zero.
template <class T>
void flush(T* x, int64_t n) noexcept {
    for (int64_t i = 0; i < n; i += width<T>) store(x + i, without_small(load(x + i), least_momentum<T>));
}

}  // namespace
}  // namespace headrace
