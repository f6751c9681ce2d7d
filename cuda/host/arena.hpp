// Arrays of many types in one block of device memory. Arrays are placed twice: first to measure their total size, then
// with their final addresses.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace headrace {

class Arena {
  public:
    explicit Arena(char* address) : address_(address) {}

    // Places n values from the host, and returns their future address; null stays null.
    template <class Number>
    const Number* put(const Number* host, size_t n) {
        if (!host) return nullptr;
        constexpr size_t alignment = 256;
        const size_t begin = (bytes_.size() + alignment - 1) / alignment * alignment;
        bytes_.resize(begin + n * sizeof(Number));
        if (n > 0) std::memcpy(bytes_.data() + begin, host, n * sizeof(Number));
        return reinterpret_cast<const Number*>(reinterpret_cast<uintptr_t>(address_) + begin);
    }
    template <class Number>
    const Number* put(const std::vector<Number>& host) {
        return put(host.data(), host.size());
    }

    const std::vector<char>& bytes() const { return bytes_; }

  private:
    char* address_;
    std::vector<char> bytes_;
};

}  // namespace headrace
