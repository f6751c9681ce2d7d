#include "links.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "prediction.hpp"

namespace headrace {
namespace {

// A view of a contiguous array (rows, steps, columns); null: no array.
template <class T>
SequenceView view_of(const T* data, int64_t steps, int64_t columns) {
    return data ? StepValues::of(data).sequences(steps, columns) : SequenceView{};
}

// A view of an array with one value for each row.
template <class T>
ArrayView column_of(const T* data) {
    return data ? StepValues::of(data).rows(1) : ArrayView{};
}

template <class T>
Cotangent cotangent_of(StepValues value, const T* log_det, int64_t columns) {
    Cotangent from{};
    if (value.data) from.value = value.rows(columns);
    from.row = column_of(log_det);
    from.row_scale = log_det ? 1.0 : 0.0;
    return from;
}

// An array with the lines of each sequence in reversed order: line t is line steps - 1 - t of `given`.
template <class T>
std::vector<T> reversed(const T* given, int64_t rows, int64_t steps, int64_t columns) {
    std::vector<T> all(size_t(rows * steps * columns));
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t t = 0; t < steps; ++t)
            std::copy_n(given + (r * steps + steps - 1 - t) * columns, columns, all.data() + (r * steps + t) * columns);
    return all;
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
    request.tiles_only = true;  // so that results do not depend on the number of steps
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

template <class T>
template <class G>
StepValues StepsLink<T>::back_in(const Program<G>& program, const typename Program<G>::Weights& weights,
                                 const LinkCall<T>& call, StepValues given, const LinkCotangent<T>& from, G* by_weights,
                                 LinkRoom<T>& room) const {
    const ArrayView input = given.rows(call.features);
    Request<G> request;
    request.inverse = call.inverse;
    request.with_base = false;
    request.rows = call.rows * call.steps;
    request.input = &input;
    GradientRequest<G> gradient{cotangent_of(from.value, from.log_det, call.features)};
    gradient.input = room.result.template of<G>(call.values());
    gradient.weights = by_weights;
    program.run_gradient(request, gradient, weights);
    return StepValues::of(gradient.input);
}

template <class T>
StepValues StepsLink<T>::back(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given, StepValues,
                              const LinkCotangent<T>& from, const LinkGradient<T>& to, LinkRoom<T>& room) const {
    if (is_in_other(given)) return back_in<Other>(*other_, weights.in_other, call, given, from, nullptr, room);
    return back_in<T>(*own_, weights.program, call, given, from, n_weights() > 0 ? to.weights : nullptr, room);
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

// Appends the steps of x to `past`, and keeps the last `order` steps of both together.
template <class T>
void PredictionLink<T>::keep(const LinkCall<T>& call, const T* x, std::vector<T>& past) const {
    const int64_t kept = order_ * columns_, given = call.steps * columns_, moved = std::min(kept, given);
    for (int64_t r = 0; r < call.rows; ++r) {
        T* const own = past.data() + r * kept;
        std::copy(own + moved, own + kept, own);
        std::copy_n(x + (r + 1) * given - moved, moved, own + kept - moved);
    }
}

// Let u be the gradient by the residual e = x - sum a x before its gain. From x to residuals, the gradient by x is the
// output of the transposed filter, from the last step on. From residuals to x, the gradient is the solution of the
// transposed filter, by the recursion of the forward pass in reversed time.
template <class T>
StepValues PredictionLink<T>::back(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given,
                                   StepValues result, const LinkCotangent<T>& from, const LinkGradient<T>& to,
                                   LinkRoom<T>& room) const {
    const int64_t n = call.values();
    const std::vector<T>& gain = weights.filter.gain;
    std::vector<T> by_value(size_t(n), T(0));
    if (from.value.data) std::copy_n(values_in(from.value, n, room.work), n, by_value.data());
    std::vector<T> scaled = by_value;
    if (call.inverse)
        for (int64_t i = 0; i < n; ++i) scaled[size_t(i)] *= gain[size_t(i % columns_)];
    const std::vector<T> backwards = reversed(scaled.data(), call.rows, call.steps, columns_);
    room.work.resize(size_t(n));
    PredictionCall<T> filter{weights.filter.coefficients.data(),
                             call.rows,
                             call.steps,
                             columns_,
                             order_,
                             nullptr,
                             backwards.data(),
                             room.work.data()};
    if (call.inverse) {
        residuals_of(filter);
    } else {
        signals_of(filter);
    }
    std::vector<T> by_x = reversed(room.work.data(), call.rows, call.steps, columns_);
    T* const inputs = room.result.template of<T>(n);
    for (int64_t i = 0; i < n; ++i)
        inputs[i] = call.inverse ? by_x[size_t(i)] : by_x[size_t(i)] / gain[size_t(i % columns_)];
    if (to.terms) {
        to.terms->by_value = std::move(by_value);
        to.terms->by_residual = std::move(call.inverse ? scaled : by_x);
        to.terms->x = call.inverse ? given : result;
        to.terms->z = call.inverse ? result : given;
    }
    return StepValues::of(inputs);
}

// ---- causal networks

template <class T>
LinkSides NetworkLink<T>::sides() const {
    const CausalNetwork& n = transform_->network().network();
    if (reads_sizes_) return {n.context, 0, 1};
    return {n.context, n.covariates, n.hop};
}

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
    if (state && state->network) own.state = &*state->network;
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
    if (runs_at_once(call.inverse)) {
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

template <class T>
StepValues NetworkLink<T>::back(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given,
                                StepValues result, const LinkCotangent<T>& from, const LinkGradient<T>& to,
                                LinkRoom<T>& room) const {
    const bool is_sequential = !runs_at_once(call.inverse);
    const T* const own = values_in(given, call.values(), room.work);
    // Arguments of the network, with values of the side that it reads.
    SequenceCall<T> network = call_of(call, weights, is_sequential ? result : StepValues::of(own), nullptr);
    SequenceGradient<T> gradient{};
    gradient.given = room.result.template of<T>(call.values());
    gradient.weights = to.weights;
    if (network.context) gradient.context = to.context;
    if (network.covariates) gradient.covariates = to.frames;  // null where the network's covariates are running sizes
    gradient.is_sequential = is_sequential;
    if (transform_->inner()) return back_of_inner(call, weights, own, network, gradient, from);
    if (from.value.data) gradient.value = from.value.sequences(call.steps, call.features);
    gradient.log_det = view_of(from.log_det, call.steps, 1);
    sequence_vjp(*transform_, network, gradient);
    return StepValues::of(gradient.given);
}

// The backward pass of a network and its inner flow. Gradients by the context of the inner flow are gradients by the
// network's outputs, and inputs of the network have gradients through the flow and through the network. In the
// sequential direction the network reads the resulting values. The gradients by resulting values are computed first,
// from the last step to the first, by a linear recursion that needs the derivatives of each step's values by the
// outputs.
template <class T>
StepValues NetworkLink<T>::back_of_inner(const LinkCall<T>& call, const LinkWeights<T>& weights, const T* given,
                                         SequenceCall<T>& network, SequenceGradient<T>& gradient,
                                         const LinkCotangent<T>& from) const {
    const Program<T>& inner = *transform_->inner();
    const int64_t n = call.rows * call.steps, features = call.features, columns = inner.context();
    std::vector<T> raw(size_t(n * columns)), by_raw(size_t(n * columns)), by_steps(size_t(n * features));
    network.raw = raw.data();
    transform_->parallel(network);
    network.raw = nullptr;

    const ArrayView input = StepValues::of(given).rows(features), context = StepValues::of(raw.data()).rows(columns);
    Request<T> request;
    request.inverse = call.inverse;
    request.with_base = false;
    request.rows = n;
    request.input = &input;
    request.context = &context;
    const auto inner_back = [&](const Cotangent& by, T* by_input, T* by_context, T* by_weights) {
        GradientRequest<T> own{by};
        own.input = by_input;
        own.context = by_context;
        own.weights = by_weights;
        inner.run_gradient(request, own, weights.program);
    };
    T* const of_inner = gradient.weights ? gradient.weights + transform_->network().n_weights() : nullptr;
    T* const inputs = gradient.given;
    if (!gradient.is_sequential) {
        inner_back(cotangent_of(from.value, from.log_det, features), by_steps.data(), by_raw.data(), of_inner);
        gradient.raw = view_of(by_raw.data(), call.steps, columns);
        sequence_vjp(*transform_, network, gradient);
        for (int64_t i = 0; i < call.values(); ++i) inputs[i] += by_steps[size_t(i)];
        return StepValues::of(inputs);
    }
    std::vector<T> slopes(size_t(n * features * columns)), one(size_t(n * features));
    for (int64_t c = 0; c < features; ++c) {
        for (int64_t i = 0; i < n; ++i) one[size_t(i * features + c)] = T(1);
        inner_back(cotangent_of<T>(StepValues::of(one.data()), nullptr, features), nullptr, by_raw.data(), nullptr);
        for (int64_t i = 0; i < n; ++i) {
            std::copy_n(by_raw.data() + i * columns, columns, slopes.data() + (i * features + c) * columns);
            one[size_t(i * features + c)] = T(0);
        }
    }
    inner_back(cotangent_of(StepValues{}, from.log_det, features), nullptr, by_raw.data(), nullptr);
    if (from.value.data) gradient.value = from.value.sequences(call.steps, features);
    gradient.raw = view_of(by_raw.data(), call.steps, columns);
    gradient.slopes = view_of(slopes.data(), call.steps, features * columns);
    sequence_vjp(*transform_, network, gradient);
    inner_back(cotangent_of(StepValues::of(inputs), from.log_det, features), by_steps.data(), nullptr, of_inner);
    std::copy(by_steps.begin(), by_steps.end(), inputs);
    return StepValues::of(inputs);
}

template <class T>
StepValues NetworkLink<T>::back_from_base(const LinkCall<T>& call, const LinkWeights<T>& weights, StepValues given,
                                          Base base, const T* by_log_prob, const LinkGradient<T>& to, T* log_det,
                                          LinkRoom<T>& z, LinkRoom<T>& room) const {
    const int64_t n = call.rows * call.steps;
    const T* const own = values_in(given, call.values(), room.work);
    SequenceCall<T> network = call_of(call, weights, StepValues::of(own), nullptr);
    network.value = z.result.template of<T>(call.values() + n);
    network.log_det = network.value + call.values();
    SequenceGradient<T> gradient{};
    gradient.given = room.result.template of<T>(call.values());
    gradient.weights = to.weights;
    if (network.context) gradient.context = to.context;
    if (network.covariates) gradient.covariates = to.frames;
    gradient.log_prob = view_of(by_log_prob, call.steps, 1);
    gradient.base = base;
    sequence_vjp(*transform_, network, gradient);
    for (int64_t i = 0; i < n; ++i) log_det[i] += network.log_det[i];
    return StepValues::of(gradient.given);
}

// ---- adaptive linear prediction

template <class T>
StepValues AdaptiveLink<T>::run(const LinkCall<T>& call, const LinkWeights<T>&, StepValues given, T* log_det,
                                LinkState<T>* state, LinkRoom<T>& room) const {
    const int64_t n = call.values();
    room.sizes.resize(size_t(n * adaptive_sizes));
    T* const result = room.result.template of<T>(n);
    filter_.run(AdaptiveCall<T>{call.inverse, call.rows, call.steps, values_in(given, n, room.work),
                                state ? state->past.data() : nullptr, result, log_det, room.sizes.data()});
    return StepValues::of(result);
}

template <class T>
StepValues AdaptiveLink<T>::back(const LinkCall<T>& call, const LinkWeights<T>&, StepValues given, StepValues,
                                 const LinkCotangent<T>& from, const LinkGradient<T>&, LinkRoom<T>& room) const {
    if (!call.inverse)
        throw std::invalid_argument(
            "to_data_vjp: expected a flow without an AdaptivePrediction, which has gradients from data to latent "
            "alone");
    const int64_t n = call.values();
    std::vector<T> converted;
    const T* const by_value = from.value.data ? values_in(from.value, n, converted) : nullptr;
    T* const inputs = room.result.template of<T>(n);
    filter_.back(AdaptiveBack<T>{call.rows, call.steps, values_in(given, n, room.work), by_value, from.log_det,
                                 from.sizes, inputs});
    return StepValues::of(inputs);
}

HR_LINKS_OF(, float)
HR_LINKS_OF(, double)

}  // namespace headrace
