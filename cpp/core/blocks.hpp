// Block diagonal square matrices, stored as their blocks row by row, one block after another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

namespace headrace {

// Whether blocks of the given sizes, with `numbers` elements in total, cover the diagonal of an n x n matrix.
inline bool blocks_fit(const std::vector<int>& sizes, size_t n, size_t numbers) {
    for (const int size : sizes) {
        if (size < 1 || size_t(size) > n || size_t(size) * size_t(size) > numbers) return false;
        n -= size_t(size);
        numbers -= size_t(size) * size_t(size);
    }
    return n == 0 && numbers == 0;
}

// Throws unless `matrix` has the elements of an n x n block diagonal matrix, and `order` has each of n features once.
inline void check_turn(const std::vector<double>& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
                       size_t n) {
    if (!blocks_fit(blocks, n, matrix.size()))
        throw std::invalid_argument("matrix: expected the numbers of its blocks, and a row for each feature");
    std::vector<bool> seen(n);
    for (const int from : order) {
        if (from < 0 || size_t(from) >= n || seen[size_t(from)])
            throw std::invalid_argument("order: expected each feature once");
        seen[size_t(from)] = true;
    }
    if (order.size() != n) throw std::invalid_argument("order: expected each feature once");
}

// The index of each row's first element, and the first row of each block; each vector ends with the total.
inline std::pair<std::vector<uint32_t>, std::vector<int>> block_rows(const std::vector<int>& sizes) {
    std::vector<uint32_t> row;
    std::vector<int> first{0};
    uint32_t start = 0;
    for (const int size : sizes) {
        for (int i = 0; i < size; ++i, start += uint32_t(size)) row.push_back(start);
        first.push_back(first.back() + size);
    }
    return {std::move(row), std::move(first)};
}

}  // namespace headrace
