#include "links.hpp"

#include <algorithm>
#include <utility>

#include "prediction.hpp"

namespace headrace {
namespace {

// The values in T: as they are, or converted to memory of the call.
template <class T>
const T* values_in(StepValues given, int64_t n, std::vector<T>& work) {
    if (given.is_double == std::is_same_v<T, double>) return static_cast<const T*>(given.data);
    work.resize(size_t(n));
    const auto convert = [&](const auto* from) {
        std::transform(from, from + n, work.begin(), [](auto x) { return T(x); });
    };
    if (given.is_double) {
        convert(static_cast<const double*>(given.data));
    } else {
        convert(static_cast<const float*>(given.data));
    }
    return work.data();
}

}  // namespace

// ---- transforms of rows

template <class T>
LinkWeights<T> StepsLink<T>::weights_of(const T* parameters) const {
    LinkWeights<T> weights;
    weights.program = parameters && n_weights() > 0 ? own_->weights_of(parameters) : own_->snapshot();
    if (other_) weights.in_other = other_->snapshot();
    return weights;
}

template <class T>
template <class G>
StepValues StepsLink<T>::run_in(const Program<G>& program, const typename Program<G>::Weights& weights,
                                const LinkCall<T>& call, StepValues given, T* log_det, LinkRoom<T>& room) const {
    const int64_t n = call.rows * call.steps;
    const ArrayView input = given.rows(call.features);
    Request<G> request;
    request.inverse = call.inverse;
    request.with_base = false;
    request.rows = n;
    request.input = &input;
    request.tiles_only = true;  // so that a few steps have the bits of many
    request.value = room.result.template of<G>(call.values() + n);
    request.log_det = request.value + call.values();
    program.run(request, weights);
    using Wide = std::common_type_t<T, G>;
    for (int64_t i = 0; i < n; ++i) log_det[i] = T(Wide(log_det[i]) + Wide(request.log_det[i]));
    return StepValues::of(request.value);
}

template <class T>
StepValues StepsLink<T>::run(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, T* log_det,
                             LinkState<T>*, LinkRoom<T>& room) const {
    if (is_in_other(given)) return run_in(*other_, weights.in_other, call, given, log_det, room);
    return run_in(*own_, weights.program, call, given, log_det, room);
}

// ---- linear prediction

template <class T>
StepValues PredictionLink<T>::run(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, T* log_det,
                                  LinkState<T>* state, LinkRoom<T>& room) const {
    const int64_t n = call.values();
    const std::vector<T>& gain = weights.filter.gain;
    const T* x = values_in(given, n, room.work);
    T* const result = room.result.template of<T>(n);
    PredictionCall<T> filter{
        weights.filter.coefficients.data(), call.rows, call.steps, columns_, order_, nullptr, x, result};
    if (state) filter.past = state->past.data();
    if (call.inverse) {
        residuals_of(filter);
        if (state) keep(call, x, state->past);
        for (int64_t i = 0; i < n; ++i) result[i] *= gain[size_t(i % columns_)];
    } else {
        room.work.resize(size_t(n));
        for (int64_t i = 0; i < n; ++i) room.work[size_t(i)] = x[i] / gain[size_t(i % columns_)];
        filter.given = room.work.data();
        signals_of(filter);
        if (state) keep(call, result, state->past);
    }
    const T own_log_det = T(call.inverse ? weights.filter.log_gain : -weights.filter.log_gain);
    for (int64_t i = 0; i < call.rows * call.steps; ++i) log_det[i] += own_log_det;
    return StepValues::of(result);
}

// The last steps of x, behind the end of what was there.
template <class T>
void PredictionLink<T>::keep(const LinkCall<T>& call, const T* x, std::vector<T>& past) const {
    const int64_t kept = order_ * columns_, given = call.steps * columns_, moved = std::min(kept, given);
    for (int64_t r = 0; r < call.rows; ++r) {
        T* const own = past.data() + r * kept;
        std::copy(own + moved, own + kept, own);
        std::copy_n(x + (r + 1) * given - moved, moved, own + kept - moved);
    }
}

// ---- causal networks

template <class T>
size_t NetworkLink<T>::n_weights() const {
    const Program<T>* const inner = transform_->inner();
    return size_t(transform_->network().n_weights()) + (inner ? inner->n_weights() : 0);
}

template <class T>
LinkWeights<T> NetworkLink<T>::weights_of(const T* parameters) const {
    const Program<T>* const inner = transform_->inner();
    return weights_of(parameters, inner ? inner->weights_of(parameters + transform_->network().n_weights()) : nullptr);
}

template <class T>
LinkWeights<T> NetworkLink<T>::weights_of(const T* network, typename Program<T>::Weights inner) const {
    const CausalConvolution& own = transform_->network();
    const size_t n = own.n_weights(), n_pairs = is_rounded_ ? own.n_pairs() : 0;
    LinkWeights<T> weights;
    weights.network = aligned_zeros<T>(n + n_pairs);
    weights.program = std::move(inner);
    if constexpr (std::is_same_v<T, float>) {
        if (n_pairs > 0) {
            own.round(network, weights.network.get());
            weights.pairs = reinterpret_cast<const uint32_t*>(weights.network.get() + n);
            return weights;
        }
    }
    std::copy_n(network, n, weights.network.get());
    return weights;
}

template <class T>
SequenceCall<T> NetworkLink<T>::call_of(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given,
                                        LinkState<T>* state) const {
    const CausalNetwork& n = transform_->network().network();
    SequenceCall<T> own{};
    own.weights = weights.network.get();
    own.pairs = weights.pairs;
    own.rows = call.rows;
    own.steps = call.steps;
    own.given = given.sequences(call.steps, call.features);
    if (n.context > 0) own.context = call.context;
    if (n.covariates > 0) {
        own.covariates = call.frames;
        own.first_frame = call.first_frame;
        own.frames = call.n_frames;
    }
    if (state) own.state = &*state->network;
    own.inner = weights.program;
    return own;
}

template <class T>
StepValues NetworkLink<T>::run(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, T* log_det,
                               LinkState<T>* state, LinkRoom<T>& room) const {
    const int64_t steps = call.rows * call.steps;
    SequenceCall<T> own = call_of(call, weights, given, state);
    own.value = room.result.template of<T>(call.values() + steps);
    own.log_det = own.value + call.values();
    if (call.inverse == transform_->reads_data()) {
        transform_->parallel(own);
    } else {
        transform_->sequential(own);
    }
    for (int64_t i = 0; i < steps; ++i) log_det[i] += own.log_det[i];
    return StepValues::of(own.value);
}

template <class T>
void NetworkLink<T>::outputs(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given,
                             LinkState<T>* state, T* raw) const {
    SequenceCall<T> own = call_of(call, weights, given, state);
    own.raw = raw;
    transform_->parallel(own);
}

HR_LINKS_OF(, float)
HR_LINKS_OF(, double)

}  // namespace headrace
