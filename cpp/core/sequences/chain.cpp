#include "chain.hpp"

#include <algorithm>

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
        if (links[i].network) own.network.emplace(links[i].network->rows_of(chosen));
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
    room.log_det.assign(size_t(call.rows * call.steps), T(0));
    if (state) state->is_broken = true;  // until all links are at one position again
    const size_t n = links_.size();
    for (size_t k = 0; k < n; ++k) {
        const size_t i = call.inverse ? n - 1 - k : k;
        given = std::visit(
            [&](const auto& link) {
                return link.run(call, weights.links[i], given, room.log_det.data(), state ? &state->links[i] : nullptr,
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
