// Products of pairs by AMX: tiles of 16 x 16 sums, to which TDPBF16PS adds 16 pairs of each at once. P is the number of
// parts (core/bf16.hpp). The tests compile this file with a software version of the instructions, too
// (tests/amx_emulation).
//
// A sum takes its pairs in another order than by VDPBF16PS: of 16 of them the even products from zero, the odd ones
// from zero, both added, and this to the sum; of several parts the smallest products first. Its bits differ from
// VDPBF16PS's, but again one sum has one order in every kernel: 16 pairs are a step, steps are those of the layer, and
// zeros change nothing.
#pragma once

#include "bf16_products-inl.hpp"
#include "bf16_rounding-inl.hpp"

#ifdef HR_TILE_EMULATION
#include <amx_emulation.hpp>
#else
#include <immintrin.h>
#endif

namespace headrace {
namespace {

static_assert(W == 16);
constexpr int tile_step = 16;               // pairs of a step
constexpr int tile_words = 16 * tile_step;  // of a step of 16 units, or inputs, for one part

// ---- the registers --------------------------------------------------------------------------------------------------

// Number of adjacent sums, whose tiles are 0, 1, ...; then come those of the left factor's parts, and the right one's.
template <int P>
constexpr int tile_columns = P == 1   ? 4
                             : P == 2 ? 3
                                      : 2;
template <int P>
constexpr int left_tile = P == 3 ? 2 : 4;
template <int P>
constexpr int right_tile = P == 3   ? 5
                           : P == 2 ? 6
                                    : 5;

#define HR_EACH_TILE(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7)

// The intrinsics do not declare the memory that they read.
HR_FN void settle_memory(const void* p) {
    __asm__ volatile("" : : "r"(p) : "memory");
}

template <int I>
HR_FN void load_tile(const void* p, int64_t stride) {
    settle_memory(p);
#define HR_TILE(i) \
    if constexpr (I == i) _tile_loadd(i, p, stride);
    HR_EACH_TILE(HR_TILE)
#undef HR_TILE
}

template <int I>
HR_FN void store_tile(void* p, int64_t stride) {
#define HR_TILE(i) \
    if constexpr (I == i) _tile_stored(i, p, stride);
    HR_EACH_TILE(HR_TILE)
#undef HR_TILE
    settle_memory(p);
}

template <int I>
HR_FN void clear_tile() {
#define HR_TILE(i) \
    if constexpr (I == i) _tile_zero(i);
    HR_EACH_TILE(HR_TILE)
#undef HR_TILE
}

template <int C, int A, int B>
HR_FN void multiply_tiles() {
    static_assert(C < 4 && 2 <= A && A < 6 && 5 <= B && B < 8 && C != A && A != B, "of this product there is no case");
#define HR_PRODUCT(c, a, b) \
    if constexpr (C == c && A == a && B == b) _tile_dpbf16ps(c, a, b);
#define HR_RIGHT(c, a) HR_PRODUCT(c, a, 5) HR_PRODUCT(c, a, 6) HR_PRODUCT(c, a, 7)
#define HR_LEFT(c) HR_RIGHT(c, 4) HR_PRODUCT(c, 5, 6) HR_PRODUCT(c, 5, 7)
    // Three distinct tiles each: Clang checks that in the branches that are discarded, too.
    HR_LEFT(0)
    HR_LEFT(1)
    HR_LEFT(2) HR_LEFT(3) HR_RIGHT(0, 2) HR_RIGHT(0, 3) HR_RIGHT(1, 2) HR_RIGHT(1, 3) HR_RIGHT(2, 3) HR_RIGHT(3, 2)
#undef HR_LEFT
#undef HR_RIGHT
#undef HR_PRODUCT
}

#undef HR_EACH_TILE

// Calls the body for I = Begin, ..., End - 1.
template <int Begin, int End, class F>
HR_FN void each(const F& f) {
    if constexpr (Begin < End) {
        f.template operator()<Begin>();
        each<Begin + 1, End>(f);
    }
}

// Configures tiles for this number of lines of sums during its lifetime. Other users in the thread may use them in
// between, so nothing is kept.
template <int P>
class TileRegisters {
  public:
    HR_FN explicit TileRegisters(int lines) {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t bytes[16] = {};
            uint8_t lines[16] = {};
        } shape;
        for (int i = 0; i < 8; ++i) {
            shape.bytes[i] = 64;
            shape.lines[i] = uint8_t(i < right_tile<P> ? lines : tile_step);
        }
        settle_memory(&shape);
        _tile_loadconfig(&shape);
    }
    HR_FN ~TileRegisters() { _tile_release(); }
    TileRegisters(const TileRegisters&) = delete;
    TileRegisters& operator=(const TileRegisters&) = delete;
};

// ---- a product ------------------------------------------------------------------------------------------------------

// A factor in memory, in words: the left one [line][pair], the right one [pair][column].
struct TileFactor {
    const uint32_t* at;
    int64_t line;  // from one line to the next
    int64_t part;  // from one part to the next
    int64_t step;  // from one step to the next
};

// N adjacent tiles of sums in memory, in values.
struct TileSums {
    float* at;
    int64_t line, column;
};

template <int N>
HR_FN void load_sums(const TileSums& sums) {
    each<0, N>([&]<int I>() { load_tile<I>(sums.at + I * sums.column, sums.line * 4); });
}

template <int N>
HR_FN void clear_sums() {
    each<0, N>([]<int I>() { clear_tile<I>(); });
}

template <int N>
HR_FN void store_sums(const TileSums& sums) {
    each<0, N>([&]<int I>() { store_tile<I>(sums.at + I * sums.column, sums.line * 4); });
}

// Adds `steps` products to the sums; right factors are `column` words apart. The factor that holds weights determines
// which of two products of the same size is the first one.
template <int P, int N, bool LeftWeights>
HR_FN void add_steps(TileFactor left, TileFactor right, int64_t column, int steps) {
    constexpr int A = left_tile<P>, B = right_tile<P>;
    for (int s = 0; s < steps; ++s, left.at += left.step, right.at += right.step) {
        each<0, P>([&]<int I>() { load_tile<A + I>(left.at + I * left.part, left.line * 4); });
        each<0, N>([&]<int C>() {
            const uint32_t* const at = right.at + C * column;
            each<0, P>([&]<int I>() { load_tile<B + I>(at + I * right.part, right.line * 4); });
            each<0, P>([&]<int K>() {
                constexpr int order = P - 1 - K;  // smaller products first
                each<0, order + 1>([&]<int I>() {
                    constexpr int J = order - I;
                    multiply_tiles<C, A + (LeftWeights ? J : I), B + (LeftWeights ? I : J)>();
                });
            });
        });
    }
}

// ---- forth ----------------------------------------------------------------------------------------------------------

// A block's weights lie step by step, in each [pair][part][unit] and then [part][unit][pair].
template <int P>
constexpr int step_words = 2 * P * tile_words;

template <int P>
HR_FN const uint32_t* block_weights(const uint32_t* weights, const uint32_t* block, int i, int pair) {
    return weights + 2 * P * int64_t(block[i]) + int64_t(pair) / tile_step * step_words<P>;
}

HR_FN void finish_lines(const Bf16Product& a, int unit, int units, int vectors) {
    if (!a.bias) return;
    for (int m = unit; m < unit + units; ++m)
        for (int64_t i = 0; i < int64_t(vectors) * W; i += W) {
            float* const place = a.output + m * a.stride + i;
            V sum = load(place) + a.bias[m];
            if (a.relu) sum = max(sum, 0.0f);
            store(place, sum);
        }
}

template <int P>
void tile_pair_product(const Bf16Product& a, int vectors) noexcept {
    const int steps = (a.pair1 - a.pair0) / tile_step;
    for (int done = 0; done < a.units;) {
        const int unit = a.unit + done, first = unit % bf16_units;
        const int units = a.units - done < bf16_units - first ? a.units - done : bf16_units - first;
        const uint32_t* const weights = block_weights<P>(a.weights, a.block, unit / bf16_units, a.pair0);
        const TileFactor left{weights + P * tile_words + first * tile_step, tile_step, tile_words, step_words<P>};
        const TileRegisters<P> registers(units);
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, tile_columns<P>);
            const TileFactor right{a.input + int64_t(a.pair0) * P * a.stride + v * W, P * a.stride, a.stride,
                                   tile_step * P * a.stride};
            const TileSums sums{a.output + done * a.stride + v * W, a.stride, W};
            with_sizes<tile_columns<P>, 1>(n, 1, [&]<int N, int>() {
                if (a.from_zero) {
                    clear_sums<N>();
                } else {
                    load_sums<N>(sums);
                }
                add_steps<P, N, true>(left, right, W, steps);
                store_sums<N>(sums);
            });
            v += n;
        }
        finish_lines(a, done, units, vectors);
        done += units;
    }
}

// The rows of a small batch are the left factor.
template <int P>
HR_FN void add_block(const Bf16Sums& a, int i, int pair0, int pair1) {
    const int length = pairs_of(a.block, i), end = length < pair1 ? length : pair1;
    const TileFactor left{a.input + int64_t(pair0) * P, a.stride, pair_group, P * pair_group};
    const TileFactor right{block_weights<P>(a.weights, a.block, i, pair0), P * bf16_units, bf16_units, step_words<P>};
    if (pair0 < end) add_steps<P, 1, false>(left, right, 0, (end - pair0) / tile_step);
}

template <int P>
void tile_add_pairs(const Bf16Sums& a) noexcept {
    if (a.pair1 <= a.pair0) return;
    const TileRegisters<P> registers(a.rows);
    for (int i = a.first; i < a.end; ++i) {
        const TileSums sums{a.sums + i * bf16_units, a.stride, 0};
        load_sums<1>(sums);
        add_block<P>(a, i, a.pair0, a.pair1);
        store_sums<1>(sums);
    }
}

template <int P>
void tile_finish_units(const Bf16Ends& a) noexcept {
    for (int i = a.add.first; i < a.add.end; ++i) {
        float lanes[small_batch][W];
        {
            const TileRegisters<P> registers(a.add.rows);
            const TileSums sums{a.add.sums + i * bf16_units, a.add.stride, 0};
            load_sums<1>(sums);
            if (a.add.pair0 < a.add.pair1) {
                add_block<P>(a.add, i, a.add.pair0, a.add.pair1);
                store_sums<1>(sums);
            }
            add_block<P>(a.add, i, a.add.pair1, a.pair_end);
            store_sums<1>({lanes[0], W, 0});
        }
        const int u = i * bf16_units;
        const auto finish = [&](auto&& with) {
            for (int r = 0; r < a.add.rows; ++r) with(r * a.add.stride, load(lanes[r]) + load(a.bias + u));
        };
        if (a.alone) {
            finish([&](int64_t row, V sum) { settle_alone(a, row, u, sum); });
        } else {
            with_activation(a.activation, [&]<class A>() {
                finish([&](int64_t row, V sum) { settle_vector<P, A>(a, row, u, sum); });
            });
        }
    }
}

// ---- back -----------------------------------------------------------------------------------------------------------

// A block's weights lie step by step, in each [part][input][pair of units].
template <int P>
void tile_column_product(const Bf16Columns& a, int vectors) noexcept {
    const int steps = (a.pair1 - a.pair0) / tile_step;
    for (int done = 0; done < a.columns;) {
        const int k = a.column + done, first = k % bf16_units;
        const int columns = a.columns - done < bf16_units - first ? a.columns - done : bf16_units - first;
        const uint32_t* const weights = a.weights + P * (a.back[k / bf16_units] + int64_t(a.pair0) * bf16_units);
        const TileFactor left{weights + first * tile_step, tile_step, tile_words, P * tile_words};
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, tile_columns<P>);
            const TileFactor right{a.grad + int64_t(a.pair0) * P * a.stride + v * W, P * a.stride, a.stride,
                                   tile_step * P * a.stride};
            float lanes[bf16_units][tile_columns<P>][W];
            {
                const TileRegisters<P> registers(columns);
                with_sizes<tile_columns<P>, 1>(n, 1, [&]<int N, int>() {
                    clear_sums<N>();
                    add_steps<P, N, true>(left, right, W, steps);
                    store_sums<N>({lanes[0][0], tile_columns<P> * W, W});
                });
            }
            for (int m = 0; m < columns; ++m)
                for (int i = 0; i < n; ++i) {
                    const int64_t place = (done + m) * a.stride + (v + i) * W;
                    store_gated(a.kind, load(lanes[m][i]), a.output + place, a.gate + place);
                }
            v += n;
        }
        done += columns;
    }
}

template <int P>
void tile_weight_product(const Bf16Weights& a, int units, int vectors) noexcept {
    const int64_t half = a.height / 2;
    for (int v = 0; v < vectors;) {
        const int n = part(vectors - v, tile_columns<P>);
        float lanes[row_block][tile_columns<P>][W];
        {
            const TileRegisters<P> registers(units);
            with_sizes<tile_columns<P>, 1>(n, 1, [&]<int N, int>() {
                clear_sums<N>();
                TileFactor left{a.grad, P * half, half, tile_step};
                TileFactor right{a.panels + v * half * P * W, P * W, W, tile_step * P * W};
                for (int rows = a.rows; rows > 0; rows -= a.height, left.at += a.size, right.at += a.size) {
                    const int some = rows < a.height ? rows : a.height;
                    add_steps<P, N, false>(left, right, half * P * W, (some + 2 * tile_step - 1) / (2 * tile_step));
                }
                store_sums<N>({lanes[0][0], tile_columns<P> * W, W});
            });
        }
        for (int m = 0; m < units; ++m)
            for (int i = 0; i < n; ++i) {
                float* const p = a.output + a.row[m] + a.input + (v + i) * W;
                const V sum = load(lanes[m][i]);
                store(p, a.add ? load(p) + sum : sum);
            }
        v += n;
    }
}

// ---- weights --------------------------------------------------------------------------------------------------------

template <int P>
void round_weight_tiles(const Bf16Layer& a, uint32_t* pairs) noexcept {
    for (int b = 0; b * bf16_units < a.out; ++b) {
        const int length = pairs_of(a.block, b);
        for (int j = 0; j < length; j += tile_step) {
            uint32_t* const step = pairs + 2 * P * int64_t(a.block[b]) + int64_t(j) / tile_step * step_words<P>;
            Pairs v[P][W];
            across<P>(
                [&](int i, Pairs(&parts)[P]) {
                    unit_pairs<P>(a, b * bf16_units + i, j, parts);
                    for (int p = 0; p < P; ++p)
                        store_pairs(step + P * tile_words + p * tile_words + i * tile_step, parts[p]);
                },
                v);
            for (int p = 0; p < P; ++p)
                for (int i = 0; i < W; ++i) store_pairs(step + (i * P + p) * bf16_units, v[p][i]);
        }
    }
}

template <int P>
void round_column_tiles(const Bf16Layer& a, uint32_t* pairs) noexcept {
    int first = 0;
    for (int k = 0; k < a.in; k += bf16_units) {
        while (first < a.out && a.visible[first] <= k) ++first;
        for (int64_t j = first / (2 * tile_step) * tile_step; 2 * j < a.out; j += tile_step) {
            uint32_t* const step = pairs + P * (a.back[k / bf16_units] + j * bf16_units);
            Pairs v[P][W];
            across<P>([&](int i, Pairs(&parts)[P]) { column_pairs<P>(a, int(2 * (j + i)), k, parts); }, v);
            for (int p = 0; p < P; ++p)
                for (int i = 0; i < W; ++i) store_pairs(step + p * tile_words + i * tile_step, v[p][i]);
        }
    }
}

}  // namespace
}  // namespace headrace
