#include "sequence_links.hpp"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "../../runtime/parts/prediction.hpp"
#include "compiled_file.hpp"

namespace headrace {
namespace {

template <class T>
WeightedLink<T> steps_of(detail::StepDescription<LoweredSteps<T>>& d, int features) {
    using Other = typename StepsLink<T>::Other;
    std::shared_ptr<const Program<Other>> other;
    if (d.is_fixed) other = compiled_transform<Other>(features, {d.made.steps, {}});
    const StepsLink<T> link(compiled_transform<T>(features, std::move(d.made)), std::move(other));
    return {link, link.weights_of(nullptr)};
}

template <class T>
WeightedLink<T> prediction_of(const detail::PredictionDescription<T>& d) {
    const detail::Predictor own(d.reflection, size_t(d.features), size_t(d.order));
    LinkWeights<T> weights;
    for (const double a : own.coefficients) weights.filter.coefficients.push_back(T(a));
    for (const double log_gain : own.log_gain) {
        weights.filter.gain.push_back(detail::narrowed<T>(std::exp(log_gain)));
        weights.filter.log_gain += log_gain;
    }
    return {PredictionLink<T>(d.features, d.order), std::move(weights)};
}

template <class T>
WeightedLink<T> network_of(detail::CausalDescription<T, LoweredSteps<T>>& d, bool is_rounded) {
    const auto network = std::make_shared<const CausalConvolution>(
        CausalOptions{d.features, d.is_companded, d.channels, d.skip, d.kernel, d.dilations, d.outputs(), d.context,
                      d.columns(), d.hop});
    std::vector<const T*> tensors{d.input.data(), d.input_bias.data()};
    for (const detail::CausalLayerDescription<T>& layer : d.layers)
        for (const std::vector<T>* one :
             {&layer.gate, &layer.gate_bias, &layer.context, &layer.covariates, &layer.out, &layer.out_bias})
            if (!one->empty()) tensors.push_back(one->data());
    for (const std::vector<T>* one : {&d.head, &d.head_bias, &d.last, &d.last_bias}) tensors.push_back(one->data());
    if (tensors.size() != network->tensors().size())
        throw std::logic_error("layers: expected as many tensors as the network has");
    std::vector<T> packed(network->n_weights());
    network->pack(tensors, packed.data());
    std::shared_ptr<const TransformMap> map;
    std::shared_ptr<const Program<T>> inner;
    if (d.inner) {
        inner = compiled_flow<T>(*d.inner, 0);
    } else {
        map = std::make_shared<const TransformMap>(settings_of(d.map));
    }
    const auto transform = std::make_shared<const CausalTransform<T>>(network, map, inner, d.reads_data, d.has_level);
    const NetworkLink<T> link(transform, is_rounded, d.reads_sizes);
    return {link, link.weights_of(packed.data(), inner ? inner->snapshot() : nullptr)};
}

}  // namespace

template <class T>
WeightedLink<T> link_of(detail::LinkDescription<T, LoweredSteps<T>>& d, int features, bool is_rounded) {
    if (auto* const network = std::get_if<detail::CausalDescription<T, LoweredSteps<T>>>(&d))
        return network_of<T>(*network, is_rounded);
    if (const auto* const prediction = std::get_if<detail::PredictionDescription<T>>(&d))
        return prediction_of<T>(*prediction);
    if (const auto* const adaptive = std::get_if<detail::AdaptiveDescription>(&d))
        return {AdaptiveLink<T>({adaptive->features, adaptive->order, adaptive->window, adaptive->every,
                                 adaptive->floor, adaptive->ceiling, adaptive->start, adaptive->damping}),
                {}};
    return steps_of<T>(std::get<detail::StepDescription<LoweredSteps<T>>>(d), features);
}

template WeightedLink<float> link_of(detail::LinkDescription<float, LoweredSteps<float>>&, int, bool);
template WeightedLink<double> link_of(detail::LinkDescription<double, LoweredSteps<double>>&, int, bool);

}  // namespace headrace
