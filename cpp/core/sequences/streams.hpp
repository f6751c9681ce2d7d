// The state of rows of sequences between calls of a causal network.
#pragma once

#include <cstdint>
#include <vector>

#include "../../steps/causal.hpp"
#include "../scratch.hpp"

namespace headrace {

constexpr int64_t least_panel_streams = 16;  // in a panel with fewer streams, lanes are units

template <class T>
class CausalStreams {
  public:
    // A state at the first step; a vector has `width` values.
    CausalStreams(const CausalNetwork& network, int64_t rows, int width);

    int64_t rows() const { return rows_; }
    int64_t position() const { return position_; }
    // The number of values of a row in `load` and `store`.
    int64_t numbers() const;

    struct Panel {
        Aligned<T> numbers;
        int lanes;
        int64_t first, streams;  // rows [first, first + streams)
    };
    const std::vector<Panel>& panels() const { return panels_; }
    CausalState<T> state(const Panel& panel) const { return {panel.numbers.get(), panel.lanes, position_}; }
    // The panel to which a row belongs.
    const Panel& panel_of(int64_t row) const;
    void go_on(int64_t steps) { position_ += steps; }

    // A state with the states of the chosen rows.
    CausalStreams rows_of(const std::vector<int64_t>& chosen) const;

    // Copy the state, (rows, numbers): past inputs (kernel, inputs), then values of each layer ((kernel - 1) dilation,
    // channels), from old to new. The format depends neither on the number of rows nor on the instruction set.
    void store(T* to) const;
    void load(const T* from, int64_t position);

  private:
    void place(int64_t rows);
    template <class F>
    void for_numbers(const Panel& panel, int64_t lane, F&& visit) const;

    CausalNetwork network_;
    std::vector<CausalLayer> layers_;
    int64_t rows_, position_ = 0;
    int width_;
    std::vector<Panel> panels_;
};

extern template class CausalStreams<float>;
extern template class CausalStreams<double>;

}  // namespace headrace
