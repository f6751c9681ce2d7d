#include "sequence_links.hpp"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "../../runtime/parts/prediction.hpp"
#include "../core/sequences/prediction.hpp"

namespace headrace {
namespace {

// The values in T: as they are, or converted to memory of the call.
template <class T>
const T* values_in(StepValues given, int64_t n, std::vector<T>& own) {
    if (given.is_double == std::is_same_v<T, double>) return static_cast<const T*>(given.data);
    own.resize(size_t(n));
    const auto convert = [&](const auto* from) {
        std::transform(from, from + n, own.begin(), [](auto x) { return T(x); });
    };
    if (given.is_double) {
        convert(static_cast<const double*>(given.data));
    } else {
        convert(static_cast<const float*>(given.data));
    }
    return own.data();
}

}  // namespace

// ---- transforms of rows

template <class T>
template <class G>
StepValues StepsLink<T>::run_in(const Program<G>& program, const LinkCall<T>& call, StepValues given, T* log_det,
                                Room& room) const {
    const int64_t n = call.rows * call.steps;
    const ArrayView input = given.rows(call.features);
    Request<G> request;
    request.inverse = call.inverse;
    request.with_base = false;
    request.rows = n;
    request.input = &input;
    request.tiles_only = true;  // so that a few steps have the bits of many
    request.value = room.of<G>(call.values() + n);
    request.log_det = request.value + call.values();
    program.run(request);
    using Wide = std::common_type_t<T, G>;
    for (int64_t i = 0; i < n; ++i) log_det[i] = T(Wide(log_det[i]) + Wide(request.log_det[i]));
    return StepValues::of(request.value);
}

template <class T>
StepValues StepsLink<T>::run(const LinkCall<T>& call, StepValues given, T* log_det, LinkState<T>&, Room& room) const {
    if (other_ && given.is_double != std::is_same_v<T, double>) return run_in(*other_, call, given, log_det, room);
    return run_in(*own_, call, given, log_det, room);
}

// ---- linear prediction

template <class T>
PredictionLink<T>::PredictionLink(const detail::PredictionDescription<T>& d) : columns_(d.features), order_(d.order) {
    const detail::Predictor own(d.reflection, size_t(columns_), size_t(order_));
    for (const double a : own.coefficients) coefficients_.push_back(T(a));
    for (const double log_gain : own.log_gain) {
        gain_.push_back(detail::narrowed<T>(std::exp(log_gain)));
        log_det_ += log_gain;
    }
}

template <class T>
StepValues PredictionLink<T>::run(const LinkCall<T>& call, StepValues given, T* log_det, LinkState<T>& state,
                                  Room& room) const {
    const int64_t n = call.values();
    const T* x = values_in(given, n, state.work);
    T* const result = room.of<T>(n);
    PredictionCall<T> filter{coefficients_.data(), call.rows, call.steps, columns_, order_,
                             state.past.data(),    x,         result};
    if (call.inverse) {
        residuals_of(filter);
        keep(call, x, state.past);
        for (int64_t i = 0; i < n; ++i) result[i] *= gain_[size_t(i % columns_)];
    } else {
        std::vector<T>& scaled = state.work;
        scaled.resize(size_t(n));
        for (int64_t i = 0; i < n; ++i) scaled[size_t(i)] = x[i] / gain_[size_t(i % columns_)];
        filter.given = scaled.data();
        signals_of(filter);
        keep(call, result, state.past);
    }
    const T own_log_det = T(call.inverse ? log_det_ : -log_det_);
    for (int64_t i = 0; i < call.rows * call.steps; ++i) log_det[i] += own_log_det;
    return StepValues::of(result);
}

// The last steps of x, behind the end of the older ones.
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
NetworkLink<T>::NetworkLink(Description d, bool is_rounded) {
    const auto network = std::make_shared<const CausalConvolution>(
        CausalOptions{d.features, d.is_companded, d.channels, d.skip, d.kernel, d.dilations, d.outputs(), d.context,
                      d.covariates, d.hop});
    std::vector<const T*> tensors{d.input.data(), d.input_bias.data()};
    for (const detail::CausalLayerDescription<T>& layer : d.layers)
        for (const std::vector<T>* one :
             {&layer.gate, &layer.gate_bias, &layer.context, &layer.covariates, &layer.out, &layer.out_bias})
            if (!one->empty()) tensors.push_back(one->data());
    for (const std::vector<T>* one : {&d.head, &d.head_bias, &d.last, &d.last_bias}) tensors.push_back(one->data());
    if (tensors.size() != network->tensors().size())
        throw std::logic_error("layers: expected as many tensors as the network has");
    const size_t n = network->n_weights();
    weights_ = aligned_zeros<T>(n);
    network->pack(tensors, weights_.get());
    if constexpr (std::is_same_v<T, float>) {
        if (is_rounded) {
            Aligned<float> rounded = aligned_zeros<float>(n + network->n_pairs());
            network->round(weights_.get(), rounded.get());
            weights_ = std::move(rounded);
            pairs_ = reinterpret_cast<const uint32_t*>(weights_.get() + n);
        }
    }
    std::shared_ptr<const TransformMap> map;
    if (d.inner) {
        inner_ = compiled_flow<T>(*d.inner, 0);
    } else {
        map = std::make_shared<const TransformMap>(settings_of(d.map));
    }
    transform_ = std::make_shared<const CausalTransform<T>>(network, map, inner_, d.reads_data, d.has_level);
}

template <class T>
StepValues NetworkLink<T>::run(const LinkCall<T>& call, StepValues given, T* log_det, LinkState<T>& state,
                               Room& room) const {
    const CausalNetwork& n = transform_->network().network();
    const ArrayView rows = given.rows(call.features);
    const int64_t steps = call.rows * call.steps;
    SequenceCall<T> own{};
    own.weights = weights_.get();
    own.pairs = pairs_;
    own.rows = call.rows;
    own.steps = call.steps;
    own.given = {rows.data, call.steps * rows.row_stride, rows.row_stride, rows.column_stride, rows.is_double};
    if (n.context > 0) own.context = call.context;
    if (n.covariates > 0) {
        own.covariates = call.frames;
        own.first_frame = call.first_frame;
        own.frames = call.n_frames;
    }
    own.state = state.network ? &*state.network : nullptr;
    own.value = room.of<T>(call.values() + steps);
    own.log_det = own.value + call.values();
    if (inner_) own.inner = inner_->snapshot();
    if (call.inverse == transform_->reads_data()) {
        transform_->parallel(own);
    } else {
        transform_->sequential(own);
    }
    for (int64_t i = 0; i < steps; ++i) log_det[i] += own.log_det[i];
    return StepValues::of(own.value);
}

template <class T>
SequenceLink<T> link_of(detail::LinkDescription<T, LoweredSteps<T>>& d, int features, bool is_rounded) {
    if (auto* const network = std::get_if<detail::CausalDescription<T, LoweredSteps<T>>>(&d))
        return NetworkLink<T>(std::move(*network), is_rounded);
    if (const auto* const prediction = std::get_if<detail::PredictionDescription<T>>(&d))
        return PredictionLink<T>(*prediction);
    using Other = typename StepsLink<T>::Other;
    auto& steps = std::get<detail::StepDescription<LoweredSteps<T>>>(d);
    std::shared_ptr<const Program<Other>> other;
    if (steps.is_fixed) other = compiled_transform<Other>(features, {steps.made.steps, {}});
    return StepsLink<T>(compiled_transform<T>(features, std::move(steps.made)), std::move(other));
}

HR_LINKS_OF(, float)
HR_LINKS_OF(, double)

}  // namespace headrace
