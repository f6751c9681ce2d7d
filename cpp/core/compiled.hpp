// A program's steps in one direction: the arguments of the kernels, and the owners of their memory.
#pragma once

#include <memory>
#include <vector>

#include "kept.hpp"
#include "structure.hpp"

namespace headrace {

template <class T>
struct Compiled {
    int number = 0;  // among the chains of its program: forward and inverse with the base, then without
    Chain<T> chain;
    std::vector<Step<T>> steps;
    std::vector<const Conditioner*> conditioners;  // of each network step; null for other steps
    std::vector<int> networks;
    std::vector<int> load_slot, store_slot;
    std::vector<double> load_shift, load_scale, store_shift, store_scale;
    std::vector<SupportColumn> load_support, store_support;
    Kept kept;  // targets of the steps' pointers
};

}  // namespace headrace
