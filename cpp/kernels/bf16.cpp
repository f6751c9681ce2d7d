// Compiled once for every instruction set, and once more for those with an instruction for bf16 pairs: HR_BF16_DOT says
// that it may be used. The table is the only symbol with external linkage.
#include "../core/bf16.hpp"

#include "../math/activations.hpp"
#include "../math/bf16.hpp"
#include "../math/pack.hpp"
#include "gradient_product-inl.hpp"
#include "transpose-inl.hpp"

#ifdef HR_BF16_DOT
#include <immintrin.h>
#endif

namespace headrace {
namespace {

using V = PackF;
using Pairs = PackU32;
constexpr int W = width<float>;

// ---- a pair of products ---------------------------------------------------------------------------------------------

HR_FN Pairs load_pairs(const void* p) {
    Pairs v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

HR_FN void store_pairs(uint32_t* p, Pairs v) {
    __builtin_memcpy(p, &v, sizeof v);
}

HR_FN Pairs splat_pair(const uint32_t* p) {
    return *p - Pairs{};
}

#ifdef HR_BF16_DOT

constexpr int dot_units = 8, dot_vectors = 3;  // as of the other products: 8 x 3 sums, 3 inputs and a broadcast

struct Factor {
    Pairs pair;
    Factor() = default;
    HR_FN explicit Factor(Pairs given) : pair(given) {}
};

HR_FN V dot(V sum, Factor a, Factor b) {
    return V(_mm512_dpbf16_ps(__m512(sum), (__m512bh)a.pair, (__m512bh)b.pair));
}

// A number is kept if it is at least 2^-63: if one of the two highest bits of its exponent is set.
HR_FN __mmask16 kept_values(V x) {
    static_assert(least_bf16_value == 0x20000000);
    return _mm512_test_epi32_mask(_mm512_castps_si512(__m512(x)), _mm512_set1_epi32(0x60000000));
}

HR_FN __mmask16 kept_numbers(V x, int32_t least) {
    const __m512i size = _mm512_and_si512(_mm512_castps_si512(__m512(x)), _mm512_set1_epi32(INT32_MAX));
    return _mm512_cmpge_epi32_mask(size, _mm512_set1_epi32(least));
}

// Numbers of which the first ones are in `low`, two by two.
template <int32_t Least>
HR_FN Pairs adjacent_pairs(V low, V high) {
    const __mmask32 kept = Least == least_bf16_value
                               ? _mm512_kunpackw(kept_values(high), kept_values(low))
                               : _mm512_kunpackw(kept_numbers(high, Least), kept_numbers(low, Least));
    return Pairs((__m512i)_mm512_maskz_cvtne2ps_pbh(kept, __m512(high), __m512(low)));
}

template <int32_t Least = least_bf16_value>
HR_FN Pairs pair_of(V even, V odd) {
    const __m512i apart = (__m512i)adjacent_pairs<Least>(even, odd);
    typedef uint16_t Order __attribute__((vector_size(64)));
    constexpr Order order = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                             8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return Pairs(_mm512_permutexvar_epi16((__m512i)order, apart));
}

// Numbers side by side, two to a pair.
HR_FN void store_rounded(uint32_t* pairs, V x) {
    const __m256bh halves = _mm512_maskz_cvtneps_pbh(kept_values(x), __m512(x));
    __builtin_memcpy(pairs, &halves, sizeof halves);
}

#else

// Both members of a pair take registers.
constexpr int dot_units = HR_VECTOR_BYTES == 64 ? 8 : 4, dot_vectors = 2;

struct Factor {
    V even, odd;
    Factor() = default;
    HR_FN explicit Factor(Pairs given) : even(bit_cast<V>(given << 16)), odd(bit_cast<V>(given & 0xffff0000u)) {}
};

HR_FN V dot(V sum, Factor a, Factor b) {
    sum += a.odd * b.odd;
    sum += a.even * b.even;
    return sum;
}

template <int32_t Least = least_bf16_value>
HR_FN Pairs pair_of(V even, V odd) {
    return bf16_rounded(even, Least) >> 16 | bf16_rounded(odd, Least);
}

template <int32_t Least>
HR_FN Pairs adjacent_pairs(V low, V high) {
    const Pairs first = bf16_rounded(low, Least) >> 16, second = bf16_rounded(high, Least) >> 16;
    uint16_t halves[2 * W];
    for (int i = 0; i < W; ++i) {
        halves[i] = uint16_t(first[i]);
        halves[W + i] = uint16_t(second[i]);
    }
    return load_pairs(halves);
}

// Numbers side by side, two to a pair.
HR_FN void store_rounded(uint32_t* pairs, V x) {
    typedef uint16_t Halves __attribute__((vector_size(HR_VECTOR_BYTES / 2)));
    const Halves halves = __builtin_convertvector(bf16_rounded(x) >> 16, Halves);
    __builtin_memcpy(pairs, &halves, sizeof halves);
}

#endif

HR_FN const uint32_t* weights_of(const uint32_t* weights, const uint32_t* block, int unit) {
    return weights + block[unit / bf16_units] + unit % bf16_units;
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

void round_lines(const float* lines, int64_t stride, int first, int end, int vectors, uint32_t* pairs) noexcept {
    for (int64_t j = first; 2 * j < end; ++j) {
        const float *even = lines + 2 * j * stride, *odd = even + stride;
        uint32_t* const out = pairs + j * stride;
        const bool has_odd = 2 * j + 1 < end;
        for (int64_t i = 0; i < int64_t(vectors) * W; i += W) {
            store_pairs(out + i, pair_of(load(even + i), has_odd ? load(odd + i) : V{}));
        }
    }
}

// Pairs [pair0, pair1) of each weight by lines of pairs, added to sums.
template <int M, int N>
HR_FN void add_products(V (&sum)[M][N], const uint32_t* const* weights, const uint32_t* lines, int64_t stride,
                        int64_t pair0, int64_t pair1) {
    const uint32_t* x = lines + pair0 * stride;
    for (int64_t j = pair0; j < pair1; ++j, x += stride) {
        Factor input[N];
        for (int n = 0; n < N; ++n) input[n] = Factor(load_pairs(x + n * W));
        for (int m = 0; m < M; ++m) {
            const Factor weight(splat_pair(weights[m] + j * bf16_units));
            for (int n = 0; n < N; ++n) sum[m][n] = dot(sum[m][n], weight, input[n]);
        }
    }
}

template <int M, int N>
void pair_block(const Bf16Product& a, const uint32_t* const* weights, float* y, const float* bias, int column) {
    V sum[M][N];
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) sum[m][n] = a.from_zero ? V{} : load(y + m * a.stride + n * W);
    add_products<M, N>(sum, weights, a.input + column, a.stride, a.pair0, a.pair1);
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            if (bias) sum[m][n] += bias[m];
            if (a.relu) sum[m][n] = max(sum[m][n], 0.0f);
            store(y + m * a.stride + n * W, sum[m][n]);
        }
}

void pair_product(const Bf16Product& a, int vectors) noexcept {
    const uint32_t* weights[dot_units];
    for (int done = 0; done < a.units;) {
        const int units = part(a.units - done, dot_units);
        for (int m = 0; m < units; ++m) weights[m] = weights_of(a.weights, a.block, a.unit + done + m);
        float* const y = a.output + done * a.stride;
        const float* const bias = a.bias ? a.bias + done : nullptr;
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, dot_vectors);
            with_sizes<dot_units, dot_vectors>(
                units, n, [&]<int M, int N>() { pair_block<M, N>(a, weights, y + v * W, bias, v * W); });
            v += n;
        }
        done += units;
    }
}

// ---- few rows: lanes are units --------------------------------------------------------------------------------------

void round_row(const float* numbers, int first, int end, uint32_t* pairs) noexcept {
    int k = 2 * first;
    for (; k + W <= end; k += W) {
        store_rounded(pairs + k / 2, load(numbers + k));
    }
    for (; k < end; k += 2) {
        const uint32_t even = bf16_rounded(numbers[k]) >> 16, odd = k + 1 < end ? bf16_rounded(numbers[k + 1]) : 0;
        pairs[k / 2] = even | odd;
    }
}

constexpr int block_vectors_of = bf16_units / W;  // vectors of a block
constexpr int most_blocks = 8 / block_vectors_of > 0 ? 8 / block_vectors_of : 1;
constexpr int most_rows = HR_VECTOR_BYTES == 64 ? 3 : 1;

HR_FN int pairs_of(const uint32_t* block, int i) {
    return int(block[i + 1] - block[i]) / bf16_units;
}

// Blocks are no shorter than those before: each rise adds pairs to all from First on.
template <int First, int B, int R>
HR_FN void rise(const Bf16Sums& a, const uint32_t* const* weights, const uint32_t* x, int begin,
                V (&sum)[R][B][block_vectors_of], int first) {
    const int length = pairs_of(a.block, first + First), end = length < a.pair1 ? length : a.pair1;
    for (int64_t j = begin; j < end; ++j)
        for (int b = First; b < B; ++b)
            for (int q = 0; q < block_vectors_of; ++q) {
                const Factor weight(load_pairs(weights[b] + j * bf16_units + q * W));
                for (int r = 0; r < R; ++r)
                    sum[r][b][q] = dot(sum[r][b][q], weight, Factor(splat_pair(x + r * a.stride + j)));
            }
    if constexpr (First + 1 < B) rise<First + 1, B, R>(a, weights, x, end > begin ? end : begin, sum, first);
}

template <int B, int R>
void add_blocks(const Bf16Sums& a, int first, int row) {
    V sum[R][B][block_vectors_of];
    const uint32_t* weights[B];
    float* const sums = a.sums + row * a.stride + first * bf16_units;
    for (int b = 0; b < B; ++b) weights[b] = a.weights + a.block[first + b];
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b)
            for (int q = 0; q < block_vectors_of; ++q)
                sum[r][b][q] = load(sums + r * a.stride + b * bf16_units + q * W);
    rise<0, B, R>(a, weights, a.input + row * a.stride, a.pair0, sum, first);
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b)
            for (int q = 0; q < block_vectors_of; ++q)
                store(sums + r * a.stride + b * bf16_units + q * W, sum[r][b][q]);
}

// N pairs to all blocks, which have them all.
template <int N>
void add_few_pairs(const Bf16Sums& a) {
    for (int r = 0; r < a.rows; ++r) {
        Factor x[N];
        for (int j = 0; j < N; ++j) x[j] = Factor(splat_pair(a.input + r * a.stride + a.pair0 + j));
        float* const sums = a.sums + r * a.stride;
        for (int b = a.first; b < a.end; ++b) {
            const uint32_t* const weights = a.weights + a.block[b] + int64_t(a.pair0) * bf16_units;
            for (int q = 0; q < block_vectors_of; ++q) {
                float* const place = sums + b * bf16_units + q * W;
                V sum = load(place);
                for (int j = 0; j < N; ++j) sum = dot(sum, Factor(load_pairs(weights + j * bf16_units + q * W)), x[j]);
                store(place, sum);
            }
        }
    }
}

constexpr int most_few_pairs = 4;

void add_pairs(const Bf16Sums& a) noexcept {
    const int n = a.pair1 - a.pair0;
    if (n <= 0) return;
    if (n <= most_few_pairs && pairs_of(a.block, a.first) >= a.pair1)  // what a level of few units brings
        return with_sizes<most_few_pairs, 1>(n, 1, [&]<int N, int>() { add_few_pairs<N>(a); });
    for (int first = a.first; first < a.end;) {
        const int blocks = part(a.end - first, most_blocks);
        for (int row = 0; row < a.rows;) {
            const int rows = part(a.rows - row, most_rows);
            with_sizes<most_blocks, most_rows>(blocks, rows, [&]<int B, int R>() { add_blocks<B, R>(a, first, row); });
            row += rows;
        }
        first += blocks;
    }
}

// What pairs from pair0 on add to the sums of some units of a row, a vector of them, and what is done to a copy then.
HR_FN V finished(const Bf16Ends& a, int pair0, int64_t row, int unit) {
    const uint32_t *const weights = weights_of(a.add.weights, a.add.block, unit), *const x = a.add.input + row;
    const int length = pairs_of(a.add.block, unit / bf16_units);
    float* const place = a.add.sums + row + unit;
    V sum = load(place);
    if (pair0 < a.add.pair1) {
        for (int64_t j = pair0, end = length < a.add.pair1 ? length : a.add.pair1; j < end; ++j)
            sum = dot(sum, Factor(load_pairs(weights + j * bf16_units)), Factor(splat_pair(x + j)));
        store(place, sum);
    }
    if (a.pair >= 0 && a.pair < length)
        sum = dot(sum, Factor(load_pairs(weights + int64_t(a.pair) * bf16_units)), Factor(splat_pair(x + a.pair)));
    return sum + load(a.bias + unit);
}

template <class A>
void finish_blocks(const Bf16Ends& a, int pair0) {
    for (int r = 0; r < a.add.rows; ++r) {
        const int64_t row = r * a.add.stride;
        for (int u = a.add.first * bf16_units; u < a.add.end * bf16_units; u += W) {
            const V sum = finished(a, pair0, row, u), value = A::value(sum);
            if (a.product != a.value) store(a.product + row + u, sum);
            store(a.value + row + u, value);
            if (a.pairs) store_rounded(a.pairs + row + u / 2, value);
        }
    }
}

// To some of a vector's units something is added yet, in the same place.
void finish_alone(const Bf16Ends& a, int pair0) {
    for (int r = 0; r < a.add.rows; ++r) {
        const int64_t row = r * a.add.stride;
        for (int u = a.add.first * bf16_units; u < a.add.end * bf16_units; u += W) {
            float lanes[W];
            store(lanes, finished(a, pair0, row, u));
            const int low = a.unit > u ? a.unit - u : 0, high = a.end - u < W ? a.end - u : W;
            if (low < high) __builtin_memcpy(a.product + row + u + low, lanes + low, (high - low) * sizeof(float));
        }
    }
}

// What it is told is not copied: it was just written in small parts, for which a load of a vector would wait.
void finish_units(const Bf16Ends& a) noexcept {
    int pair0 = a.add.pair0;
    if (a.add.pair1 - pair0 > most_few_pairs) {
        add_pairs(a.add);
        pair0 = a.add.pair1;
    }
    if (a.alone) return finish_alone(a, pair0);
    with_activation(a.activation, [&]<class A>() { finish_blocks<A>(a, pair0); });
}

// ---- back -----------------------------------------------------------------------------------------------------------

void round_gradients(const float* lines, int64_t stride, int first, int end, bool has_next, int vectors,
                     uint32_t* pairs) noexcept {
    for (int64_t j = first / 2; 2 * j < end; ++j) {
        const float *even = lines + 2 * j * stride, *odd = even + stride;
        const bool has_even = 2 * j >= first, has_odd = 2 * j + 1 < end || has_next;
        for (int64_t i = 0; i < int64_t(vectors) * W; i += W)
            store_pairs(pairs + j * stride + i,
                        pair_of(has_even ? load(even + i) : V{}, has_odd ? load(odd + i) : V{}));
    }
}

template <int M, int N>
void column_block(const Bf16Columns& a, const uint32_t* const* weights, int64_t line, int lane) {
    V sum[M][N] = {};
    add_products<M, N>(sum, weights, a.grad + lane, a.stride, a.pair0, a.pair1);
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            const int64_t place = (line + m) * a.stride + lane + n * W;
            store_gated(a.kind, sum[m][n], a.output + place, a.gate + place);
        }
}

void column_product(const Bf16Columns& a, int vectors) noexcept {
    const uint32_t* weights[dot_units];
    for (int done = 0; done < a.columns;) {
        const int columns = part(a.columns - done, dot_units);
        for (int m = 0; m < columns; ++m) {
            const int k = a.column + done + m;
            weights[m] = a.weights + a.back[k / bf16_units] + k % bf16_units;
        }
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, dot_vectors);
            with_sizes<dot_units, dot_vectors>(columns, n,
                                               [&]<int M, int N>() { column_block<M, N>(a, weights, done, v * W); });
            v += n;
        }
        done += columns;
    }
}

// Of the numbers from p on, n of which there are: a vector of 2 W, two by two.
template <int32_t Least>
HR_FN Pairs adjacent_pairs(const float* p, int n) {
    if (n >= 2 * W) return adjacent_pairs<Least>(load(p), load(p + W));
    return adjacent_pairs<Least>(load_up_to(p, n), n > W ? load_up_to(p + W, n - W) : V{});
}

void row_pairs(const float* lines, int n, int64_t height, int rows, uint32_t* pairs) noexcept {
    for (int64_t m = 0; m < n; ++m)
        for (int r = 0; r < rows; r += 2 * W)
            store_pairs(pairs + (m * height + r) / 2,
                        adjacent_pairs<least_bf16_value>(lines + m * height + r, rows - r));
}

// W lines of pairs, which numbers_of(line) gives, to W vectors across them.
template <class F>
HR_FN void across(const F& pairs_of_line, Pairs (&out)[W]) {
    V v[W];
    for (int i = 0; i < W; ++i) v[i] = bit_cast<V>(pairs_of_line(i));
    transpose(v);
    for (int i = 0; i < W; ++i) out[i] = bit_cast<Pairs>(v[i]);
}

// Values are rounded as weights are, so that products with gradients are such multiples as all others.
void pair_panels(const float* lines, int n, int64_t height, int rows, uint32_t* panels) noexcept {
    for (int64_t k = 0; k < n; k += W)
        for (int r = 0; r < rows; r += 2 * W) {
            Pairs v[W];
            across([&](int i) { return adjacent_pairs<least_bf16_weight>(lines + (k + i) * height + r, rows - r); }, v);
            for (int i = 0; i < W; ++i) store_pairs(panels + (k * height + r * W) / 2 + i * W, v[i]);
        }
}

template <int M, int N>
void weight_pairs(const Bf16Weights& a) {
    V sum[M][N] = {};
    for (int m = 0; m < M; ++m)  // they lie beyond L2, and are due once the sums are done
        for (int n = 0; n < N; ++n) __builtin_prefetch(a.output + a.row[m] + a.input + n * W, 1);
    const uint32_t *grad = a.grad, *x = a.panels;
    const int64_t half = a.height / 2;
    for (int left = a.rows; left > 0; left -= a.height, grad += a.size, x += a.size) {
        const int64_t pairs = left < a.height ? (left + 1) / 2 : half;
        for (int64_t b = 0; b < pairs; ++b) {
            Factor input[N];
            for (int n = 0; n < N; ++n) input[n] = Factor(load_pairs(x + (n * half + b) * W));
            for (int m = 0; m < M; ++m) {
                const Factor g(splat_pair(grad + m * half + b));
                for (int n = 0; n < N; ++n) sum[m][n] = dot(sum[m][n], g, input[n]);
            }
        }
    }
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) {
            float* p = a.output + a.row[m] + a.input + n * W;
            store(p, a.add ? load(p) + sum[m][n] : sum[m][n]);
        }
}

void weight_pair_product(const Bf16Weights& a, int units, int vectors) noexcept {
    for (int u = 0; u < units;) {
        const int m = part(units - u, dot_units);
        Bf16Weights b = a;
        b.grad += int64_t(u) * a.height / 2;
        b.row += u;
        for (int v = 0; v < vectors;) {
            const int n = part(vectors - v, dot_vectors);
            with_sizes<dot_units, dot_vectors>(m, n, [&]<int M, int N>() { weight_pairs<M, N>(b); });
            b.panels += int64_t(n) * a.height / 2 * W;
            b.input += n * W;
            v += n;
        }
        u += m;
    }
}

// ---- weights --------------------------------------------------------------------------------------------------------

void round_weights(const Bf16Layer& a, uint32_t* pairs) noexcept {
    for (int b = 0; b * bf16_units < a.out; ++b) {
        uint32_t* const block = pairs + a.block[b];
        const int length = int(a.block[b + 1] - a.block[b]) / bf16_units;
        for (int u = 0; u < bf16_units; u += W)
            for (int j = 0; j < length; j += W) {
                Pairs v[W];
                across(
                    [&](int i) {
                        const int unit = b * bf16_units + u + i;
                        const int n = unit < a.out ? a.visible[unit] - 2 * j : 0;
                        return n > 0 ? adjacent_pairs<least_bf16_weight>(a.weights + a.row[unit] + 2 * j, n) : Pairs{};
                    },
                    v);
                for (int i = 0; i < W && j + i < length; ++i) store_pairs(block + (j + i) * bf16_units + u, v[i]);
            }
    }
}

void round_columns(const Bf16Layer& a, uint32_t* pairs) noexcept {
    int first = 0;
    for (int k = 0; k < a.in; k += bf16_units) {
        while (first < a.out && a.visible[first] <= k) ++first;
        uint32_t* const block = pairs + a.back[k / bf16_units];
        for (int j = first / 2; 2 * j < a.out; ++j)
            for (int i = 0; i < bf16_units; i += W) {
                const auto weights_of_unit = [&](int unit) {
                    const int n = unit < a.out ? a.visible[unit] - k - i : 0;
                    return n > 0 ? load_up_to(a.weights + a.row[unit] + k + i, n) : V{};
                };
                store_pairs(block + j * bf16_units + i,
                            pair_of<least_bf16_weight>(weights_of_unit(2 * j), weights_of_unit(2 * j + 1)));
            }
    }
}

}  // namespace

#define HR_JOIN_(a, b) a##b
#define HR_JOIN(a, b) HR_JOIN_(a, b)
extern const Bf16Kernels HR_JOIN(bf16_, HR_ISA);
const Bf16Kernels HR_JOIN(bf16_, HR_ISA) = {round_lines,    pair_product,  round_row,     add_pairs,
                                            finish_units,   round_weights, round_columns, round_gradients,
                                            column_product, row_pairs,     pair_panels,   weight_pair_product};

}  // namespace headrace
