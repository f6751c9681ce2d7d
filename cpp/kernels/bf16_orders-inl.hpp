// The two orders of sums of products in bf16 (core/bf16.hpp), as policies of the kernels in bf16_products-inl.hpp: the
// registers of a sum, and the addition of words to the sum. P is the number of parts.
#pragma once

#include "bf16_pairs-inl.hpp"
#include "register_block-inl.hpp"

namespace headrace {
namespace {

#define HR_INLINE __attribute__((always_inline))  // for lambdas whose sums must stay in registers

constexpr bool is_wide = HR_VECTOR_BYTES == 64;
#ifdef HR_BF16_DOT
constexpr bool has_dot = true;
#else
constexpr bool has_dot = false;
#endif

// The factors of a block of sums: single words, one for each unit, and lines or panels of words, read as vectors.
struct Chain {
    int64_t word, single_part;          // distances of single words: to the next word, and to the next part
    int64_t vector, line, vector_part;  // distances of vectors: to the next vector, word and part
};

// Adds the products of one word to a block of sums.
template <class Factor, int M, int N>
HR_FN void add_word(V (&sum)[M][N], const uint32_t* const* single, int64_t at, const uint32_t* vectors,
                    int64_t vector) {
    Factor x[N];
    HR_UNROLLED
    for (int n = 0; n < N; ++n) x[n] = Factor(load_words(vectors + n * vector));
    HR_UNROLLED
    for (int m = 0; m < M; ++m) {
        const Factor w = Factor::splat(single[m] + at);
        HR_UNROLLED
        for (int n = 0; n < N; ++n) sum[m][n] = dot(sum[m][n], w, x[n]);
    }
}

// ---- pairs ----------------------------------------------------------------------------------------------------------

// The factors of all parts of a pair.
template <int P>
struct Factors {
    TwoValues part[P];
    Factors() = default;
    // Factors from parts(i), the words of part i.
    template <class F>
    HR_FN explicit Factors(const F& parts) {
        for (int i = 0; i < P; ++i) part[i] = TwoValues(parts(i));
    }
    // words(i, k): word k of part i in the lines of a tile.
    template <class F>
    HR_FN static Factors of_lines(const F& words) {
        Factors made;
        for (int i = 0; i < P; ++i)
            if constexpr (PairLines::values == 2) {
                made.part[i] = TwoValues(words(i, 0));
            } else {
                made.part[i] = TwoValues(words(i, 1), words(i, 0));
            }
        return made;
    }
};

template <int P>
HR_FN V dot(V sum, const Factors<P>& weight, const Factors<P>& value) {
    if constexpr (P > 1) {
        V rest{};
        for (int k = P - 1; k > 0; --k)
            for (int i = k; i >= 0; --i) rest = dot(rest, weight.part[i], value.part[k - i]);
        sum += rest;
    }
    return dot(sum, weight.part[0], value.part[0]);
}

struct PairOrder {
    using Format = PairLines;
    using RowFormat = PairWords;
    static constexpr int quad = 2, step = 2;
    static constexpr int words = 2 / Format::values;  // of a pair in a tile
    static constexpr bool waits = false;
    template <int P>
    static constexpr int planes = 1;

    // The registers hold 8 x 3 sums, 3 inputs and a broadcast value; inputs of three parts, or of both values of a
    // pair, take more registers.
    static constexpr int units = is_wide ? 8 : 4;
    template <int P>
    static constexpr int vectors = P == 1 ? 3 : (has_dot ? 3 : 2) - (P == 3);
    static constexpr int most_vectors = 8, most_narrow = 4;
    template <int P>
    static constexpr int most_rows = !is_wide ? 1
                                     : P < 3  ? 3
                                              : 2;

    template <int P, int M, int N>
    struct Block {
        V total[M][N];

        HR_FN void resume(const float*, int64_t) {}
        HR_FN void wait(float*, int64_t) const {}

        // With `Singles`, the single words are values and the vectors weights.
        template <bool Singles>
        HR_FN void add(const uint32_t* const* single, const uint32_t* vectors, const Chain& c, int k0, int k1, bool) {
            constexpr int step = P == 1 ? 1 : words;
            const int64_t first = k0 / 2 * words, end = (k1 + 1) / 2 * words;
            const uint32_t* x = vectors + first * c.line;
            for (int64_t j = first; j < end; j += step, x += step * c.line) {
                if constexpr (P == 1) {
                    add_word<Format::Factor>(total, single, j * c.word, x, c.vector);
                } else {
                    Factors<P> input[N];
                    for (int n = 0; n < N; ++n)
                        input[n] = Factors<P>::of_lines([&](int i, int k) {
                            return load_words(x + k * c.line + i * c.vector_part + n * c.vector);
                        });
                    for (int m = 0; m < M; ++m) {
                        const uint32_t* const w = single[m] + j * c.word;
                        const auto one = Factors<P>::of_lines(
                            [&](int i, int k) { return splat_word(w + k * c.word + i * c.single_part); });
                        for (int n = 0; n < N; ++n)
                            total[m][n] = Singles ? dot(total[m][n], input[n], one) : dot(total[m][n], one, input[n]);
                    }
                }
            }
        }
    };

    HR_FN static constexpr bool ends_step(int) { return false; }

    // The state of a row: the pair j of values, and the sums of W units.
    template <int P>
    using Values = Factors<P>;
    template <int P>
    HR_FN static Values<P> values(const uint32_t* row, int64_t j) {
        const uint32_t* const x = row + (P == 1 ? j : row_place<RowFormat, P>(j * quad));
        return Factors<P>([&](int i) { return splat_word(x + i * step_words<RowFormat>); });
    }

    template <int P>
    struct Sums {
        V total;

        HR_FN void load_from(const float* place, int) { total = load(place); }
        HR_FN void store_to(float* place, int) const { store(place, total); }
        HR_FN void end_step(float*) {}
        HR_FN V finished(const float*) const { return total; }
        HR_FN void add(const uint32_t* weights, int64_t j, const Values<P>& x) {
            const uint32_t* const w = weights + j * P * bf16_units;
            total = dot(total, Factors<P>([&](int i) { return load_words(w + i * bf16_units); }), x);
        }
    };
};

// ---- steps ----------------------------------------------------------------------------------------------------------

// A kind of product: the index of the part of a weight, and of the part of a value, in the order of the products.
struct Kind {
    int weight, value;
};

template <int P>
struct Kinds {
    Kind all[bf16_kinds(P)] = {};
    constexpr Kinds() {
        int n = 0;
        for (int order = P - 1; order >= 0; --order)
            for (int i = order; i >= 0; --i) all[n++] = {i, order - i};
    }
};

template <int P>
constexpr Kinds<P> kinds{};

struct StepOrder {
    using Format = VectorWords;
    using RowFormat = Format;
    using Factor = Format::Factor;
    static constexpr int quad = bf16_quad, step = bf16_step;
    static constexpr int words = quad / Format::values;  // words of a quad: words of even values and of odd values
                                                         // alternate
    static constexpr bool waits = true;
    template <int P>
    static constexpr int planes = bf16_planes(P);

    // The registers hold the sums, two sums of the current step for each sum, the values, and a weight.
#ifdef __aarch64__
    static constexpr int units = 4;
#else
    static constexpr int units = is_wide ? 4 : 2;
#endif
    template <int P>
    static constexpr int vectors = 2;
    template <int P>
    static constexpr int most_rows = !is_wide || P > 1 ? 1 : 3;
    static constexpr int most_vectors = 4, most_narrow = 2;

    HR_FN static constexpr bool ends_step(int k) { return k % step == 0; }
    HR_FN static constexpr int step_end(int k) { return (k / step + 1) * step; }

    template <int P, int M, int N>
    struct Block {
        V total[M][N], even[M][N], odd[M][N];

        // Loads the sums of a step that earlier ops began, [unit][2][stride]; null: no step was begun.
        HR_FN void resume(const float* waiting, int64_t stride) {
            for_sums<M, N>([&](int m, int n) HR_INLINE {
                even[m][n] = waiting ? load(waiting + 2 * m * stride + n * W) : V{};
                odd[m][n] = waiting ? load(waiting + (2 * m + 1) * stride + n * W) : V{};
            });
        }
        HR_FN void wait(float* waiting, int64_t stride) const {
            for_sums<M, N>([&](int m, int n) HR_INLINE {
                store(waiting + 2 * m * stride + n * W, even[m][n]);
                store(waiting + (2 * m + 1) * stride + n * W, odd[m][n]);
            });
        }
        HR_FN void end_step() {
            for_sums<M, N>([&](int m, int n) HR_INLINE {
                total[m][n] += even[m][n] + odd[m][n];
                even[m][n] = odd[m][n] = V{};
            });
        }

        // Adds quads [first, end) of a step.
        HR_FN void add_quads(const uint32_t* const* single, int64_t at, const uint32_t* vectors, const Chain& c,
                             int first, int end) {
            for (int i = first * words; i < end * words; i += 2) {
                add_word<Factor>(even, single, at + i * c.word, vectors + i * c.line, c.vector);
                add_word<Factor>(odd, single, at + (i + 1) * c.word, vectors + (i + 1) * c.line, c.vector);
            }
        }

        // Adds inputs [k0, k1). The sums of an unfinished last step stay separate unless `ends` is true, which is
        // possible only for values of one part.
        template <bool Singles>
        HR_FN void add(const uint32_t* const* single, const uint32_t* vectors, const Chain& c, int k0, int k1,
                       bool ends) {
            for (int k = k0; k < k1;) {
                const int end = step_end(k), next = end < k1 ? end : k1;
                const int first = k % step / quad, quads = (next - 1) % step / quad + 1;
                const int64_t s = k / step * step_words<Format>;
                for (int kind = 0; kind < bf16_kinds(P); ++kind) {
                    const Kind parts = kinds<P>.all[kind];
                    const int64_t at = s * c.word + (Singles ? parts.value : parts.weight) * c.single_part;
                    const uint32_t* const by =
                        vectors + s * c.line + (Singles ? parts.weight : parts.value) * c.vector_part;
                    if (first == 0 && quads == step / quad) {
                        add_quads(single, at, by, c, 0, step / quad);
                    } else {
                        add_quads(single, at, by, c, first, quads);
                    }
                    if (next < end && !ends) return;
                    end_step();
                }
                k = next;
            }
            if (ends && k0 >= k1) end_step();  // an op without inputs
        }
    };

    // The state of a row: the quad j of values, and the even and the odd sum of a step of W units for each kind of
    // product. The sums of complete steps stay in memory, in the first plane; the sums of a waiting step are in the
    // planes after it.
    template <int P>
    struct Values {
        Factor part[P][words];
    };
    template <int P>
    HR_FN static Values<P> values(const uint32_t* row, int64_t j) {
        const uint32_t* const x = row + (P == 1 ? j * words : row_place<Format, P>(j * quad));
        Values<P> v;
        for (int i = 0; i < P; ++i)
            for (int word = 0; word < words; ++word)
                v.part[i][word] = Factor(splat_word(x + i * step_words<Format> + word));
        return v;
    }

    template <int P>
    struct Sums {
        V half[bf16_kinds(P)][2];

        HR_FN static constexpr int plane(int kind, int odd) { return (1 + 2 * kind + odd) * bf16_units; }
        template <class F>
        HR_FN static void each(const F& f) {
            for (int kind = 0; kind < bf16_kinds(P); ++kind)
                for (int odd = 0; odd < 2; ++odd) f(kind, odd);
        }

        HR_FN void load_from(const float* place, int k) {
            each([&](int kind, int odd) { half[kind][odd] = load(ends_step(k) ? no_sum : place + plane(kind, odd)); });
        }
        HR_FN void store_to(float* place, int k) const {
            if (ends_step(k)) return;
            each([&](int kind, int odd) { store(place + plane(kind, odd), half[kind][odd]); });
        }
        HR_FN void end_step(float* place) {
            store(place, finished(place));
            each([&](int kind, int odd) { half[kind][odd] = V{}; });
        }
        HR_FN V finished(const float* place) const {
            V total = load(place);
            for (int kind = 0; kind < bf16_kinds(P); ++kind) total += half[kind][0] + half[kind][1];
            return total;
        }
        HR_FN void add(const uint32_t* weights, int64_t j, const Values<P>& x) {
            const uint32_t* const w = weights + j * words * P * bf16_units;
            for (int word = 0; word < words; ++word)
                for (int kind = 0; kind < bf16_kinds(P); ++kind) {
                    const Kind parts = kinds<P>.all[kind];
                    const Factor weight(load_words(w + (word * P + parts.weight) * bf16_units));
                    V& sum = half[kind][word % 2];
                    sum = dot(sum, weight, x.part[parts.value][word]);
                }
        }
    };

  private:
    alignas(64) static constexpr float no_sum[W] = {};
};

}  // namespace
}  // namespace headrace
