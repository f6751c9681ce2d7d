// The owner of the memory that a compiled chain's steps point to.
#pragma once

#include <memory>
#include <utility>
#include <vector>

namespace headrace {

class Kept {
  public:
    // Keeps a vector, and returns the final address of its values.
    template <class Number>
    const Number* keep(std::vector<Number> numbers) {
        const auto owner = std::make_shared<const std::vector<Number>>(std::move(numbers));
        owners_.push_back(owner);
        return owner->data();
    }

  private:
    std::vector<std::shared_ptr<const void>> owners_;
};

}  // namespace headrace
