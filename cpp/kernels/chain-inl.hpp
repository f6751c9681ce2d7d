// The run of a tile of rows through a whole program: load (or draw) rows, compute all steps, store results.
// Intermediate values never leave scratch.
#pragma once

#include <type_traits>

#include "../math/base_density.hpp"
#include "../math/random.hpp"
#include "../steps/density_draw.hpp"
#include "steps-inl.hpp"
#include "transpose-inl.hpp"

namespace headrace {
namespace {

// Functions that are called a few times for each tile are not inlined, because copies for runs, recorded runs and small
// batches would be a tenth of the compiled code.
#define HR_SHARED [[gnu::noinline]]

HR_FN const char* row_of(const ArrayView& a, int64_t row) {
    return a.data + (a.rows ? a.rows[row] : row) * a.row_stride;
}

// The value that is stored for a coordinate, before its column's support is applied.
template <class T>
HR_FN double stored(const Chain<T>& chain, int column, T value) {
    return chain.store_scale ? double(value) * chain.store_scale[column] + chain.store_shift[column] : double(value);
}

template <class In>
HR_FN double number_at(const char* p) {
    In value;
    __builtin_memcpy(&value, p, sizeof value);
    return double(value);
}

HR_FN double element(const ArrayView& a, int64_t row, int column) {
    const char* p = row_of(a, row) + column * a.column_stride;
    return a.is_double ? number_at<double>(p) : number_at<float>(p);
}

// Loads columns of rows [row, row + rows) to out[slot * slot_stride + r * row_stride], shifted and scaled in float64
// before values are rounded to T.
template <class In, class T>
void load_columns(const ArrayView& a, int columns, const int* slots, const double* shift, const double* scale,
                  int64_t row, int rows, T* out, int64_t slot_stride, int64_t row_stride) {
    if (row_stride == 1 && a.column_stride == sizeof(In) && columns >= least_transposed) {
        const bool adjacent = !a.rows && a.row_stride == columns * int64_t(sizeof(In));
        const auto line_of = [&](int r) { return row_of(a, row + r); };
        rows_to_lines<In>(line_of, adjacent, columns, slots, shift, scale, rows, out, slot_stride);
        return;
    }
    constexpr int block = 16;  // columns at a time, so that the block's lines of the tile stay in L1
    for (int c0 = 0; c0 < columns; c0 += block) {
        const int c1 = columns < c0 + block ? columns : c0 + block;
        for (int r = 0; r < rows; ++r) {
            const char* line = row_of(a, row + r);
            for (int c = c0; c < c1; ++c) {
                double value = number_at<In>(line + c * a.column_stride);
                if (shift) value = (value - shift[c]) * scale[c];
                out[(slots ? slots[c] : c) * slot_stride + r * row_stride] = T(value);
            }
        }
    }
}

template <class T>
HR_SHARED void load_array(const ArrayView& a, int columns, const int* slots, const double* shift, const double* scale,
                          int64_t row, int rows, T* out, int64_t slot_stride, int64_t row_stride) {
    if (a.is_double) {
        load_columns<double>(a, columns, slots, shift, scale, row, rows, out, slot_stride, row_stride);
    } else {
        load_columns<float>(a, columns, slots, shift, scale, row, rows, out, slot_stride, row_stride);
    }
}

// Loads columns with a support, row by row, and adds the support's term of the log-determinants to sum.
template <class T>
HR_SHARED void load_supported(const Chain<T>& chain, const Call<T>& call, int64_t row, int rows, T* out,
                              int64_t slot_stride, int64_t row_stride, T* sum) {
    for (int r = 0; r < rows; ++r) {
        double log_det = 0;
        for (int c = 0; c < chain.features; ++c) {
            const Supported made =
                from_row(chain.load_support[c], element(call.input, row + r, c), call.input.is_double);
            log_det += made.log_det;
            double value = made.value;
            if (chain.load_shift) value = (value - chain.load_shift[c]) * chain.load_scale[c];
            out[chain.load_slot[c] * slot_stride + r * row_stride] = T(value);
        }
        sum[r] += T(log_det);
    }
}

// Adds the log-derivatives of the maps of columns to their support to the log-determinants; NaN where a value
// overflows.
template <class T>
HR_SHARED void add_store_support(const Chain<T>& chain, const T* in, int64_t slot_stride, int64_t row_stride, int rows,
                                 T* sum) {
    if (!chain.store_support) return;
    for (int r = 0; r < rows; ++r) {
        double log_det = 0;
        for (int c = 0; c < chain.features; ++c) {
            const Supported made = to_support(chain.store_support[c],
                                              stored(chain, c, in[chain.store_slot[c] * slot_stride + r * row_stride]));
            log_det += made.log_det + double(poison(T(made.value)));
        }
        sum[r] += T(log_det);
    }
}

template <class T, class Out>
HR_SHARED void store_columns(const Chain<T>& chain, const T* in, int64_t slot_stride, int64_t row_stride, int rows,
                             Out* out) {
    if constexpr (std::is_same_v<T, Out>) {
        if (row_stride == 1 && chain.features >= least_transposed && !chain.store_support) {
            lines_to_rows(in, slot_stride, chain.features, chain.store_slot, chain.store_shift, chain.store_scale, rows,
                          out);
            return;
        }
    }
    constexpr int block = 16;
    for (int c0 = 0; c0 < chain.features; c0 += block) {
        const int c1 = chain.features < c0 + block ? chain.features : c0 + block;
        for (int r = 0; r < rows; ++r)
            for (int c = c0; c < c1; ++c) {
                const T value = in[chain.store_slot[c] * slot_stride + r * row_stride];
                Out& place = out[int64_t(r) * chain.features + c];
                if (chain.store_support) {
                    const SupportColumn& support = chain.store_support[c];
                    const double x = to_support(support, stored(chain, c, value)).value;
                    place = inside<Out>(support, x, sizeof(Out) > sizeof(T));
                } else {
                    place = chain.store_scale ? Out(stored(chain, c, value)) : Out(value);
                }
            }
    }
}

template <class T>
void store_value(const Chain<T>& chain, const Call<T>& call, const T* in, int64_t slot_stride, int64_t row_stride,
                 int64_t row, int rows) {
    if (call.value) store_columns(chain, in, slot_stride, row_stride, rows, call.value + row * chain.features);
    if (call.wide_value)
        store_columns(chain, in, slot_stride, row_stride, rows, call.wide_value + row * chain.features);
}

// Draws columns [4 block, 4 block + 4) of width<T> rows from `row` on.
template <class T>
HR_SHARED Columns<Pack<T>> draw(const Chain<T>& chain, const Call<T>& call, int64_t row, int block) {
    using U = typename Lane<Pack<T>>::U32;
    U low, high;
    for (int i = 0; i < width<T>; ++i) {
        const uint64_t number = uint64_t(call.first_row) + uint64_t(row) + uint64_t(i);
        low[i] = uint32_t(number);
        high[i] = uint32_t(number >> 32);
    }
    if (chain.density) {
        const int first = 4 * block, count = chain.features - first < 4 ? chain.features - first : 4;
        int slot_of[4] = {};
        for (int i = 0; i < count; ++i) slot_of[i] = chain.load_slot[first + i] - chain.context;
        return density_columns<Pack<T>>(*chain.density, call.ready, chain.features, slot_of, count, call.seed, low,
                                        high, uint32_t(block));
    }
    return base_columns<Pack<T>>(call.base == Base::logistic, call.seed, low, high, uint32_t(block));
}

// Stores sums of rows: log-determinants for log_det, and for log_prob also the base density, with the sign of the
// direction.
template <class T>
HR_SHARED void store_sums(const Chain<T>& chain, const Call<T>& call, int64_t row, int rows, const T* log_det,
                          const T* base) {
    for (int r = 0; r < rows; ++r) {
        const double total = double(log_det[r]) + chain.log_det;
        if (call.log_det) call.log_det[row + r] = T(total);
        if (call.log_prob)
            call.log_prob[row + r] =
                T(double(base[r]) + base_constant(call.base, chain.features) + (call.inverse ? total : -total));
        if (call.log_prob && call.inverse && chain.load_support && total != total &&
            is_row_outside(
                chain.load_support, chain.features, chain.context, call.input.is_double,
                [&](int c) { return element(call.input, row + r, c); },
                [&](int c) { return element(call.context, row + r, c); }))
            call.log_prob[row + r] = -infinity<T>();
    }
}

// Loads context and coordinates, or a sample, to b.given; b.sum starts as 0, or as NaN for a row that is not finite.
template <class T>
HR_SHARED void load_tile(const Chain<T>& chain, const Call<T>& call, int64_t row, int rows, const TileBuffers<T>& b) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    const int64_t height = b.height, used = int64_t(b.vectors) * W, slots = chain.context + chain.features;
    for (int64_t i = 0; i < used; i += W) store(b.sum + i, V{});
    const auto clear_last_vector = [&](int64_t begin, int64_t end) {  // lanes after the last row become finite
        if (rows < used)
            for (int64_t s = begin; s < end; ++s) store(b.given + s * height + used - W, V{});
    };
    const auto mark_bad = [&](int64_t begin, int64_t end) {
        for (int64_t i = 0; i < used; i += W) {
            V bad{};
            for (int64_t s = begin; s < end; ++s) {
                T* p = b.given + s * height + i;
                const V x = load(p), zero = poison(x);
                bad += zero;
                store(p, select(zero == T(0), x, zero));
            }
            store(b.sum + i, load(b.sum + i) + bad);
        }
    };
    if (call.input.data) {
        clear_last_vector(chain.context, slots);
        if (chain.load_support) {
            load_supported(chain, call, row, rows, b.given, height, int64_t(1), b.sum);
        } else {
            load_array(call.input, chain.features, chain.load_slot, chain.load_shift, chain.load_scale, row, rows,
                       b.given, height, int64_t(1));
        }
        mark_bad(chain.context, slots);
    } else {
        for (int c = 0; c < chain.features; c += 4)
            for (int64_t i = 0; i < used; i += W) {
                const Columns<V> z = draw(chain, call, row + i, c / 4);
                for (int k = 0; k < 4 && c + k < chain.features; ++k)
                    store(b.given + chain.load_slot[c + k] * height + i, z.column[k]);
            }
    }
    if (chain.context > 0 && !call.context_is_folded) {
        clear_last_vector(0, chain.context);
        load_array(call.context, chain.context, static_cast<const int*>(nullptr), chain.context_shift,
                   chain.context_scale, row, rows, b.given, height, int64_t(1));
        mark_bad(0, chain.context);
    }
}

// The base's log-density of each row at a state of the chain.
template <class T>
HR_SHARED void tile_base_density(const Chain<T>& chain, const Call<T>& call, const TileBuffers<T>& b, const T* z,
                                 T* out) {
    for (int64_t i = 0; i < b.vectors * int64_t(width<T>); i += width<T>) {
        Pack<T> sum{};
        if (chain.density)
            sum = log_density<Pack<T>>(*chain.density, call.ready, chain.features,
                                       [&](int s) { return load(z + (chain.context + s) * b.height + i); });
        for (int64_t s = chain.context; s < chain.context + chain.features && !chain.density; ++s)
            sum += base_log_density(call.base, load(z + s * b.height + i));
        store(out + i, sum);
    }
}

// Makes rows NaN whose coordinates or log-determinants are not finite at the end of the chain. No step makes an
// infinite coordinate finite again.
template <class T>
HR_SHARED void mark_overflows(const Chain<T>& chain, const TileBuffers<T>& b, T* z) {
    using V = Pack<T>;
    const int64_t begin = chain.context, end = chain.context + chain.features;
    for (int64_t i = 0; i < b.vectors * int64_t(width<T>); i += width<T>) {
        V bad = poison(load(b.sum + i));
        for (int64_t s = begin; s < end; ++s) bad += poison(load(z + s * b.height + i));
        if (!any_lane<V>(select(bad == T(0), Int<V>{}, Int<V>{} + 1))) continue;
        store(b.sum + i, load(b.sum + i) + bad);
        for (int64_t s = begin; s < end; ++s) {
            T* p = z + s * b.height + i;
            store(p, select(bad == T(0), load(p), bad));
        }
    }
}

template <class T>
void run_tile(const Chain<T>& chain, const Call<T>& call, int64_t row, int rows, int vectors, T* scratch) noexcept {
    const int64_t height = int64_t(vectors) * width<T>, slots = chain.context + chain.features;
    TileBuffers<T> b;
    b.vectors = vectors;
    b.height = height;
    b.given = scratch;
    b.built = b.given + slots * height;
    b.units = b.built + slots * height;
    b.pairs = as_pairs(b.units + chain.units * height);
    b.sum = b.units + (chain.units + chain.pairs) * height;
    load_tile(chain, call, row, rows, b);
    if (!call.context_is_folded)
        for (int64_t i = 0; i < chain.context * height; i += width<T>) store(b.built + i, load(b.given + i));

    T base[max_tile_vectors * width<T>];
    if (call.log_prob && !call.inverse) tile_base_density(chain, call, b, b.given, base);
    run_steps(chain, call, b);
    add_store_support(chain, b.given, height, int64_t(1), rows, b.sum);
    mark_overflows(chain, b, b.given);
    if (call.log_prob && call.inverse) tile_base_density(chain, call, b, b.given, base);
    store_value(chain, call, b.given, height, int64_t(1), row, rows);
    store_sums(chain, call, row, rows, b.sum, base);
}

// Loads a small batch, as load_tile loads a tile.
template <class T>
HR_FN void load_small(const Chain<T>& chain, const Call<T>& call, const SmallBuffers<T>& b) {
    constexpr int W = width<T>;
    const int slots = chain.context + chain.features, rows = b.rows;
    T* const sum = b.sum;
    if (call.input.data) {
        if (chain.load_support) {
            load_supported(chain, call, int64_t(0), rows, b.given, int64_t(1), b.stride, sum);
        } else {
            load_array(call.input, chain.features, chain.load_slot, chain.load_shift, chain.load_scale, int64_t(0),
                       rows, b.given, int64_t(1), b.stride);
        }
        for (int r = 0; r < rows; ++r)
            for (int s = chain.context; s < slots; ++s) {
                T& x = b.given[r * b.stride + s];
                const T zero = poison(x);
                sum[r] += zero;
                if (!(zero == T(0))) x = zero;
            }
    } else {
        for (int c = 0; c < chain.features; c += 4)
            for (int r0 = 0; r0 < rows; r0 += W) {
                const auto z = draw(chain, call, r0, c / 4);
                for (int k = 0; k < 4 && c + k < chain.features; ++k)
                    for (int r = r0; r < rows && r < r0 + W; ++r)
                        b.given[r * b.stride + chain.load_slot[c + k]] = z.column[k][r - r0];
            }
    }
    if (chain.context > 0) {
        load_array(call.context, chain.context, static_cast<const int*>(nullptr), chain.context_shift,
                   chain.context_scale, int64_t(0), rows, b.given, int64_t(1), b.stride);
        for (int r = 0; r < rows; ++r)
            for (int s = 0; s < chain.context; ++s) {
                T& x = b.given[r * b.stride + s];
                const T zero = poison(x);
                sum[r] += zero;
                if (!(zero == T(0))) x = zero;
                b.built[r * b.stride + s] = x;
            }
    }
}

template <class T>
void run_small(const Chain<T>& chain, const Call<T>& call, T* scratch) noexcept {
    constexpr int W = width<T>;
    const int slots = chain.context + chain.features, rows = int(call.rows);
    const int64_t padded = (slots + row_padding - 1) / row_padding * row_padding;
    T sum[small_batch] = {}, base[small_batch] = {};
    SmallBuffers<T> b;
    b.stride = 2 * padded + chain.units + chain.pairs + chain.sums;
    b.given = scratch;
    b.built = b.given + padded;
    b.units = b.built + padded;
    b.pairs = as_pairs(b.units + chain.units);
    b.sums = b.units + chain.units + chain.pairs;
    b.sum = sum;
    b.rows = rows;
    for (int r = 0; r < rows; ++r)
        for (int64_t i = 0; i < 2 * padded; i += W) store(b.given + r * b.stride + i, Pack<T>{});

    load_small(chain, call, b);
    const auto base_density = [&](const T* z) {
        for (int r = 0; r < rows; ++r) {
            if (chain.density) {
                const T* const first = z + r * b.stride + chain.context;
                base[r] = log_density<T>(*chain.density, call.ready, chain.features, [&](int s) { return first[s]; });
                continue;
            }
            Pack<T> total{};
            for (int s = chain.context; s < slots; s += W) {  // the padding is zero, and its density is not added
                Pack<T> v{};
                const int n = slots - s < W ? slots - s : W;
                for (int i = 0; i < n; ++i) v[i] = z[r * b.stride + s + i];
                v = base_log_density(call.base, v);
                for (int i = n; i < W; ++i) v[i] = T(0);
                total += v;
            }
            base[r] = reduce_add(total);
        }
    };
    if (call.log_prob && !call.inverse) base_density(b.given);
    run_steps(chain, call, b);
    add_store_support(chain, b.given, int64_t(1), b.stride, rows, sum);
    for (int r = 0; r < rows; ++r) {  // makes rows NaN as mark_overflows does
        T* const z = b.given + r * b.stride;
        T bad = poison(sum[r]);
        for (int s = chain.context; s < slots; ++s) bad += poison(z[s]);
        if (bad == T(0)) continue;
        sum[r] = bad;
        for (int s = chain.context; s < slots; ++s) z[s] = bad;
    }
    if (call.log_prob && call.inverse) base_density(b.given);
    store_value(chain, call, b.given, int64_t(1), b.stride, int64_t(0), rows);
    store_sums(chain, call, int64_t(0), rows, sum, base);
}

}  // namespace
}  // namespace headrace
