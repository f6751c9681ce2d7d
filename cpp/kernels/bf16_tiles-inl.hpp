// Products of tiles of rows by AMX: tiles of 16 x 16 sums, to which TDPBF16PS adds a step of each at once. P is the
// number of parts (core/bf16.hpp). The tests compile this file with a software version of the instructions, too
// (tests/amx_emulation). Small batches take vectors, whose bits are the same.
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
constexpr int tile_step = bf16_step / 2;    // words of a step
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

// A factor in memory, in words: the left one [line][word], the right one [word][column].
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

HR_FN int steps_with(int n) {
    return (n + bf16_step - 1) / bf16_step;
}

// A block's weights lie step by step, in each [part][unit][word].
template <int P>
void amx_product(const Bf16Product& a, int vectors) noexcept {
    const int64_t step0 = a.k0 / bf16_step;
    const int steps = steps_with(a.k1) - int(step0);
    for (int done = 0; done < a.units;) {
        const int unit = a.unit + done, first = unit % bf16_units;
        const int units = a.units - done < bf16_units - first ? a.units - done : bf16_units - first;
        const uint32_t* const weights = a.weights + P * (a.block[unit / bf16_units] + step0 * tile_words);
        const TileFactor left{weights + first * tile_step, tile_step, tile_words, P * tile_words};
        const TileRegisters<P> registers(units);
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, tile_columns<P>);
            const TileFactor right{a.input + step0 * tile_step * P * a.stride + v * W, P * a.stride, a.stride,
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

// ---- back -----------------------------------------------------------------------------------------------------------

// A block's weights lie step by step, in each [part][input][word of units].
template <int P>
void tile_column_product(const Bf16Columns& a, int vectors) noexcept {
    const int64_t step0 = a.unit0 / bf16_step;
    const int steps = steps_with(a.unit1) - int(step0);
    for (int done = 0; done < a.columns;) {
        const int k = a.column + done, first = k % bf16_units;
        const int columns = a.columns - done < bf16_units - first ? a.columns - done : bf16_units - first;
        const uint32_t* const weights = a.weights + P * (a.back[k / bf16_units] + step0 * tile_words);
        const TileFactor left{weights + first * tile_step, tile_step, tile_words, P * tile_words};
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, tile_columns<P>);
            const TileFactor right{a.grad + step0 * tile_step * P * a.stride + v * W, P * a.stride, a.stride,
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
void round_weight_tiles(const Bf16Layer& a, uint32_t* words) noexcept {
    for (int b = 0; b * bf16_units < a.out; ++b)
        for (int k = 0; k < inputs_of(a.block, b); k += bf16_step) {
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
        while (first < a.out && a.visible[first] <= k) ++first;
        for (int64_t unit = first / bf16_step * bf16_step; unit < a.out; unit += bf16_step) {
            uint32_t* const step = words + P * (a.back[k / bf16_units] + unit / bf16_step * tile_words);
            V v[P][W];
            for (int i = 0; i < bf16_step; i += bf16_quad)
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
