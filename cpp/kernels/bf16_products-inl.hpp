// Products of words, added to sums in one of the orders of bf16_orders-inl.hpp: for tiles (lanes are rows), for small
// batches (lanes are units), and for the backward pass. O is the order, P the number of parts (core/bf16.hpp).
#pragma once

#include "../core/views.hpp"
#include "../math/activations.hpp"
#include "bf16_orders-inl.hpp"
#include "gradient_product-inl.hpp"

namespace headrace {
namespace {

// The first word of the first part of a unit's weights in its block, or in the backward pass of an input's weights.
template <class Format, int P>
HR_FN const uint32_t* words_at(const uint32_t* weights, int64_t offset, int unit) {
    return weights + offset * P * (2 / Format::values) + unit % bf16_units;
}

// Calls f<M, N>(unit, vector) for blocks of registers of M units by N vectors.
template <class O, int P, class F>
HR_FN void for_blocks(int units, int vectors, const F& f) {
    for (int u = 0; u < units;) {
        const int m = part(units - u, O::units);
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, O::template vectors<P>);
            with_sizes<O::units, O::template vectors<P>>(m, n,
                                                         [&]<int M, int N>() { f.template operator()<M, N>(u, v); });
            v += n;
        }
        u += m;
    }
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

// InOne: the units' weights are in one block, so that one register holds the address of all weights.
template <class O, int P, int M, int N, bool InOne>
HR_FN void product_of_units(const Bf16Product& a, int done, int column) {
    const uint32_t* weights[M];
    for (int m = 0; m < M; ++m) {
        const unsigned unit = unsigned(a.unit + done + m), block = unit / bf16_units;
        weights[m] =
            InOne && m > 0 ? weights[0] + m : words_at<typename O::Format, P>(a.weights, a.block[block], int(unit));
    }
    float* const y = a.output + done * a.stride + column;
    float* const waiting = a.waiting ? a.waiting + 2 * done * a.stride + column : nullptr;
    const float* const bias = a.bias ? a.bias + done : nullptr;
    const Chain c{P * bf16_units, bf16_units, W, P * a.stride, a.stride};
    typename O::template Block<P, M, N> sum;
    for_sums<M, N>([&](int m, int n)
                       HR_INLINE { sum.total[m][n] = a.from_zero ? V{} : load(y + m * a.stride + n * W); });
    sum.resume(a.k0 % O::step ? waiting : nullptr, a.stride);
    sum.template add<false>(weights, a.input + column, c, a.k0, a.k1, bias != nullptr);
    if (!bias && a.k1 % O::step) sum.wait(waiting, a.stride);
    for_sums<M, N>([&](int m, int n) HR_INLINE {
        V x = sum.total[m][n];
        if (bias) x += bias[m];
        if (a.relu) x = max(x, 0.0f);
        store(y + m * a.stride + n * W, x);
    });
}

template <class O, int P, int M, int N>
void product_block(const Bf16Product& a, int done, int column) {
    if (P == 1 && unsigned(a.unit + done) % bf16_units + M <= bf16_units)
        return product_of_units<O, P, M, N, true>(a, done, column);
    product_of_units<O, P, M, N, false>(a, done, column);
}

template <class O, int P>
void vector_product(const Bf16Product& a, int vectors) noexcept {
    for_blocks<O, P>(a.units, vectors, [&]<int M, int N>(int u, int v) { product_block<O, P, M, N>(a, u, v * W); });
}

// ---- small batches: lanes are units ---------------------------------------------------------------------------------

constexpr int block_vectors_of = bf16_units / W;  // number of vectors of a block
template <class O, int P>
constexpr int most_blocks = O::waits && P > 1 ? 1 : (O::most_vectors + block_vectors_of - 1) / block_vectors_of;

// The number of inputs of a block, padded to steps.
HR_FN int inputs_of(const Bf16Sums& a, int i) {
    return int(a.block[i + 1] - a.block[i]) / bf16_units * 2;
}

HR_FN int lesser(int a, int b) {
    return a < b ? a : b;
}

// The sums of W units of a row.
template <class O, int P>
HR_FN float* sums_of(float* row, int unit) {
    return row + unit / bf16_units * bf16_units * O::template planes<P> + unit % bf16_units;
}

// Adds inputs up to the end of block First to the sums of all blocks from First on, then further inputs to later
// blocks. No block is shorter than the blocks before it.
template <class O, int P, int First, int B, int R>
HR_FN void rise(const Bf16Sums& a, const uint32_t* const* weights, const int (&length)[B], const uint32_t* x,
                typename O::template Sums<P> (&sum)[R][B][block_vectors_of], float* sums, int j) {
    constexpr int Q = block_vectors_of;
    for (const int end = lesser(length[First], a.k1) / O::quad; j < end; ++j) {
        for (int b = First; b < B; ++b)
            for (int q = 0; q < Q; ++q)
                for (int r = 0; r < R; ++r)
                    sum[r][b][q].add(weights[b] + q * W, j, O::template values<P>(x + r * a.stride, j));
        if (O::ends_step((j + 1) * O::quad))
            for (int r = 0; r < R; ++r)
                for (int b = First; b < B; ++b)
                    for (int q = 0; q < Q; ++q)
                        sum[r][b][q].end_step(sums_of<O, P>(sums + r * a.stride, b * bf16_units + q * W));
    }
    if constexpr (First + 1 < B) rise<O, P, First + 1, B, R>(a, weights, length, x, sum, sums, j);
}

template <class O, int P, int B, int R>
void add_blocks(const Bf16Sums& a, int first, int row) {
    constexpr int Q = block_vectors_of;
    typename O::template Sums<P> sum[R][B][Q];
    const uint32_t* weights[B];
    int length[B];
    for (int b = 0; b < B; ++b) {
        weights[b] = words_at<typename O::RowFormat, P>(a.weights, a.block[first + b], 0);
        length[b] = inputs_of(a, first + b);
    }
    float* const sums = sums_of<O, P>(a.sums + row * a.stride, first * bf16_units);
    const auto each = [&](auto&& f) HR_INLINE {
        for (int r = 0; r < R; ++r)
            for (int b = 0; b < B; ++b)
                for (int q = 0; q < Q; ++q)
                    f(sum[r][b][q], sums_of<O, P>(sums + r * a.stride, b * bf16_units + q * W), b);
    };
    each([&](auto& one, float* place, int) HR_INLINE { one.load_from(place, a.k0); });
    rise<O, P, 0, B, R>(a, weights, length, a.input + row * a.stride, sum, sums, a.k0 / O::quad);
    each([&](auto& one, float* place, int b) HR_INLINE { one.store_to(place, lesser(length[b], a.k1)); });
}

// Adds N quads of one step to all blocks, each of which reads these quads.
template <class O, int P, int N>
void add_narrow(const Bf16Sums& a) {
    const int64_t j0 = a.k0 / O::quad;
    for (int r = 0; r < a.rows; ++r) {
        typename O::template Values<P> x[N];
        for (int j = 0; j < N; ++j) x[j] = O::template values<P>(a.input + r * a.stride, j0 + j);
        for (int b = a.first; b < a.end; ++b) {
            const uint32_t* const weights = words_at<typename O::RowFormat, P>(a.weights, a.block[b], 0);
            for (int q = 0; q < bf16_units; q += W) {
                float* const place = sums_of<O, P>(a.sums + r * a.stride, b * bf16_units + q);
                typename O::template Sums<P> sum;
                sum.load_from(place, a.k0);
                for (int j = 0; j < N; ++j) sum.add(weights + q, j0 + j, x[j]);
                if (O::ends_step(a.k1)) sum.end_step(place);
                sum.store_to(place, a.k1);
            }
        }
    }
}

template <class O, int P>
void add_inputs(const Bf16Sums& a) noexcept {
    if (a.k0 >= a.k1) return;
    const int quads = (a.k1 - a.k0) / O::quad;
    const bool in_a_step = !O::waits || a.k0 / bf16_step == (a.k1 - 1) / bf16_step;
    if (quads <= O::most_narrow && in_a_step && inputs_of(a, a.first) >= a.k1)  // the contribution of a small level
        return with_sizes<O::most_narrow, 1>(quads, 1, [&]<int N, int>() { add_narrow<O, P, N>(a); });
    constexpr int blocks = most_blocks<O, P>, rows = O::template most_rows<P>;
    for (int first = a.first; first < a.end;) {
        const int some = part(a.end - first, blocks);
        for (int row = 0; row < a.rows;) {
            const int few = part(a.rows - row, rows);
            with_sizes<blocks, rows>(some, few, [&]<int B, int R>() { add_blocks<O, P, B, R>(a, first, row); });
            row += few;
        }
        first += some;
    }
}

// Adds inputs [k0, k1), later inputs and the bias to the sums of a vector of a row's units, and returns the result.
template <class O, int P>
HR_FN V finished(const Bf16Ends& a, int k0, int64_t row, int unit) {
    const uint32_t* const weights =
        words_at<typename O::RowFormat, P>(a.add.weights, a.add.block[unit / bf16_units], unit);
    const uint32_t* const x = a.add.input + row;
    const int length = inputs_of(a.add, unit / bf16_units), k1 = lesser(length, a.add.k1);
    float* const place = sums_of<O, P>(a.add.sums + row, unit);
    typename O::template Sums<P> sum;
    sum.load_from(place, k0 < length ? k0 : 0);  // no sum waits after the last step of a block
    for (int64_t j = k0 / O::quad; j < k1 / O::quad; ++j) {
        sum.add(weights, j, O::template values<P>(x, j));
        if (O::ends_step(int(j + 1) * O::quad)) sum.end_step(place);
    }
    if (k0 < k1) sum.store_to(place, k1);
    for (int64_t j = a.add.k1 / O::quad; j * O::quad < lesser(length, a.k_end); ++j)
        sum.add(weights, j, O::template values<P>(x, j));
    return sum.finished(place) + load(a.bias + unit);
}

// Finishes a vector of units of a row whose sums are complete.
template <class O, int P, class A>
HR_FN void settle_vector(const Bf16Ends& a, int64_t row, int u, V sum) {
    const V value = A::value(sum);
    if (a.product != a.value) store(a.product + row + u, sum);
    store(a.value + row + u, value);
    if (a.words) store_values<typename O::RowFormat, P>(a.words + row + row_place<typename O::RowFormat, P>(u), value);
}

// Finishes units one by one, where terms must still be added in place to other units of the vector.
HR_FN void settle_alone(const Bf16Ends& a, int64_t row, int u, V sum) {
    float lanes[W];
    store(lanes, sum);
    const int low = a.unit > u ? a.unit - u : 0, high = a.end - u < W ? a.end - u : W;
    if (low < high) __builtin_memcpy(a.product + row + u + low, lanes + low, (high - low) * sizeof(float));
}

// Calls settle(row, unit, sums) for each vector of units of each row.
template <class O, int P, class F>
HR_FN void finish_blocks(const Bf16Ends& a, int k0, const F& settle) {
    for (int r = 0; r < a.add.rows; ++r) {
        const int64_t row = r * a.add.stride;
        int u = a.unit / W * W;
        for (; u < a.end; u += W) settle(row, u, finished<O, P>(a, k0, row, u));
        for (; u < a.add.end * bf16_units; u += W) finished<O, P>(a, k0, row, u);
    }
}

// Finishes units. The arguments are not copied, because they have just been written in small parts, for which a vector
// load would wait.
template <class O, int P>
void finish_units(const Bf16Ends& a) noexcept {
    int k0 = a.add.k0;
    if (a.add.k1 - k0 > O::most_narrow * O::quad) {
        add_inputs<O, P>(a.add);
        k0 = a.add.k1;
    }
    if (a.alone) return finish_blocks<O, P>(a, k0, [&](int64_t row, int u, V sum) { settle_alone(a, row, u, sum); });
    with_activation(a.activation, [&]<class A>() {
        finish_blocks<O, P>(a, k0, [&](int64_t row, int u, V sum) { settle_vector<O, P, A>(a, row, u, sum); });
    });
}

// ---- back -----------------------------------------------------------------------------------------------------------

template <class O, int P, int M, int N>
void column_block(const Bf16Columns& a, int line, int lane) {
    const uint32_t* weights[M];
    for (int m = 0; m < M; ++m) {
        const int k = a.column + line + m;
        weights[m] = words_at<typename O::Format, P>(a.weights, a.back[k / bf16_units], k);
    }
    const Chain c{P * bf16_units, bf16_units, W, P * a.stride, a.stride};
    typename O::template Block<P, M, N> sum = {};
    sum.template add<false>(weights, a.grad + lane, c, a.unit0, a.unit1, true);
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            const int64_t place = int64_t(line + m) * a.stride + lane + n * W;
            store_gated(a.kind, sum.total[m][n], a.output + place, a.gate + place);
        }
}

template <class O, int P>
void column_product(const Bf16Columns& a, int vectors) noexcept {
    for_blocks<O, P>(a.columns, vectors, [&]<int M, int N>(int u, int v) { column_block<O, P, M, N>(a, u, v * W); });
}

template <class O, int P, int M, int N>
void weight_block(const Bf16Weights& a, int unit, int vector) {
    const int64_t words = a.height / O::Format::values;
    const uint32_t *grad[M], *x = a.panels + vector * P * words * W;
    float* output[M];
    for (int m = 0; m < M; ++m) {
        grad[m] = a.grad + (unit + m) * P * words;
        output[m] = a.output + a.row[unit + m] + a.input + vector * W;
        // Outputs are prefetched, because they are not in L2 and are needed after the sums.
        for (int n = 0; n < N; ++n) __builtin_prefetch(output[m] + n * W, 1);
    }
    const Chain c{1, words, words * P * W, P * W, W};
    typename O::template Block<P, M, N> sum = {};
    for (int left = a.rows; left > 0; left -= a.height, x += a.size) {
        sum.template add<true>(grad, x, c, 0, lesser(left, a.height), true);
        for (int m = 0; m < M; ++m) grad[m] += a.size;
    }
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            float* const p = output[m] + n * W;
            store(p, a.add ? load(p) + sum.total[m][n] : sum.total[m][n]);
        }
}

template <class O, int P>
void vector_weight_product(const Bf16Weights& a, int units, int vectors) noexcept {
    for_blocks<O, P>(units, vectors, [&]<int M, int N>(int u, int v) { weight_block<O, P, M, N>(a, u, v); });
}

}  // namespace
}  // namespace headrace
