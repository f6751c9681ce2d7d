#include "streams.hpp"

#include <algorithm>

#include "../threads.hpp"
#include "calls.hpp"

namespace headrace {

template <class T>
CausalStreams<T>::CausalStreams(const CausalNetwork& network, int64_t rows, int width)
    : network_(network), layers_(network.layers, network.layers + network.n_layers), rows_(rows), width_(width) {
    network_.layers = layers_.data();
    place(rows);
}

// Divides rows into panels of nearly equal size, of up to three vectors or of a few streams with lanes of units, at
// least one panel for each thread.
template <class T>
void CausalStreams<T>::place(int64_t rows) {
    constexpr int64_t most_vectors = 3;
    const bool of_units = rows < least_panel_streams;
    const int64_t unit = of_units ? 1 : width_, most = of_units ? most_unit_rows : most_vectors;
    const int64_t units = (rows + unit - 1) / unit;
    const int64_t panels = std::max((units + most - 1) / most, std::min<int64_t>(units, num_threads()));
    for (int64_t p = 0, first = 0, begin = 0; p < panels; ++p) {
        const int64_t end = units * (p + 1) / panels, streams = std::min((end - begin) * unit, rows - first);
        const size_t numbers = size_t(network_.state) * size_t((end - begin) * unit);
        panels_.push_back({aligned_zeros<T>(numbers), of_units ? 1 : int((end - begin) * unit), first, streams});
        first += streams;
        begin = end;
    }
}

template <class T>
const typename CausalStreams<T>::Panel& CausalStreams<T>::panel_of(int64_t row) const {
    return *(std::upper_bound(panels_.begin(), panels_.end(), row,
                              [](int64_t r, const Panel& panel) { return r < panel.first; }) -
             1);
}

template <class T>
int64_t CausalStreams<T>::numbers() const {
    int64_t n = int64_t(network_.kernel) * network_.inputs;
    for (const CausalLayer& layer : layers_) n += ring_slots(network_, layer) * network_.channels;
    return n;
}

// Calls visit(index in the row of `store`, value of the state) for each value.
template <class T>
template <class F>
void CausalStreams<T>::for_numbers(const Panel& panel, int64_t lane, F&& visit) const {
    int64_t index = 0;
    T* const numbers = stream_numbers(network_, state(panel), lane);
    const auto ring = [&](int64_t start, int64_t slots, int64_t stride, int64_t columns) {
        for (int64_t i = 0; i < slots; ++i) {
            const int64_t slot = (position_ + i) % slots;
            for (int64_t c = 0; c < columns; ++c) visit(index++, numbers[(start + slot * stride + c) * panel.lanes]);
        }
    };
    ring(network_.past, network_.kernel, network_.inputs, network_.inputs);
    for (const CausalLayer& layer : layers_)
        ring(layer.ring, ring_slots(network_, layer), network_.channel_units, network_.channels);
}

template <class T>
void CausalStreams<T>::store(T* to) const {
    for (const Panel& panel : panels_)
        for (int64_t lane = 0; lane < panel.streams; ++lane) {
            T* const row = to + (panel.first + lane) * numbers();
            for_numbers(panel, lane, [&](int64_t i, T& number) { row[i] = number; });
        }
}

template <class T>
void CausalStreams<T>::load(const T* from, int64_t position) {
    position_ = position;
    for (const Panel& panel : panels_)
        for (int64_t lane = 0; lane < panel.streams; ++lane) {
            const T* const row = from + (panel.first + lane) * numbers();
            for_numbers(panel, lane, [&](int64_t i, T& number) { number = row[i]; });
        }
}

template <class T>
CausalStreams<T> CausalStreams<T>::rows_of(const std::vector<int64_t>& chosen) const {
    CausalStreams<T> copy(network_, int64_t(chosen.size()), width_);
    copy.position_ = position_;
    for (const Panel& panel : copy.panels_)
        for (int64_t lane = 0; lane < panel.streams; ++lane) {
            const int64_t row = chosen[size_t(panel.first + lane)];
            const Panel& from = panel_of(row);
            const T* const given = stream_numbers(network_, state(from), row - from.first);
            T* const numbers = stream_numbers(network_, copy.state(panel), lane);
            for (int64_t i = 0; i < network_.state; ++i) numbers[i * panel.lanes] = given[i * from.lanes];
        }
    return copy;
}

template class CausalStreams<float>;
template class CausalStreams<double>;

}  // namespace headrace
