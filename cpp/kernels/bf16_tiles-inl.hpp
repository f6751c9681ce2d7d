// Products of tiles of rows by AMX, whose instruction TDPBF16PS adds a step of each of 16 x 16 sums at once. P is the
// number of parts (core/bf16.hpp). Tests also compile this file with a software version of the instructions
// (tests/amx_emulation). Small batches use vectors, whose results have the same bits.
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
constexpr int tile_step = bf16_step / 2;    // number of words of a step
constexpr int tile_words = 16 * tile_step;  // number of words of a step of 16 units, or inputs, for one part
constexpr int tile_units = 32;              // units, or inputs, of an op in the backward pass, all with the same first
                                            // step

// ---- the registers --------------------------------------------------------------------------------------------------

// The first tiles hold the sums of a block: 2 x 2 or 1 x 4 for one part, and 1 x row_tiles for more parts. The next
// tiles hold the left factor, and the last tiles the right factor.
template <int P>
constexpr int unit_tiles = P == 1 ? 2 : 1;
template <int P>
constexpr int row_tiles = P == 2 ? 3 : 2;
template <int P>
constexpr int left_tile = P == 3 ? 2 : 4;
template <int P>
constexpr int right_tile = P == 3 ? 5 : 6;

#define HR_EACH_TILE(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7)

// Keeps the compiler from moving writes of memory past tile instructions, whose intrinsics do not declare their reads.
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
    // Each instruction names three distinct tiles, which Clang checks also in discarded branches.
    HR_LEFT(0)
    HR_LEFT(1)
    HR_LEFT(2) HR_LEFT(3) HR_RIGHT(0, 2) HR_RIGHT(0, 3) HR_RIGHT(1, 2) HR_RIGHT(1, 3) HR_RIGHT(2, 3) HR_RIGHT(3, 2)
#undef HR_LEFT
#undef HR_RIGHT
#undef HR_PRODUCT
}

#undef HR_EACH_TILE

// Calls f for I = Begin, ..., End - 1.
template <int Begin, int End, class F>
HR_FN void each(const F& f) {
    if constexpr (Begin < End) {
        f.template operator()<Begin>();
        each<Begin + 1, End>(f);
    }
}

// Configures all tiles as 16 lines of 16 words while a thread computes tiles of rows; lines that no unit needs are
// computed, too. The configuration is not kept between calls, because other code of the thread may configure the tiles.
inline void begin_tiles() noexcept {
    struct alignas(64) {
        uint8_t palette = 1, start = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t lines[16] = {};
    } shape;
    for (int i = 0; i < 8; ++i) {
        shape.bytes[i] = 64;
        shape.lines[i] = 16;
    }
    settle_memory(&shape);
    _tile_loadconfig(&shape);
}

inline void end_tiles() noexcept {
    _tile_release();
}

// ---- a product ------------------------------------------------------------------------------------------------------

// A factor in memory, in words: a left factor [line][word], or a right factor [word][column].
struct TileFactor {
    const uint32_t* at;
    int64_t line;  // distance of lines
    int64_t part;  // distance of parts
    int64_t step;  // distance of steps
};

// Calls f<C>(c) for each tile of sums of R blocks by N columns.
template <int R, int N, class F>
HR_FN void each_sum(const F& f) {
    each<0, R>([&]<int I>() { each<0, N>([&]<int C>() { f.template operator()<(R == 2 ? 2 * I : 0) + C>(I, C); }); });
}

// The sums of a block on the stack: [block][line][column][lane].
template <int R, int N>
struct alignas(64) TileSums {
    float at[R * 16][N * 16];

    HR_FN void load_from() {
        each_sum<R, N>([&]<int C>(int i, int c) { load_tile<C>(&at[i * 16][c * 16], sizeof at[0]); });
    }
    HR_FN void clear() {
        each_sum<R, N>([]<int C>(int, int) { clear_tile<C>(); });
    }
    HR_FN void store_to() {
        each_sum<R, N>([&]<int C>(int i, int c) { store_tile<C>(&at[i * 16][c * 16], sizeof at[0]); });
    }
};

// Adds `steps` products to the sums of blocks from First on; right factors are `column` words apart. LeftWeights
// determines which of two equally large products of parts is added first.
template <int P, int R, int N, bool LeftWeights, int First = 0>
HR_FN void add_tile_steps(TileFactor (&left)[R], TileFactor& right, int64_t column, int steps) {
    constexpr int A = left_tile<P>, B = R == 2 ? right_tile<P> : P == 1 ? 5 : right_tile<P>;
    for (int s = 0; s < steps; ++s, right.at += right.step) {
        each<First, R>([&]<int I>() {
            each<0, P>([&]<int K>() { load_tile<A + I + K>(left[I].at + K * left[I].part, left[I].line * 4); });
            left[I].at += left[I].step;
        });
        if constexpr (R == 2) {
            each<0, N>([&]<int C>() { load_tile<B + C>(right.at + C * column, right.line * 4); });
            each<First, R>([&]<int I>() { each<0, N>([&]<int C>() { multiply_tiles<2 * I + C, A + I, B + C>(); }); });
        } else {
            each<0, N>([&]<int C>() {
                const uint32_t* const at = right.at + C * column;
                each<0, P>([&]<int I>() { load_tile<B + I>(at + I * right.part, right.line * 4); });
                each<0, P>([&]<int K>() {
                    constexpr int order = P - 1 - K;  // smaller products are added first
                    each<0, order + 1>([&]<int I>() {
                        constexpr int J = order - I;
                        multiply_tiles<C, A + (LeftWeights ? J : I), B + (LeftWeights ? I : J)>();
                    });
                });
            });
        }
    }
}

HR_FN int steps_with(int n) {
    return (n + bf16_step - 1) / bf16_step;
}

// The right factor that begins at a step and a vector of a tile's words (TileWords).
template <int P>
HR_FN TileFactor of_lines(const uint32_t* words, int64_t stride, int64_t step, int vector) {
    return {words + TileWords::line_place<P>(step * tile_step, 0, stride, int64_t(vector) * W), W, tile_words,
            stride * P * tile_step};
}

// Calls f<R, N>(block, vector) for the blocks [first, end) of units, or of inputs.
template <int P, class F>
HR_FN void for_tiles(int first, int end, int vectors, const F& f) {
    for (int b = first; b < end;) {
        const int blocks = end - b < unit_tiles<P> ? end - b : unit_tiles<P>;
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, row_tiles<P>);
            with_sizes<unit_tiles<P>, row_tiles<P>>(blocks, n,
                                                    [&]<int R, int N>() { f.template operator()<R, N>(b, v); });
            v += n;
        }
        b += blocks;
    }
}

// ---- forth ----------------------------------------------------------------------------------------------------------

// The units of an op that are in a block of sums.
struct TileUnits {
    int first, end;  // range of units of the layer
    int line0;       // unit of the block's first line
};

// Finishes a complete block of sums: adds the bias, applies the activation, and stores values as words for the layer
// above, with zeros up to the end of the last unit's step.
template <int P, class A, int R, int N>
HR_FN void settle_block(const Bf16Product& a, const TileSums<R, N>& sums, const TileUnits& units, int64_t lane) {
    for (int u = units.first / 2 * 2; u < units.end; u += 2)
        for (int c = 0; c < N; ++c) {
            const int64_t i = lane + c * W;
            V x[2] = {};
            for (int k = 0; k < 2; ++k) {
                if (u + k < units.first || u + k >= units.end) continue;
                const int m = u + k - a.unit;
                x[k] = A::value(load(&sums.at[u + k - units.line0][c * W]) + a.bias[m]);
                if (!a.words || a.keeps) store(a.output + m * a.stride + i, x[k]);
            }
            if (!a.words) continue;
            Words parts[P];
            split_pair<P>(x[0], x[1], parts);
            for (int p = 0; p < P; ++p) {
                uint32_t* const place = a.words + TileWords::line_place<P>(u / 2, p, a.stride, i);
                const Words before = u < units.first ? load_words(place) & 0xffffu : Words{};
                store_words(place, parts[p] | before);
            }
        }
    if (!a.words || units.end < a.unit + a.units) return;
    for (int64_t word = (units.end + 1) / 2; word % tile_step; ++word)
        for (int64_t i = lane; i < lane + N * W; i += W)
            for (int p = 0; p < P; ++p) store_words(a.words + TileWords::line_place<P>(word, p, a.stride, i), Words{});
}

// Computes the product of a block. Weights of a block are stored step by step, each step as [part][unit][word].
template <int P, int R, int N>
void product_of_tiles(const Bf16Product& a, int block, int vector) {
    const int64_t step0 = a.k0 / bf16_step, lane = int64_t(vector) * W;
    const int line0 = block * bf16_units, op_end = a.unit + a.units, end = line0 + R * bf16_units;
    const TileUnits units{a.unit > line0 ? a.unit : line0, op_end < end ? op_end : end, line0};
    TileFactor left[R];
    int steps[R];
    for (int i = 0; i < R; ++i) {
        const uint32_t* const offset = a.block + block + i;
        const int length = int(offset[1] - offset[0]) / bf16_units * 2, k1 = length < a.k1 ? length : a.k1;
        left[i] = {a.weights + P * (offset[0] + step0 * tile_words), tile_step, tile_words, P * tile_words};
        steps[i] = k1 > a.k0 ? steps_with(k1) - int(step0) : 0;
    }
    TileFactor right = of_lines<P>(a.input, a.stride, step0, vector);
    TileSums<R, N> sums;
    if (a.from_zero) {
        sums.clear();
    } else {
        for (int u = line0; u < end; ++u)
            for (int c = 0; c < N; ++c) {
                const bool is_own = u >= units.first && u < units.end;
                const V x = is_own ? load(a.output + int64_t(u - a.unit) * a.stride + lane + c * W) : V{};
                store(&sums.at[u - line0][c * W], x);
            }
        sums.load_from();
    }
    add_tile_steps<P, R, N, true>(left, right, P * tile_words, steps[0]);
    if constexpr (R == 2) add_tile_steps<P, R, N, true, 1>(left, right, P * tile_words, steps[1] - steps[0]);
    sums.store_to();
    if (!a.bias) {
        for (int u = units.first; u < units.end; ++u)
            for (int c = 0; c < N; ++c)
                store(a.output + int64_t(u - a.unit) * a.stride + lane + c * W, load(&sums.at[u - line0][c * W]));
        return;
    }
    const int activation = a.words ? a.activation : a.relu ? relu_index : identity_index;
    with_activation(activation, [&]<class A>() { settle_block<P, A>(a, sums, units, lane); });
}

template <int P>
void amx_product(const Bf16Product& a, int vectors) noexcept {
    for_tiles<P>(a.unit / bf16_units, (a.unit + a.units - 1) / bf16_units + 1, vectors,
                 [&]<int R, int N>(int block, int v) { product_of_tiles<P, R, N>(a, block, v); });
}

// ---- back -----------------------------------------------------------------------------------------------------------

// Computes gradients of a block of inputs. Weights of a block are stored step by step, each step as [part][input][word
// of units].
template <int P, int R, int N>
void columns_of_tiles(const Bf16Columns& a, int block, int vector) {
    const int64_t step0 = a.unit0 / bf16_step;
    const int line0 = block * bf16_units, end = line0 + R * bf16_units, last = a.column + a.columns;
    TileFactor left[R];
    for (int i = 0; i < R; ++i)
        left[i] = {a.weights + P * (a.back[block + i] + step0 * tile_words), tile_step, tile_words, P * tile_words};
    TileFactor right = of_lines<P>(a.grad, a.stride, step0, vector);
    TileSums<R, N> sums;
    sums.clear();
    add_tile_steps<P, R, N, true>(left, right, P * tile_words, steps_with(a.unit1) - int(step0));
    sums.store_to();
    for (int k = line0 > a.column ? line0 : a.column; k < (end < last ? end : last); ++k)
        for (int c = 0; c < N; ++c) {
            const int64_t place = int64_t(k - a.column) * a.stride + (vector + c) * W;
            store_gated(a.kind, load(&sums.at[k - line0][c * W]), a.output + place, a.gate + place);
        }
}

template <int P>
void tile_column_product(const Bf16Columns& a, int vectors) noexcept {
    for_tiles<P>(a.column / bf16_units, (a.column + a.columns - 1) / bf16_units + 1, vectors,
                 [&]<int R, int N>(int block, int v) { columns_of_tiles<P, R, N>(a, block, v); });
}

template <int P>
void tile_weight_product(const Bf16Weights& a, int units, int vectors) noexcept {
    constexpr int most = P == 1 ? 4 : row_tiles<P>;
    const int64_t half = a.height / 2;
    for (int v = 0; v < vectors;) {
        const int n = part(vectors - v, most);
        with_sizes<1, most>(1, n, [&]<int, int N>() {
            TileSums<1, N> sums;
            sums.clear();
            const uint32_t *grad = a.grad, *panels = a.panels + v * half * P * W;
            for (int rows = a.rows; rows > 0; rows -= a.height, grad += a.size, panels += a.size) {
                TileFactor left[1] = {{grad, P * half, half, tile_step}};
                TileFactor right{panels, P * W, W, tile_step * P * W};
                add_tile_steps<P, 1, N, false>(left, right, half * P * W,
                                               steps_with(rows < a.height ? rows : a.height));
            }
            sums.store_to();
            for (int m = 0; m < units; ++m)
                for (int c = 0; c < N; ++c) {
                    float* const p = a.output + a.row[m] + a.input + (v + c) * W;
                    const V sum = load(&sums.at[m][c * W]);
                    store(p, a.add ? load(p) + sum : sum);
                }
        });
        v += n;
    }
}

// ---- weights --------------------------------------------------------------------------------------------------------

template <int P>
void round_weight_tiles(const Bf16Layer& a, uint32_t* words) noexcept {
    for (int b = 0; b * bf16_units < a.out; ++b)
        for (int k = 0; k < int(a.block[b + 1] - a.block[b]) / bf16_units * 2; k += bf16_step) {
            uint32_t* const step = words + P * (int64_t(a.block[b]) + k / bf16_step * tile_words);
            for (int i = 0; i < bf16_units; ++i) {
                Words parts[P];
                unit_words<TileWords, P>(a, b * bf16_units + i, k, parts);
                for (int p = 0; p < P; ++p) store_words(step + p * tile_words + i * tile_step, parts[p]);
            }
        }
}

template <int P>
void round_column_tiles(const Bf16Layer& a, uint32_t* words) noexcept {
    int first = 0;
    for (int k = 0; k < a.in; k += bf16_units) {
        while (first < a.out && a.visible[first] <= k / tile_units * tile_units) ++first;
        for (int64_t unit = first / bf16_step * bf16_step; unit < a.out; unit += bf16_step) {
            uint32_t* const step = words + P * (a.back[k / bf16_units] + unit / bf16_step * tile_words);
            V v[P][W];
            for (int i = 0; i < bf16_step; i += TileWords::unit)
                column_words<TileWords, P>(a, int(unit) + i, k, [&](int64_t word, const Words(&parts)[P]) {
                    for (int p = 0; p < P; ++p) v[p][word % tile_step] = bit_cast<V>(parts[p]);
                });
            for (int p = 0; p < P; ++p) {
                transpose(v[p]);
                for (int i = 0; i < W; ++i)
                    store_words(step + p * tile_words + i * tile_step, bit_cast<Words>(v[p][i]));
            }
        }
    }
}

}  // namespace
}  // namespace headrace
