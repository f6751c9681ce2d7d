#include "program.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "../steps/ready.hpp"
#include "compiled.hpp"
#include "isa.hpp"
#include "threads.hpp"

namespace headrace {
namespace {

// Limits of a tile's height: max_tile_vectors at most, and less where a tile would not fit in the L2 cache.
constexpr int min_tile_vectors = 3;
constexpr int64_t tile_cache_bytes = 768 * 1024;

// The number of rows from which a tile of one vector takes less time than a small batch, whose time grows with its
// rows. This limit is smaller for small networks, because reading weights does not determine their time. Near the
// limit, a tile and a small batch take times that differ by a fifth at most (Zen 4). In bf16 small batches stay faster
// up to more rows, except where levels are computed one after another.
int least_tile_rows(size_t n_weights) {
    return n_weights < (1 << 16) ? 3 : n_weights < (1 << 19) ? 5 : 7;
}

int least_tile_rows_in_bf16(size_t n_weights, bool sequential) {
    return !sequential || n_weights >= (1 << 20) ? small_batch : n_weights < (1 << 16) ? 4 : 5;
}

// Whether some network reads coordinates that are being built.
template <class T>
bool is_sequential(const Compiled<T>& compiled) {
    bool reads_built = false;
    for (const int i : compiled.networks)
        with_step(compiled.steps[size_t(i)], [&]<class S>(const S& step) {
            if constexpr (std::is_same_v<S, NetworkStep<T>>) reads_built = reads_built || step.reads_built;
        });
    return reads_built;
}

const Bf16Kernels& bf16_kernels(int parts, bool steps) {
    return steps ? isa_of_steps().bf16_steps[parts - 1] : active_isa().bf16_pairs[parts - 1];
}

const Bf16Kernels& bf16_kernels(const Bf16Layout& layout) {
    return bf16_kernels(layout.parts, layout.steps);
}

Bf16Layout layout_of(int kind) {
    if (kind < 0 || kind > 2 * most_bf16_parts) throw std::invalid_argument("bf16_kind: expected 0 to 6");
    if (kind == 0) return {};
    return bf16_kernels((kind - 1) % most_bf16_parts + 1, kind > most_bf16_parts).layout;
}

}  // namespace

template <class T>
Program<T>::Program(int features, int context, Base base, std::vector<StepSpec> steps, size_t base_steps,
                    ContextScale context_scale, int bf16_kind)
    : base_(base),
      structure_(features, context, std::move(steps), std::move(context_scale), layout_of(bf16_kind)),
      chains_(structure_, base_steps),
      // The weights are padded, because biases are read in whole vectors.
      weights_(std::make_shared<Published<T>>(aligned_zeros<T>(structure_.n_weights() + row_padding))) {
    active_isa();  // the constructor refuses a bad HEADRACE_ISA, not a later call
    if (bf16_kind > 0 && sizeof(T) != sizeof(float))
        throw std::invalid_argument("bf16_kind: expected none but in a program of float32");
}

template <class T>
Call<T> Program<T>::call_with(const Compiled<T>& compiled, const Request<T>& request, const Weights& weights) const {
    Call<T> call = call_of(request, base_);
    call.weights = weights->numbers();
    if (compiled.chain.ready > 0)
        call.ready = weights->ready(compiled.number, [&] { return prepare(compiled.chain, weights->numbers()); });
    if constexpr (std::is_same_v<T, float>)
        if (structure_.n_pairs() > 0) {
            call.bf16 = &bf16_kernels(structure_.bf16());
            call.rounded = weights->rounded(false, [&] { return rounded(weights->numbers(), false); });
        }
    return call;
}

template <class T>
Aligned<uint32_t> Program<T>::rounded(const float* weights, bool back) const {
    Aligned<uint32_t> pairs = aligned_memory<uint32_t>(back ? structure_.n_back_pairs() : structure_.n_pairs());
    struct Task {
        RoundedLayer of;
        uint32_t *words, *of_tiles;
    };
    std::vector<Task> tasks;
    for (size_t i = 0; i < structure_.steps().size(); ++i) {
        const Bf16Layout layout = structure_.bf16_of(i);
        if (layout.parts == 0) continue;
        uint32_t* const out = pairs.get() + (back ? structure_.back_pairs_of(i) : structure_.pairs_of(i));
        uint32_t* const of_tiles = out + structure_.conditioner(i)->n_pairs(layout).tiles;
        for (RoundedLayer& rounded : structure_.conditioner(i)->rounded(layout)) {
            rounded.layer.weights = weights + structure_.weights_of(i);
            tasks.push_back({std::move(rounded), out, of_tiles});
        }
    }
    const Bf16Kernels& kernels = bf16_kernels(structure_.bf16());
    parallel_for(int64_t(tasks.size()), [&](int64_t i) {
        const Task& task = tasks[size_t(i)];
        (back ? kernels.round_columns : kernels.round_weights)(task.of.layer, task.words);
        if (!back && kernels.round_tile_weights) kernels.round_tile_weights(task.of.layer, task.of_tiles);
    });
    return pairs;
}

template <class T>
Aligned<T> Program<T>::prepare(const Chain<T>& chain, const T* weights) const {
    auto ready = aligned_zeros<T>(size_t(chain.ready));
    for (int s = 0; s < chain.n_steps; ++s)
        with_step(chain.steps[s], [&](const auto& step) {
            for (int i = 0; i < ready_parts(step, features()); ++i)
                prepare_part(step, i, features(), weights, ready.get());
        });
    return ready;
}

// Converts gradients by ready parameters to gradients by raw parameters, in place.
template <class T>
void Program<T>::finish(const Chain<T>& chain, const T* weights, T* gradient) const {
    std::vector<double> given;
    for (int s = 0; s < chain.n_steps; ++s)
        with_step(chain.steps[s], [&]<class S>(const S& step) {
            if constexpr (needs_finish<S>)
                for (int i = 0; i < ready_parts(step, features()); ++i) {
                    T* const out = gradient + step.weights[i];
                    given.assign(out, out + step.n_ready);
                    std::fill_n(out, step.n_ready, T(0));
                    finish_part(
                        step, i, features(), weights, [&](int k) { return given[size_t(k)]; },
                        [&](int k, double value) { out[k] = T(value); });
                }
        });
}

template <class T>
void Program<T>::run(const Request<T>& request) const {
    run(request, snapshot());
}

template <class T>
const Compiled<T>& Program<T>::compiled_for(const Request<T>& request) const {
    return chains_.of(request.with_base, request.inverse);
}

template <class T>
void Program<T>::run(const Request<T>& request, const Weights& weights) const {
    if (request.rows == 0) return;
    const KernelsOf<T>& kernels = kernels_of<T>(*active_isa().table);
    const Compiled<T>& compiled = compiled_for(request);
    const Chain<T>& chain = compiled.chain;
    Call<T> call = call_with(compiled, request, weights);

    const int least = structure_.n_pairs() > 0 ? least_tile_rows_in_bf16(n_weights(), is_sequential(compiled))
                                               : least_tile_rows(n_weights());
    if (request.rows < least && !chain.tiles_only && !request.tiles_only) {
        kernels.run_small(chain, call, thread_scratch<T>(small_scratch(chain)));
        return;
    }

    Aligned<T> folded;
    // In bf16 the context cannot be folded into biases, because a unit's sum takes its inputs in a fixed order.
    if (structure_.n_folded() > 0 && request.one_context_row && structure_.n_pairs() == 0) {
        std::vector<T> row(context());
        bool finite = true;
        for (int c = 0; c < context(); ++c) {
            const char* p = call.context.data + c * call.context.column_stride;
            double value;
            if (call.context.is_double) {
                std::copy_n(p, sizeof(double), reinterpret_cast<char*>(&value));
            } else {
                float single;
                std::copy_n(p, sizeof(float), reinterpret_cast<char*>(&single));
                value = single;
            }
            if (chain.context_scale) value = (value - chain.context_shift[c]) * chain.context_scale[c];
            row[c] = T(value);
            finite = finite && std::isfinite(row[c]);
        }
        if (finite) {  // a context that is not finite is not folded, and makes every row NaN
            folded = aligned_zeros<T>(structure_.n_folded());
            for (const Step<T>& step : compiled.steps)
                with_step(step, [&]<class S>(const S& own) {
                    if constexpr (std::is_same_v<S, NetworkStep<T>>)
                        if (own.fold >= 0)
                            kernels.fold_context(own, weights->numbers(), row.data(), context(), folded.get());
                });
            call.context_is_folded = true;
            call.folded = folded.get();
        }
    }

    // Tiles are as equal as possible; the number of tiles is a multiple of the number of threads where there are enough
    // rows.
    const int64_t vectors = (request.rows + kernels.width - 1) / kernels.width;
    const int64_t vector_bytes = tile_scratch(chain, kernels.width) * int64_t(sizeof(T));
    const int64_t most = std::clamp<int64_t>(tile_cache_bytes / vector_bytes, min_tile_vectors, max_tile_vectors);
    const int64_t threads = threads_for(request.rows);
    const int64_t rounds = (vectors + most * threads - 1) / (most * threads);
    const int64_t tile_vectors = (vectors + rounds * threads - 1) / (rounds * threads);
    const int64_t tile_rows = tile_vectors * kernels.width, tiles = (request.rows + tile_rows - 1) / tile_rows;
    const size_t scratch_size = size_t(tile_scratch(chain, tile_rows));
    thread_scratch<T>(scratch_size);  // allocates here, where an error can be reported
    std::atomic<bool> out_of_memory{false};
    parallel_for(tiles, [&](int64_t tile) {
        const int64_t row = tile * tile_rows;
        const int rows = int(std::min(tile_rows, request.rows - row));
        T* scratch;
        try {
            scratch = thread_scratch<T>(scratch_size);
        } catch (const std::bad_alloc&) {
            out_of_memory = true;
            return;
        }
        const Bf16Session session(call.bf16);
        kernels.run_tile(chain, call, row, rows, (rows + kernels.width - 1) / kernels.width, scratch);
    });
    if (out_of_memory) throw std::bad_alloc();
}

template <class T>
typename Program<T>::Weights Program<T>::snapshot() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return weights_;
}

template <class T>
void Program<T>::weights(T* out) const {
    std::copy_n(snapshot()->numbers(), n_weights(), out);
}

template <class T>
Aligned<T> Program<T>::cleared_copy(const T* in) const {
    auto fresh = aligned_memory<T>(n_weights() + row_padding);
    std::fill_n(std::copy_n(in, n_weights(), fresh.get()), row_padding, T(0));
    structure_.clear_masked(fresh.get());
    return fresh;
}

template <class T>
typename Program<T>::Weights Program<T>::weights_of(const T* in) const {
    // Weights often equal those of the previous call: comparing takes less time than copying, and the ready parameters
    // are then computed already.
    Weights last;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        last = given_;
    }
    if (last && std::memcmp(last->numbers(), in, n_weights() * sizeof(T)) == 0) return last;
    Weights fresh = std::make_shared<Published<T>>(cleared_copy(in));
    const std::lock_guard<std::mutex> lock(mutex_);
    given_ = fresh;
    return fresh;
}

template <class T>
void Program<T>::set_weights(const T* in) {
    auto fresh = std::make_shared<Published<T>>(cleared_copy(in));
    const std::lock_guard<std::mutex> lock(mutex_);
    weights_ = std::move(fresh);
}

template <class T>
void Program<T>::update(const std::function<void(T*)>& update) {
    const std::lock_guard<std::mutex> lock(mutex_);  // no thread takes a snapshot in the meantime
    if (weights_.use_count() > 1) {
        auto fresh = std::make_shared<Published<T>>(aligned_zeros<T>(n_weights() + row_padding));
        std::copy_n(weights_->numbers(), n_weights(), fresh->numbers());
        weights_ = std::move(fresh);
    } else {
        std::atomic_thread_fence(std::memory_order_acquire);  // waits for the reads of the last holder
        weights_->forget();
    }
    update(weights_->numbers());
}

template class Program<float>;
template class Program<double>;

}  // namespace headrace
