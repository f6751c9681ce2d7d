// The state of a running warp and of a launch, and the access of instructions to operands.
#pragma once

#include <bit>
#include <type_traits>

#include "findings.hpp"
#include "memory.hpp"
#include "program.hpp"

namespace ptx {

// A group of lanes that advance together.
struct Group {
    int at = 0;
    uint32_t lanes = 0;
    bool waits = false;
};

struct Launch;
struct Warp {
    Launch* launch = nullptr;
    const Program* program = nullptr;
    std::vector<char> registers;
    std::vector<uint32_t> predicates;  // a bit for each lane; the first two predicates are false and true
    std::vector<char> frame, local;    // memory of each lane
    std::vector<int> back;             // by function and lane: the instruction after a return
    std::vector<Group> groups;
    uint32_t born = 0, living = 0;  // bit masks of lanes
    Work* work = nullptr;
    int index = 0;
    uint32_t step = 1;  // number of passed barriers, of the block and of the warp

    char* operand(int at) {
        return at >= 0 ? registers.data() + at
                       : reinterpret_cast<char*>(const_cast<uint64_t*>(program->constants.data())) + (-1 - at);
    }
    char* frame_of(int lane) { return frame.data() + size_t(lane) * size_t(program->frame_bytes); }
};

struct Launch {
    Program* program = nullptr;
    Memory* memory = nullptr;
    std::vector<char> parameters;
    uint32_t grid[3] = {1, 1, 1}, threads[3] = {1, 1, 1};
    uint32_t shared_bytes = 0;
    int order = 0;  // order of threads, as for emu::schedule

    uint32_t block[3] = {};
    uint32_t block_number = 0, phase = 1;  // block_number: index of the block x, y, z; phase: number of passed barriers
                                           // of the block
    uint32_t stamp = 0, block_stamp = 0;   // stamps of this launch and of the current block, see Access
    // For each instruction: the number of lanes of its first access to device memory, and the numbers of threads that
    // execute it in the current block and in the first block.
    std::vector<uint8_t> first_lanes;
    std::vector<uint32_t> of_block, of_first_block;
    bool is_ragged = false;  // whether some warp had fewer lanes at an instruction than another, or some block fewer
                             // threads
    FindingsOfLaunch findings;
};

void found(Warp& w, const Instruction& i, int lane, const std::string& kind);

// ---- operands ----------------------------------------------------------------------------------------------------

template <class T>
T get(const char* p, int lane) {
    if constexpr (sizeof(T) == 8) {
        return std::bit_cast<T>(reinterpret_cast<const uint64_t*>(p)[lane]);
    } else if constexpr (std::is_same_v<T, float>) {
        return std::bit_cast<float>(reinterpret_cast<const uint32_t*>(p)[lane]);
    } else {
        return T(reinterpret_cast<const uint32_t*>(p)[lane]);
    }
}
// Stores a value in a register. A register of 16 bits takes four bytes, of which the upper two are zero.
template <class T>
void put(char* p, int lane, T x) {
    if constexpr (sizeof(T) == 8) {
        reinterpret_cast<uint64_t*>(p)[lane] = std::bit_cast<uint64_t>(x);
    } else if constexpr (std::is_same_v<T, float>) {
        reinterpret_cast<uint32_t*>(p)[lane] = std::bit_cast<uint32_t>(x);
    } else {
        reinterpret_cast<uint32_t*>(p)[lane] = uint32_t(std::make_unsigned_t<T>(x));
    }
}
template <class F>
void for_lanes(uint32_t lanes, F&& f) {
    if (lanes == all_lanes) {
        for (int lane = 0; lane < lanes_of_warp; ++lane) f(lane);
    } else {
        for (; lanes; lanes &= lanes - 1) f(std::countr_zero(lanes));
    }
}
inline void put_predicate(Warp& w, int at, uint32_t lanes, uint32_t values) {
    uint32_t& p = w.predicates[size_t(at)];
    p = (p & ~lanes) | (values & lanes);
}

}  // namespace ptx
