// What the kernels on the device get: a program in one direction (cpp/core/views.hpp), with pointers of the device, and
// what only the device adds to it.
#pragma once

#include "../../cpp/core/views.hpp"
#include "../../cpp/math/lane.hpp"
#include "../include/launch.cuh"
#include "plan.hpp"

namespace headrace {

// How products of networks are computed: in the numbers' own type, or in float32 on the tensor cores, whose factors
// have 11 significant bits: with factors rounded to them, or as three products of factors split in two.
enum class Products { exact, tf32, three_tf32 };

// A step, and what the device adds to it. All pointers are the device's.
template <class T>
struct DeviceStep {
    Step<T> step;
    StagePlan plan;        // of a network; of an elementwise map one phase without stages
    BackLayerPlan back;    // of a masked network
    CoordinateMap<T> map;  // of both
    int outputs;           // where its parameters start among the units
    bool has_levels;       // one direction of the network is sequential
    bool first_weights;    // no step before has any
    int64_t states;        // lines of the tape: between the transforms of a run of vector maps
    int64_t values;        // of all units, or of raw parameters, and where their slopes and gradients are
    int64_t slopes;        // -1: the value tells
    int64_t grads;         // of a run of vector maps: those of the ready parameters
};

// Lines of a tile that goes there and back.
struct DeviceTape {
    int64_t states;     // coordinates and context before each step and after the last
    int64_t gradients;  // of the state at hand and of the one before
    int64_t lines;      // in all
};

template <class T>
struct DeviceChain {
    Chain<T> chain;  // its steps are null: they are here
    const DeviceStep<T>* steps;
    int units;          // scratch lines of the largest step, of the last layer one window
    bool has_networks;  // or steps that are like networks on the way back
    bool has_products;  // networks or rotations
    bool has_vectors;   // runs of vector maps
    bool in_place;      // no step needs its result beside what it is given
    Products products;  // of networks
    DeviceTape tape;

    HR_FN int slots() const { return chain.context + chain.features; }
    HR_FN int64_t run_lines() const { return (in_place ? 1 : 2) * int64_t(slots()) + units; }
};

// Numbers of a block's scratch in shared memory: parts of sums, and two sums over each row.
HR_FN int scratch_numbers(int warps) {
    return warps * (sums_at_once * sum_line + 2 * warp_rows);
}

}  // namespace headrace
