// Resources for placing steps and conditioners on a device: memory, lines of the tape, sums over rows.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "../../cpp/core/compiled.hpp"
#include "../kernels/row_sums.hpp"
#include "arena.hpp"
#include "device_chain.hpp"

namespace headrace {

template <class T>
struct PlacingSite {
    Arena& arena;
    const Compiled<T>& compiled;
    DeviceChain<T> chain{};
    std::vector<SumTask> tasks{};
    std::vector<std::pair<int64_t, int64_t>> summed{};  // ranges in a vector of weights, then ready parameters
    int64_t used_lines = 0;

    // Reserves n lines of the tape, and returns the index of the first.
    int64_t lines(int64_t n) { return std::exchange(used_lines, used_lines + n); }

    // Adds tasks that sum the gradients by n parameters that multiply no input; the first sum has the index `sums`.
    void bare_weights(int64_t grads, int64_t sums, int n) {
        for (int u = 0; u < n; u += sum_units)
            tasks.push_back({grads, 0, 0, sums, nullptr, nullptr, u, std::min(sum_units, n - u), 0, 0});
        summed.push_back({sums, sums + n});
    }
};

}  // namespace headrace
