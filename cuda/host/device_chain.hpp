// Arguments of the kernels on the device: a program in one direction (cpp/core/views.hpp), with pointers of the device,
// and additional data.
#pragma once

#include "../../cpp/core/views.hpp"
#include "../../cpp/math/lane.hpp"
#include "../include/launch.cuh"
#include "plan.hpp"

namespace headrace {

// How products of networks are computed: in the program's own type, or in float32 on the tensor cores, whose factors
// have 11 significant bits: with rounded factors, or as three products of factors that are split in two.
enum class Products { exact, tf32, three_tf32 };

template <class T>
union ConditionerParts {
#define HR_MEMBER(name, type) DevicePart<type<T>> name;
    HR_ROW_CONDITIONERS(HR_MEMBER)
#undef HR_MEMBER
};

template <class T>
struct DevicePart<NetworkStep<T>> {
    int64_t grads;       // lines of the tape: gradients by the conditioner's own lines, one for each
    bool first_weights;  // no step before has any
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

// Kinds of steps that kernels without products lack.
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

// Device-only data of a network's conditioner.
#define HR_PART_OF(name, type)                           \
    template <class Part, class T>                       \
    HR_FN auto& part_of(Part& network, const type<T>&) { \
        return network.conditioner.name;                 \
    }
HR_ROW_CONDITIONERS(HR_PART_OF)
#undef HR_PART_OF

}  // namespace

// Lines of a tile that runs forward and backward.
struct DeviceTape {
    int64_t states;     // coordinates and context before each step and after the last
    int64_t gradients;  // gradients by the current state and by the one before
    int64_t lines;      // in all
};

template <class T>
struct DeviceChain {
    Chain<T> chain;  // the pointer to steps is null: steps are in this struct
    const DeviceStep<T>* steps;
    int units;            // scratch lines of the largest step, of the last layer one window
    bool has_networks;    // or steps that are like networks in the backward pass
    bool has_products;    // steps for which has_products is true
    bool has_vectors;     // runs of vector maps
    bool has_own_kernel;  // conditioners that have one
    bool in_place;        // no step needs its result beside its input
    Products products;    // of networks
    DeviceTape tape;

    HR_FN int slots() const { return chain.context + chain.features; }
    HR_FN int64_t run_lines() const { return (in_place ? 1 : 2) * int64_t(slots()) + units; }
};

// Size of a block's scratch in shared memory: parts of sums, and two sums over each row.
HR_FN int scratch_numbers(int warps) {
    return warps * (sums_at_once * sum_line + 2 * warp_rows);
}

}  // namespace headrace
