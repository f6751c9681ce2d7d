// Arguments of the kernels on a device: the chain of a program in one direction (cpp/core/views.hpp), with device
// pointers, and additional data.
#pragma once

#include "../../cpp/core/views.hpp"
#include "../../cpp/math/lane.hpp"
#include "../include/launch.cuh"
#include "plan.hpp"

namespace headrace {

// The computation of products of networks: exact in the program's type, or in float32 on tensor cores, which read 11
// significant bits of a factor: with rounded factors, or as three products of factors that are split in two.
enum class Products { exact, tf32, three_tf32 };

template <class T>
union ConditionerParts {
#define HR_MEMBER(name, type) DevicePart<type<T>> name;
    HR_ROW_CONDITIONERS(HR_MEMBER)
#undef HR_MEMBER
};

template <class T>
struct DevicePart<NetworkStep<T>> {
    int64_t grads;       // first line of the tape with gradients by the conditioner's lines
    bool first_weights;  // whether no earlier step has weights
    ConditionerParts<T> conditioner;
};

template <class T>
struct DeviceStep {
    StepKind kind;
    union {
#define HR_MEMBER(name, type) PlacedStep<type<T>> name;
        HR_STEPS(HR_MEMBER)
#undef HR_MEMBER
    };
};

// Whether a kind of step has products; kernels without products lack such kinds.
template <class S>
constexpr bool has_products = false;
template <class T>
constexpr bool has_products<NetworkStep<T>> = true;
template <class T>
constexpr bool has_products<RotationStep<T>> = true;

namespace {

#define HR_OR(name, type) || has_own_kernel<type<T>>
template <class T>
constexpr bool has_own_kernels = false HR_ROW_CONDITIONERS(HR_OR);
#undef HR_OR

// The additional data of a network's conditioner on a device.
#define HR_PART_OF(name, type)                           \
    template <class Part, class T>                       \
    HR_FN auto& part_of(Part& network, const type<T>&) { \
        return network.conditioner.name;                 \
    }
HR_ROW_CONDITIONERS(HR_PART_OF)
#undef HR_PART_OF

}  // namespace

// The tape of a tile that runs forward and backward.
struct DeviceTape {
    int64_t states;     // first line of coordinates and context before each step and after the last
    int64_t gradients;  // first line of gradients by the current state and by the previous state
    int64_t lines;      // total number of lines
};

template <class T>
struct DeviceChain {
    Chain<T> chain;  // the pointer chain.steps is null; DeviceChain::steps replaces it
    const DeviceStep<T>* steps;
    int units;            // scratch lines of the largest step, with one window of the last layer
    bool has_networks;    // whether there are networks, or elementwise maps, which the backward pass treats alike
    bool has_products;    // whether a step is of a kind with products
    bool has_vectors;     // whether there are runs of vector maps
    bool has_own_kernel;  // whether a conditioner has a separate kernel
    bool in_place;        // whether every step can replace its input by its result
    Products products;    // products of networks
    DeviceTape tape;

    HR_FN int slots() const { return chain.context + chain.features; }
    HR_FN int64_t run_lines() const { return (in_place ? 1 : 2) * int64_t(slots()) + units; }
};

// The size of a block's scratch in shared memory: parts of sums, and two sums over each row.
HR_FN int scratch_numbers(int warps) {
    return warps * (sums_at_once * sum_line + 2 * warp_rows);
}

}  // namespace headrace
