#include "chain.hpp"

#include <algorithm>
#include <stdexcept>

namespace headrace {

// ---- states

template <class T>
int64_t ChainState<T>::numbers(size_t link) const {
    const LinkState<T>& own = links[link];
    if (own.network) return own.network->numbers();
    return rows > 0 ? int64_t(own.past.size()) / rows : 0;
}

template <class T>
ChainState<T> ChainState<T>::rows_of(const std::vector<int64_t>& chosen) const {
    ChainState other{int64_t(chosen.size()), position, {}, is_broken};
    for (size_t i = 0; i < links.size(); ++i) {
        LinkState<T> own;
        if (const auto& network = links[i].network) own.network.emplace(network->rows_of(chosen));
        const int64_t n = links[i].network ? 0 : numbers(i);
        own.past.reserve(chosen.size() * size_t(n));
        for (const int64_t row : chosen)
            own.past.insert(own.past.end(), links[i].past.begin() + row * n, links[i].past.begin() + (row + 1) * n);
        other.links.push_back(std::move(own));
    }
    return other;
}

template <class T>
void ChainState<T>::store(size_t link, T* to) const {
    const LinkState<T>& own = links[link];
    if (own.network) {
        own.network->store(to);
    } else {
        std::copy(own.past.begin(), own.past.end(), to);
    }
}

template <class T>
void ChainState<T>::load(size_t link, const T* from, int64_t from_position) {
    LinkState<T>& own = links[link];
    if (own.network) {
        own.network->load(from, from_position);
    } else {
        std::copy_n(from, own.past.size(), own.past.begin());
    }
    position = from_position;
}

// ---- noise

template <class T>
void ChainNoise<T>::take(const SequenceChain<T>& chain, const ChainWeights<T>& weights, uint64_t seed, int64_t first,
                         int64_t rows, int64_t begin, int64_t end, T* to) {
    const int64_t features = chain.features(), steps = end - begin;
    for (int64_t t = begin; t < end;) {
        const int64_t index = t / noise_steps, last = std::min(end, (index + 1) * noise_steps);
        if (!is_filled_ || seed_ != seed || first_ != first || rows_ != rows || index_ != index) {
            is_filled_ = false;
            values_.resize(size_t(rows * noise_steps * features));
            chain.draw(weights, seed, (index * most_samples + first) * noise_steps, rows * noise_steps, values_.data());
            is_filled_ = true;
            seed_ = seed;
            first_ = first;
            rows_ = rows;
            index_ = index;
        }
        for (int64_t r = 0; r < rows; ++r)
            std::copy_n(values_.data() + (r * noise_steps + t - index * noise_steps) * features, (last - t) * features,
                        to + (r * steps + t - begin) * features);
        t = last;
    }
}

// ---- chains

namespace {

template <class T>
LinkSides sides_of(const SequenceLink<T>& link) {
    return std::visit([](const auto& one) { return one.sides(); }, link);
}

// Whether a link computes the gradient of a base together with its own gradient.
template <class T>
bool joins_base(const SequenceLink<T>& link, bool inverse) {
    return std::visit(
        [&](const auto& one) {
            if constexpr (requires { one.joins_base(inverse); }) {
                return one.joins_base(inverse);
            } else {
                return false;
            }
        },
        link);
}

}  // namespace

template <class T>
SequenceChain<T>::SequenceChain(int64_t features, std::vector<SequenceLink<T>> links,
                                std::shared_ptr<const Program<T>> base)
    : features_(features), links_(std::move(links)), base_(std::move(base)) {
    begin_.push_back(base_ ? base_->n_weights() : 0);
    for (const SequenceLink<T>& link : links_) {
        begin_.push_back(begin_.back() + std::visit([](const auto& own) { return own.n_weights(); }, link));
        const LinkSides sides = sides_of(link);
        context_ = std::max(context_, sides.context);
        covariates_ = std::max(covariates_, sides.covariates);
        if (sides.covariates > 0) hop_ = sides.hop;
    }
    for (size_t i = 0; i < links_.size(); ++i) {
        if (!reads_sizes(i)) continue;
        if (i + 1 == links_.size() || !std::holds_alternative<AdaptiveLink<T>>(links_[i + 1]))
            throw std::invalid_argument("transforms: expected an AdaptivePrediction behind a network with sizes=True");
        is_apart_ = true;
    }
}

// Whether a link is a network that reads the running sizes of the next link.
template <class T>
bool SequenceChain<T>::reads_sizes(size_t link) const {
    const auto* const network = std::get_if<NetworkLink<T>>(&links_[link]);
    return network && network->reads_sizes();
}

// The arguments of a network that reads running sizes, for steps from `position` on.
template <class T>
LinkCall<T> SequenceChain<T>::with_sizes(const LinkCall<T>& call, const std::vector<T>& sizes, int64_t position) const {
    LinkCall<T> own = call;
    own.frames = sizes.data();
    own.first_frame = position;
    own.n_frames = call.steps;
    return own;
}

template <class T>
std::shared_ptr<const ChainWeights<T>> SequenceChain<T>::weights_of(const T* parameters,
                                                                    std::vector<PredictionFilter<T>> filters) const {
    const auto weights = std::make_shared<ChainWeights<T>>();
    if (base_) weights->base = base_->n_weights() > 0 ? base_->weights_of(parameters) : base_->snapshot();
    size_t predictions = 0;
    for (size_t i = 0; i < links_.size(); ++i)
        weights->links.push_back(std::visit(
            [&]<class L>(const L& link) {
                if constexpr (std::is_same_v<L, PredictionLink<T>>) {
                    LinkWeights<T> own;
                    own.filter = std::move(filters.at(predictions++));
                    return own;
                } else {
                    return link.weights_of(parameters + begin_[i]);
                }
            },
            links_[i]));
    return weights;
}

template <class T>
ChainState<T> SequenceChain<T>::state(int64_t rows) const {
    ChainState<T> state;
    state.rows = rows;
    for (const SequenceLink<T>& link : links_)
        state.links.push_back(std::visit([&](const auto& own) { return own.state(rows); }, link));
    return state;
}

template <class T>
StepValues SequenceChain<T>::run(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues given,
                                 ChainState<T>* state, ChainRoom<T>& room) const {
    if (is_apart_ && !call.inverse) {
        if (state) return run_apart(weights, call, given, *state, room);
        ChainState<T> own = this->state(call.rows);
        return run_apart(weights, call, given, own, room);
    }
    room.log_det.assign(size_t(call.rows * call.steps), T(0));
    if (state) state->is_broken = true;  // broken until all links have the same position again
    const size_t n = links_.size();
    for (size_t k = 0; k < n; ++k) {
        const size_t i = call.inverse ? n - 1 - k : k;
        const LinkCall<T> own =
            reads_sizes(i) ? with_sizes(call, room.links[(k - 1) % 2].sizes, state ? state->position : 0) : call;
        given = std::visit(
            [&](const auto& link) {
                return link.run(own, weights.links[i], given, room.log_det.data(), state ? &state->links[i] : nullptr,
                                room.links[k % 2]);
            },
            links_[i]);
    }
    if (state) {
        state->position += call.steps;
        state->is_broken = false;
    }
    return given;
}

// Runs a chain towards data step by step, where a network reads sizes that the result of the step before determines.
template <class T>
StepValues SequenceChain<T>::run_apart(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues given,
                                       ChainState<T>& state, ChainRoom<T>& room) const {
    const int64_t line = features_, steps = call.steps;
    const T* const z = values_in(given, call.values(), room.steps.work);
    T* const result = room.steps.result.template of<T>(call.values());
    std::vector<T> log_det(size_t(call.rows * steps)), one(size_t(call.rows * line)), sizes;
    LinkCall<T> of_step = call;
    of_step.steps = 1;
    state.is_broken = true;
    for (int64_t t = 0; t < steps; ++t) {
        for (int64_t r = 0; r < call.rows; ++r) std::copy_n(z + (r * steps + t) * line, line, one.data() + r * line);
        StepValues values = StepValues::of(one.data());
        room.log_det.assign(size_t(call.rows), T(0));
        for (size_t i = 0; i < links_.size(); ++i) {
            LinkCall<T> own = of_step;
            if (reads_sizes(i)) {
                sizes.resize(size_t(call.rows * line * adaptive_sizes));
                const auto& adaptive = std::get<AdaptiveLink<T>>(links_[i + 1]).filter();
                adaptive.next_sizes(state.links[i + 1].past.data(), call.rows, sizes.data());
                own = with_sizes(of_step, sizes, state.position);
            }
            values = std::visit(
                [&](const auto& link) {
                    return link.run(own, weights.links[i], values, room.log_det.data(), &state.links[i],
                                    room.links[i % 2]);
                },
                links_[i]);
        }
        const T* const made = static_cast<const T*>(values.data);
        for (int64_t r = 0; r < call.rows; ++r) {
            std::copy_n(made + r * line, line, result + (r * steps + t) * line);
            log_det[size_t(r * steps + t)] = room.log_det[size_t(r)];
        }
        ++state.position;
    }
    state.is_broken = false;
    room.log_det = std::move(log_det);
    return StepValues::of(result);
}

// The base of a chain if the base has no parameters, so that networks can compute the base's gradient with their own;
// otherwise none.
template <class T>
Base SequenceChain<T>::standard() const {
    const bool is_own = base_ && base_->structure().steps().empty();
    return is_own && (base_->base() == Base::normal || base_->base() == Base::logistic) ? base_->base() : Base::none;
}

// The gradient by latent steps; log densities of the steps are added to `to.log_prob`.
template <class T>
StepValues SequenceChain<T>::base_back(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues z,
                                       const T* by_log_prob, const ChainGradient<T>& to, LinkRoom<T>& room) const {
    const int64_t n = call.rows * call.steps;
    const ArrayView input = z.rows(features_);
    Request<T> request;
    request.inverse = true;
    request.rows = n;
    request.input = &input;
    room.work.resize(size_t(n));
    request.log_prob = room.work.data();
    std::vector<T> by_weights(to.weights ? base_->n_weights() : 0);
    GradientRequest<T> gradient{};
    gradient.from.row = StepValues::of(by_log_prob).rows(1);
    gradient.from.row_scale = 1.0;
    gradient.from.of_log_prob = true;
    gradient.input = room.result.template of<T>(call.values());
    if (!by_weights.empty()) gradient.weights = by_weights.data();
    base_->run_gradient(request, gradient, weights.base);
    for (int64_t i = 0; i < n; ++i) to.log_prob[i] += room.work[size_t(i)];
    if (to.weights)
        for (size_t i = 0; i < by_weights.size(); ++i) to.weights[i] += double(by_weights[i]);
    return StepValues::of(gradient.input);
}

template <class T>
void SequenceChain<T>::back(const ChainWeights<T>& weights, const LinkCall<T>& call, StepValues given,
                            const ChainCotangent<T>& from, ChainGradient<T>& to) const {
    const size_t n = links_.size();
    const int64_t steps = call.rows * call.steps;
    const auto index = [&](size_t k) { return call.inverse ? n - 1 - k : k; };
    const auto call_of = [&](size_t k) {
        return reads_sizes(index(k)) ? with_sizes(call, to.memory[k - 1].sizes, 0) : call;
    };
    size_t first = 0;  // the first link in this direction that needs a gradient
    while (!to.with_inputs && first + 1 < n && begin_[index(first) + 1] == begin_[index(first)]) ++first;
    for (size_t i = 0; i < n && !call.inverse; ++i)
        if (const auto* const one = std::get_if<AdaptiveLink<T>>(&links_[i]))
            one->back(call, {}, {}, {}, {}, {}, to.memory.emplace_back());  // throws, because the link has no backward
                                                                            // pass
    std::vector<T> own_log_det(from.log_prob ? 0 : size_t(steps));
    T* const log_det = from.log_prob ? to.log_prob : own_log_det.data();
    std::fill_n(log_det, steps, T(0));
    to.memory.resize(2 * n + 1);
    to.predictions.clear();

    const bool is_fused = from.log_prob && standard() != Base::none && joins_base(links_[index(n - 1)], call.inverse);
    bool runs_last = from.log_prob && !is_fused;
    if (!from.log_prob)
        runs_last = std::visit([&](const auto& link) { return link.needs_result(call.inverse, to.weights != nullptr); },
                               links_[index(n - 1)]);
    std::vector<StepValues> values{given};
    for (size_t k = 0; k + (runs_last ? 0 : 1) < n; ++k)
        values.push_back(std::visit(
            [&](const auto& link) {
                return link.run(call_of(k), weights.links[index(k)], values[k], log_det, nullptr, to.memory[k]);
            },
            links_[index(k)]));

    // Computes gradients of a link, and adds these to the gradients of the chain.
    bool has_context = false, has_frames = false;
    std::vector<T> by_weights, by_context, by_frames, by_sizes;
    const auto added = [&](size_t i, const auto& work) {
        LinkGradient<T> own;
        const size_t size = begin_[i + 1] - begin_[i];
        const bool is_prediction = std::holds_alternative<PredictionLink<T>>(links_[i]);
        if (to.weights && is_prediction) {
            to.predictions.emplace_back();
            to.predictions.back().link = i;
            own.terms = &to.predictions.back();
        } else if (to.weights && size > 0) {
            by_weights.resize(size);
            own.weights = by_weights.data();
        }
        const LinkSides sides = sides_of(links_[i]);
        const bool reads_context = to.context && sides.context > 0, reads_frames = to.frames && sides.covariates > 0;
        const int64_t n_context = call.rows * context_, n_frames = call.rows * call.n_frames * covariates_;
        const auto place = [](bool reads, bool is_second, T* first, std::vector<T>& second, int64_t size_of) {
            if (!reads) return static_cast<T*>(nullptr);
            if (!is_second) return first;
            second.resize(size_t(size_of));
            return second.data();
        };
        own.context = place(reads_context, has_context, to.context, by_context, n_context);
        own.frames = place(reads_frames, has_frames, to.frames, by_frames, n_frames);
        by_sizes.clear();
        if (reads_sizes(i) && n - 2 - i >= first) {  // the link after the network, its adaptive prediction, needs
                                                     // gradients, too
            by_sizes.resize(size_t(call.values() * adaptive_sizes));
            own.frames = by_sizes.data();
        }
        const StepValues by_given = work(own);
        if (to.weights && own.weights)
            for (size_t w = 0; w < size; ++w) to.weights[begin_[i] + w] += double(by_weights[w]);
        if (to.context && own.context && has_context)
            for (int64_t c = 0; c < n_context; ++c) to.context[c] += by_context[size_t(c)];
        if (to.frames && own.frames && has_frames)
            for (int64_t c = 0; c < n_frames; ++c) to.frames[c] += by_frames[size_t(c)];
        has_context = has_context || own.context;
        has_frames = has_frames || (own.frames && !reads_sizes(i));
        return by_given;
    };

    LinkCotangent<T> by{from.value ? StepValues::of(from.value) : StepValues{},
                        from.log_prob ? from.log_prob : from.log_det};
    size_t left = n;
    if (is_fused) {
        LinkRoom<T> z;
        left = n - 1;
        by.value = added(index(left), [&](const LinkGradient<T>& own) {
            return std::visit(
                [&](const auto& link) -> StepValues {
                    if constexpr (requires { link.joins_base(true); })
                        return link.back_from_base(call_of(left), weights.links[index(left)], values[left], standard(),
                                                   from.log_prob, own, log_det, z, to.memory[n + left]);
                    return {};
                },
                links_[index(left)]);
        });
        std::vector<T> log_base(static_cast<size_t>(steps));
        this->log_base(weights, z.result.template of<T>(call.values() + steps), steps, log_base.data());
        for (int64_t i = 0; i < steps; ++i) log_det[i] += log_base[size_t(i)];
    } else if (from.log_prob) {
        by.value = base_back(weights, call, values[n], from.log_prob, to, to.memory[2 * n]);
    }
    std::vector<T> sizes;
    while (left-- > first) {
        sizes = by_sizes;  // gradients by running sizes, from the network to its adaptive prediction, the next link
        by.sizes = sizes.empty() ? nullptr : sizes.data();
        by.value = added(index(left), [&](const LinkGradient<T>& own) {
            return std::visit(
                [&](const auto& link) {
                    return link.back(call_of(left), weights.links[index(left)], values[left],
                                     left + 1 < values.size() ? values[left + 1] : StepValues{}, by, own,
                                     to.memory[n + left]);
                },
                links_[index(left)]);
        });
    }
    to.inputs = by.value;
}

template <class T>
void SequenceChain<T>::log_base(const ChainWeights<T>& weights, const T* z, int64_t n, T* log_prob) const {
    const ArrayView input = StepValues::of(z).rows(features_);
    Request<T> request;
    request.inverse = true;
    request.rows = n;
    request.input = &input;
    request.tiles_only = true;
    request.log_prob = log_prob;
    base_->run(request, weights.base);
}

template <class T>
void SequenceChain<T>::draw(const ChainWeights<T>& weights, uint64_t seed, int64_t first_row, int64_t rows,
                            T* z) const {
    Request<T> request;
    request.seed = seed;
    request.first_row = first_row;
    request.rows = rows;
    request.tiles_only = true;
    request.value = z;
    base_->run(request, weights.base);
}

template struct ChainState<float>;
template struct ChainState<double>;
template class ChainNoise<float>;
template class ChainNoise<double>;
template class SequenceChain<float>;
template class SequenceChain<double>;

}  // namespace headrace
