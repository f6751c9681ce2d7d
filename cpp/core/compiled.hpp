// The steps of a program in one direction: arguments of kernels, and the owners of the memory that these point to.
#pragma once

#include <memory>
#include <vector>

#include "kept.hpp"
#include "structure.hpp"

namespace headrace {

template <class T>
struct Compiled {
    int number = 0;  // index among the chains of its program: forward and inverse with the base, then forward and
                     // inverse without the base
    Chain<T> chain;
    std::vector<Step<T>> steps;
    std::vector<const Conditioner*> conditioners;  // conditioner of each network step; null for other steps
    std::vector<int> networks;
    std::vector<int> load_slot, store_slot;
    std::vector<double> load_shift, load_scale, store_shift, store_scale;
    std::vector<SupportColumn> load_support, store_support;
    Kept kept;  // owner of the memory that the steps' pointers refer to
};

}  // namespace headrace
