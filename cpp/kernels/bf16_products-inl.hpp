// Products of words, added to sums by bf16_pairs-inl.hpp: of tiles (lanes are rows), of small batches (lanes are
// units), and of the backward pass. P is the number of parts (core/bf16.hpp).
#pragma once

#include "../core/views.hpp"
#include "../math/activations.hpp"
#include "bf16_pairs-inl.hpp"
#include "gradient_product-inl.hpp"
#include "register_block-inl.hpp"

namespace headrace {
namespace {

#define HR_INLINE __attribute__((always_inline))  // of a lambda whose sums are to stay in registers

// The first word of the block of a unit, and of an input of the backward pass, for a unit's first part.
template <int P>
HR_FN const uint32_t* words_at(const uint32_t* weights, int64_t offset, int unit) {
    return weights + offset * P * (2 / factor_values) + unit % bf16_units;
}

// ---- blocks of sums whose lanes are rows ----------------------------------------------------------------------------

// What a sum of a step multiplies: words of units, one by one, and lines or panels of words, a vector at a time.
struct Chain {
    int64_t unit, word;    // of the single words: from one unit and one word to the next
    int64_t vector, line;  // of the vectors: from one and one word to the next
};

// The quads [first, end) of a step, to the sums of its even and its odd inputs. UnitsAdjacent: the single words of
// adjacent units are adjacent.
template <int M, int N, bool UnitsAdjacent>
HR_FN void add_quads(V (&even)[M][N], V (&odd)[M][N], const uint32_t* single, const uint32_t* vectors, const Chain& c,
                     int first, int end) {
    const int64_t unit = UnitsAdjacent ? 1 : c.unit;
    const auto add = [&](V(&sum)[M][N], int word) HR_INLINE {
        Factor x[N];
        HR_UNROLLED
        for (int n = 0; n < N; ++n) x[n] = load_factor(vectors + word * c.line + n * c.vector);
        HR_UNROLLED
        for (int m = 0; m < M; ++m) {
            const Factor w = splat_factor(single + word * c.word + m * unit);
            HR_UNROLLED
            for (int n = 0; n < N; ++n) sum[m][n] = dot(sum[m][n], w, x[n]);
        }
    };
    for (int i = first * quad_words; i < end * quad_words; ++i) {
        add(even, even_word(i));
        add(odd, odd_word(i));
    }
}

// Sums over the values [k0, k1) of words from the first step on, whose first ones are zero: of each step and kind of
// product, put(sums, is_last). Singles: the singles are values, and the vectors weights.
template <int P, int M, int N, bool UnitsAdjacent, bool Singles, class F>
HR_FN void for_steps(const uint32_t* single, int64_t single_part, const uint32_t* vectors, int64_t vector_part,
                     const Chain& c, int k0, int k1, const F& put) {
    for (int k = k0; k < k1;) {
        const int end = (k / bf16_step + 1) * bf16_step, next = end < k1 ? end : k1;
        const int first = quads_before(k), quads = (next - 1) % bf16_step / bf16_quad + 1;
        const uint32_t* const s = single + k / bf16_step * step_words * c.word;
        const uint32_t* const v = vectors + k / bf16_step * step_words * c.line;
        for (int kind = 0; kind < bf16_kinds(P); ++kind) {
            const Kind parts = kinds<P>.all[kind];
            const uint32_t* const from = s + (Singles ? parts.value : parts.weight) * single_part;
            const uint32_t* const by = v + (Singles ? parts.weight : parts.value) * vector_part;
            V even[M][N], odd[M][N];
            for_sums<M, N>([&](int m, int n) { even[m][n] = odd[m][n] = V{}; });
            if (first == 0 && quads == bf16_step / bf16_quad) {
                add_quads<M, N, UnitsAdjacent>(even, odd, from, by, c, 0, bf16_step / bf16_quad);
            } else {
                add_quads<M, N, UnitsAdjacent>(even, odd, from, by, c, first, quads);
            }
            for_sums<M, N>([&](int m, int n) { even[m][n] += odd[m][n]; });
            put(even, next == k1 && kind + 1 == bf16_kinds(P));
        }
        k = next;
    }
}

// Sums that wait between steps stay in memory, because registers hold those of the step.
HR_FN void stay_in_memory(const void* p) {
    __asm__ volatile("" : : "r"(p) : "memory");
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

template <int P, int M, int N>
void product_block(const Bf16Product& a, const uint32_t* weights, float* y, const float* bias, int column) {
    const auto each = [&](auto&& sum_of) HR_INLINE {
        for_sums<M, N>([&](int m, int n) HR_INLINE {
            float* const place = y + m * a.stride + n * W;
            store(place, sum_of(load(place), m, n));
        });
    };
    if (a.from_zero) for_sums<M, N>([&](int m, int n) { store(y + m * a.stride + n * W, V{}); });
    const Chain c{1, P * bf16_units, W, P * a.stride};
    const auto put = [&](const V(&sum)[M][N], bool is_last) HR_INLINE {
        if (!is_last || !bias) {
            each([&](V total, int m, int n) HR_INLINE { return total + sum[m][n]; });
        } else if (a.relu) {
            each([&](V total, int m, int n) HR_INLINE { return max(total + sum[m][n] + bias[m], 0.0f); });
        } else {
            each([&](V total, int m, int n) HR_INLINE { return total + sum[m][n] + bias[m]; });
        }
        stay_in_memory(y);
    };
    for_steps<P, M, N, true, false>(weights, bf16_units, a.input + column, a.stride, c, a.k0, a.k1, put);
    if (a.k0 < a.k1) return;
    V none[M][N];
    for_sums<M, N>([&](int m, int n) { none[m][n] = V{}; });
    put(none, true);
}

template <int P>
void vector_product(const Bf16Product& a, int vectors) noexcept {
    for (int done = 0; done < a.units;) {
        const int unit = a.unit + done, rest = bf16_units - unit % bf16_units;  // of a block
        const int units = part(a.units - done < rest ? a.units - done : rest, chain_units);
        const uint32_t* const weights = words_at<P>(a.weights, a.block[unit / bf16_units], unit);
        float* const y = a.output + done * a.stride;
        const float* const bias = a.bias ? a.bias + done : nullptr;
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, chain_vectors);
            with_sizes<chain_units, chain_vectors>(
                units, n, [&]<int M, int N>() { product_block<P, M, N>(a, weights, y + v * W, bias, v * W); });
            v += n;
        }
        done += units;
    }
}

// ---- small batches: lanes are units ---------------------------------------------------------------------------------

constexpr int block_vectors_of = bf16_units / W;  // vectors of a block
constexpr int most_blocks = 4 / block_vectors_of > 0 ? 4 / block_vectors_of : 1;
constexpr int most_rows = HR_VECTOR_BYTES < 64 ? 1 : 3;

HR_FN int inputs_of(const uint32_t* block, int i) {
    return int(block[i + 1] - block[i]) / bf16_units * 2;
}

// Of W units the weights of a word.
template <int P>
HR_FN Factor unit_weights(const uint32_t* weights, int64_t word, int part) {
    return load_factor(weights + (word * P + part) * bf16_units);
}

// The sums of W units, and those of a step beside them.
template <int P>
HR_FN float* planes_of(float* row, int unit) {
    return row + unit / bf16_units * bf16_units * bf16_planes(P) + unit % bf16_units;
}

HR_FN constexpr int even_plane(int kind) {
    return (1 + 2 * kind) * bf16_units;
}
HR_FN constexpr int odd_plane(int kind) {
    return (2 + 2 * kind) * bf16_units;
}

// Inputs [k, next) of a step, to blocks from First on.
template <int P, int First, int B, int R>
HR_FN void add_to_blocks(const Bf16Sums& a, const uint32_t* const* weights, const uint32_t* x, float* sums, int k,
                         int next) {
    constexpr int Q = block_vectors_of;
    const int first = quads_before(k), end = quads_before(next - 1) + 1;
    const int64_t step = int64_t(k / bf16_step) * step_words;
    const auto each = [&](auto&& f) HR_INLINE {
        HR_UNROLLED
        for (int r = 0; r < R; ++r) {
            HR_UNROLLED
            for (int b = First; b < B; ++b) {
                HR_UNROLLED
                for (int q = 0; q < Q; ++q) f(r, b, q, sums + r * a.stride + b * bf16_planes(P) * bf16_units + q * W);
            }
        }
    };
    for (int kind = 0; kind < bf16_kinds(P); ++kind) {
        const Kind parts = kinds<P>.all[kind];
        V even[R][B][Q], odd[R][B][Q];
        each([&](int r, int b, int q, float* place) {
            even[r][b][q] = first ? load(place + even_plane(kind)) : V{};
            odd[r][b][q] = first ? load(place + odd_plane(kind)) : V{};
        });
        const uint32_t* const row = x + row_step<P>(k) + parts.value * step_words;
        const auto add = [&](V(&sum)[R][B][Q], int word) HR_INLINE {
            Factor value[R];
            HR_UNROLLED
            for (int r = 0; r < R; ++r) value[r] = splat_factor(row + r * a.stride + word);
            HR_UNROLLED
            for (int b = First; b < B; ++b) {
                HR_UNROLLED
                for (int q = 0; q < Q; ++q) {
                    const Factor w = unit_weights<P>(weights[b] + q * W, step + word, parts.weight);
                    HR_UNROLLED
                    for (int r = 0; r < R; ++r) sum[r][b][q] = dot(sum[r][b][q], w, value[r]);
                }
            }
        };
        for (int i = first * quad_words; i < end * quad_words; ++i) {
            add(even, even_word(i));
            add(odd, odd_word(i));
        }
        if (next % bf16_step == 0) {
            each(
                [&](int r, int b, int q, float* place) { store(place, load(place) + (even[r][b][q] + odd[r][b][q])); });
        } else {
            each([&](int r, int b, int q, float* place) {
                store(place + even_plane(kind), even[r][b][q]);
                store(place + odd_plane(kind), odd[r][b][q]);
            });
        }
    }
}

// Blocks are no shorter than those before: each rise adds inputs to all from First on.
template <int P, int First, int B, int R>
HR_FN void rise(const Bf16Sums& a, const uint32_t* const* weights, const uint32_t* x, float* sums, int k, int first) {
    const int length = inputs_of(a.block, first + First), end = length < a.k1 ? length : a.k1;
    while (k < end) {
        const int after = (k / bf16_step + 1) * bf16_step, next = after < end ? after : end;
        add_to_blocks<P, First, B, R>(a, weights, x, sums, k, next);
        k = next;
    }
    if constexpr (First + 1 < B) rise<P, First + 1, B, R>(a, weights, x, sums, k, first);
}

template <int P, int B, int R>
void add_blocks(const Bf16Sums& a, int first, int row) {
    const uint32_t* weights[B];
    for (int b = 0; b < B; ++b) weights[b] = words_at<P>(a.weights, a.block[first + b], 0);
    rise<P, 0, B, R>(a, weights, a.input + row * a.stride, planes_of<P>(a.sums + row * a.stride, first * bf16_units),
                     a.k0, first);
}

// Where the sums of a step start: in memory, or at zero.
alignas(64) constexpr float no_sum[W] = {};

HR_FN V sum_before(int k, const float* plane) {
    return load(k % bf16_step ? plane : no_sum);
}

// Inputs of one step, to all blocks, which have them all.
template <int P, int Quads>
void add_narrow(const Bf16Sums& a) {
    constexpr int n = Quads * quad_words;
    const int word0 = quads_before(a.k0) * 2 * quad_words;
    const int64_t step = int64_t(a.k0 / bf16_step) * step_words;
    const bool ends = a.k1 % bf16_step == 0;
    for (int r = 0; r < a.rows; ++r)
        for (int kind = 0; kind < bf16_kinds(P); ++kind) {
            const Kind parts = kinds<P>.all[kind];
            const uint32_t* const x = a.input + r * a.stride + row_step<P>(a.k0) + parts.value * step_words + word0;
            Factor value[2 * n];
            for (int i = 0; i < 2 * n; ++i) value[i] = splat_factor(x + i);
            for (int b = a.first; b < a.end; ++b) {
                const uint32_t* const weights = words_at<P>(a.weights, a.block[b], 0);
                for (int q = 0; q < bf16_units; q += W) {
                    float* const place = planes_of<P>(a.sums + r * a.stride, b * bf16_units + q);
                    V even = sum_before(a.k0, place + even_plane(kind)),
                      odd = sum_before(a.k0, place + odd_plane(kind));
                    HR_UNROLLED
                    for (int i = 0; i < n; ++i) {
                        const int64_t word = step + word0;
                        even = dot(even, unit_weights<P>(weights + q, word + even_word(i), parts.weight), value[2 * i]);
                        odd =
                            dot(odd, unit_weights<P>(weights + q, word + odd_word(i), parts.weight), value[2 * i + 1]);
                    }
                    if (ends) {
                        store(place, load(place) + (even + odd));
                    } else {
                        store(place + even_plane(kind), even);
                        store(place + odd_plane(kind), odd);
                    }
                }
            }
        }
}

constexpr int most_narrow_quads = 2;

template <int P>
void add_inputs(const Bf16Sums& a) noexcept {
    if (a.k0 >= a.k1) return;
    const int quads = (a.k1 - a.k0) / bf16_quad;
    if (quads <= most_narrow_quads && a.k0 / bf16_step == (a.k1 - 1) / bf16_step && inputs_of(a.block, a.first) >= a.k1)
        return with_sizes<most_narrow_quads, 1>(quads, 1, [&]<int Quads, int>() { add_narrow<P, Quads>(a); });
    for (int first = a.first; first < a.end;) {
        const int blocks = part(a.end - first, most_blocks);
        for (int row = 0; row < a.rows;) {
            const int rows = part(a.rows - row, most_rows);
            with_sizes<most_blocks, most_rows>(blocks, rows,
                                               [&]<int B, int R>() { add_blocks<P, B, R>(a, first, row); });
            row += rows;
        }
        first += blocks;
    }
}

// Adds inputs [k0, k1) to the sums of a vector of a row's units; returns the sums with the later inputs and the bias.
template <int P>
HR_FN V finished(const Bf16Ends& a, int k0, int64_t row, int unit) {
    constexpr int n_kinds = bf16_kinds(P);
    const uint32_t* const weights = words_at<P>(a.add.weights, a.add.block[unit / bf16_units], unit);
    const uint32_t* const x = a.add.input + row;
    const int length = inputs_of(a.add.block, unit / bf16_units);
    const int k1 = length < a.add.k1 ? length : a.add.k1, k_end = length < a.k_end ? length : a.k_end;
    float* const place = planes_of<P>(a.add.sums + row, unit);
    V total = load(place), even[n_kinds], odd[n_kinds];
    for (int kind = 0; kind < n_kinds; ++kind) {
        even[kind] = sum_before(k0, place + even_plane(kind));
        odd[kind] = sum_before(k0, place + odd_plane(kind));
    }
    const auto add = [&](int kind, int k, int next) HR_INLINE {
        const Kind parts = kinds<P>.all[kind];
        const uint32_t* const values = x + row_step<P>(k) + parts.value * step_words;
        const int64_t step = int64_t(k / bf16_step) * step_words;
        for (int i = quads_before(k) * quad_words; i < (quads_before(next - 1) + 1) * quad_words; ++i) {
            even[kind] = dot(even[kind], unit_weights<P>(weights, step + even_word(i), parts.weight),
                             splat_factor(values + even_word(i)));
            odd[kind] = dot(odd[kind], unit_weights<P>(weights, step + odd_word(i), parts.weight),
                            splat_factor(values + odd_word(i)));
        }
    };
    const auto end_step = [&]() HR_INLINE {
        for (int kind = 0; kind < n_kinds; ++kind) {
            total += even[kind] + odd[kind];
            even[kind] = odd[kind] = V{};
        }
    };
    for (int k = k0; k < k1;) {
        const int after = (k / bf16_step + 1) * bf16_step, next = after < k1 ? after : k1;
        for (int kind = 0; kind < n_kinds; ++kind) add(kind, k, next);
        if (next == after) end_step();
        k = next;
    }
    if (k0 < k1) {
        store(place, total);
        for (int kind = 0; kind < n_kinds; ++kind) {
            store(place + even_plane(kind), even[kind]);
            store(place + odd_plane(kind), odd[kind]);
        }
    }
    if (k1 < k_end)
        for (int kind = 0; kind < n_kinds; ++kind) add(kind, k1, k_end);
    end_step();
    return total + load(a.bias + unit);
}

// A vector of units of a row whose sums are complete.
template <int P, class A>
HR_FN void settle_vector(const Bf16Ends& a, int64_t row, int u, V sum) {
    const V value = A::value(sum);
    if (a.product != a.value) store(a.product + row + u, sum);
    store(a.value + row + u, value);
    if (a.words) store_values<P>(a.words + row, u, value);
}

// Terms are still added to some of a vector's units, in place.
HR_FN void settle_alone(const Bf16Ends& a, int64_t row, int u, V sum) {
    float lanes[W];
    store(lanes, sum);
    const int low = a.unit > u ? a.unit - u : 0, high = a.end - u < W ? a.end - u : W;
    if (low < high) __builtin_memcpy(a.product + row + u + low, lanes + low, (high - low) * sizeof(float));
}

// settle(row, unit, sums) for each vector of units of each row.
template <int P, class F>
HR_FN void finish_blocks(const Bf16Ends& a, int k0, const F& settle) {
    for (int r = 0; r < a.add.rows; ++r) {
        const int64_t row = r * a.add.stride;
        for (int u = a.add.first * bf16_units; u < a.add.end * bf16_units; u += W)
            settle(row, u, finished<P>(a, k0, row, u));
    }
}

constexpr int most_fused_inputs = 2 * bf16_quad;

// The arguments are not copied, because they were just written in small parts, for which a vector load would wait.
template <int P>
void finish_units(const Bf16Ends& a) noexcept {
    int k0 = a.add.k0;
    if (a.add.k1 - k0 > most_fused_inputs) {
        add_inputs<P>(a.add);
        k0 = a.add.k1;
    }
    if (a.alone) return finish_blocks<P>(a, k0, [&](int64_t row, int u, V sum) { settle_alone(a, row, u, sum); });
    with_activation(a.activation, [&]<class A>() {
        finish_blocks<P>(a, k0, [&](int64_t row, int u, V sum) { settle_vector<P, A>(a, row, u, sum); });
    });
}

// ---- back -----------------------------------------------------------------------------------------------------------

// Sums that start at zero, and wait in memory between steps.
template <int M, int N>
struct Totals {
    alignas(64) float lanes[M][N][W];
    HR_FN Totals() {
        for_sums<M, N>([&](int m, int n) { store(lanes[m][n], V{}); });
    }
    HR_FN void add(const V (&sum)[M][N]) {
        for_sums<M, N>([&](int m, int n) { store(lanes[m][n], load(lanes[m][n]) + sum[m][n]); });
        stay_in_memory(this);
    }
};

template <int P, int M, int N>
void column_block(const Bf16Columns& a, const uint32_t* weights, int64_t line, int lane) {
    Totals<M, N> total;
    const Chain c{1, P * bf16_units, W, P * a.stride};
    for_steps<P, M, N, true, false>(weights, bf16_units, a.grad + lane, a.stride, c, a.unit0, a.unit1,
                                    [&](const V(&sum)[M][N], bool) HR_INLINE { total.add(sum); });
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            const int64_t place = (line + m) * a.stride + lane + n * W;
            store_gated(a.kind, load(total.lanes[m][n]), a.output + place, a.gate + place);
        }
}

template <int P>
void column_product(const Bf16Columns& a, int vectors) noexcept {
    for (int done = 0; done < a.columns;) {
        const int k = a.column + done, rest = bf16_units - k % bf16_units;
        const int columns = part(a.columns - done < rest ? a.columns - done : rest, chain_units);
        const uint32_t* const weights = words_at<P>(a.weights, a.back[k / bf16_units], k);
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, chain_vectors);
            with_sizes<chain_units, chain_vectors>(
                columns, n, [&]<int M, int N>() { column_block<P, M, N>(a, weights, done, v * W); });
            v += n;
        }
        done += columns;
    }
}

template <int P, int M, int N>
void weight_block(const Bf16Weights& a) {
    Totals<M, N> total;
    for (int m = 0; m < M; ++m)  // they lie beyond L2, and are due once the sums are done
        for (int n = 0; n < N; ++n) __builtin_prefetch(a.output + a.row[m] + a.input + n * W, 1);
    const int64_t words = a.height / factor_values;
    const Chain c{P * words, 1, words * P * W, P * W};
    const uint32_t *grad = a.grad, *x = a.panels;
    for (int left = a.rows; left > 0; left -= a.height, grad += a.size, x += a.size)
        for_steps<P, M, N, false, true>(grad, words, x, W, c, 0, left < a.height ? left : a.height,
                                        [&](const V(&sum)[M][N], bool) HR_INLINE { total.add(sum); });
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            float* p = a.output + a.row[m] + a.input + n * W;
            const V sum = load(total.lanes[m][n]);
            store(p, a.add ? load(p) + sum : sum);
        }
}

template <int P>
void vector_weight_product(const Bf16Weights& a, int units, int vectors) noexcept {
    const int64_t words = a.height / factor_values;
    for (int u = 0; u < units;) {
        const int m = part(units - u, chain_units);
        Bf16Weights b = a;
        b.grad += u * P * words;
        b.row += u;
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, chain_vectors);
            with_sizes<chain_units, chain_vectors>(m, n, [&]<int M, int N>() { weight_block<P, M, N>(b); });
            b.panels += n * P * words * W;
            b.input += n * W;
            v += n;
        }
        u += m;
    }
}

}  // namespace
}  // namespace headrace
