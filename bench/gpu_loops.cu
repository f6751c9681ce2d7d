// The loops of cuda/kernels/product.cuh, levels.cuh and row_sums.cuh in kernels of their own, which nvcc compiles in
// seconds: what bench/gpu_loops.py counts. Threads, registers and places of lines are those of the kernels that are
// shipped.
#include "../cuda/host/device_chain.hpp"
#include "../cuda/kernels/levels.cuh"
#include "../cuda/kernels/product.cuh"
#include "../cuda/kernels/row_sums.cuh"

namespace headrace {

struct Sums {
    int first, count, terms;
};

// A layer from the lines below it to its own.
template <class T, bool in_shared, Products kind>
__global__ void __launch_bounds__(network_warps* warp_rows, in_shared ? 2 : 1)
    forth(const T* weights, const uint32_t* row, const Sums* sums, int blocks, int lines, T* workspace) {
    HR_DYNAMIC_SHARED(T, scratch);
    const Team team = Team::of_block();
    const Lines<T, in_shared> given{in_shared ? scratch + 4096 : workspace}, built = given.from(lines);
    const Rounds rounds = rounds_of<T>(kind, blocks, team);
    for_sums(
        team, scratch, blocks, lines, [&](int b) { return Terms{0, sums[b].terms}; },
        [&](const BlockPart& of, Terms part, const PartialSums<T>& partial) {
            const int b = of.block;
            const BlockEnds ends{{sums[b].terms, part.end}};
            sum_unit_products(kind, rounds, weights, row + sums[b].first, sums[b].count, given, part, ends, partial,
                              built.from(sums[b].first + sums_at_once));
        },
        [&](int b, int m, T total) {
            if (m < sums[b].count) built.at(sums[b].first + m, team.lane) = total;
        },
        rounds, [&](int b, int m) { return built.at(sums[b].first + m, team.lane); });
}

// Gradients of a layer's units to those of its inputs.
template <class T, Products kind>
__global__ void __launch_bounds__(network_warps* warp_rows, 1)
    back(const T* weights, const uint32_t* row, const Sums* sums, int blocks, int lines, T* workspace) {
    HR_DYNAMIC_SHARED(T, scratch);
    const Team team = Team::of_block();
    const Lines<T, false> given{workspace}, built = given.from(lines);
    for_sums(
        team, scratch, blocks, lines, [&](int b) { return Terms{0, sums[b].terms}; },
        [&](const BlockPart& of, Terms part, const PartialSums<T>& partial) {
            const int b = of.block;
            sum_input_products(kind, weights, row, sums[b].first, sums[b].count, given, part.begin, part, partial);
        },
        [&](int b, int m, T total) {
            if (m < sums[b].count) built.at(sums[b].first + m, team.lane) = total;
        });
}

// The levels of a panel, by one warp: sums that go on, each from the lines that the last one made.
template <class T, bool in_shared, Products kind>
__global__ void __launch_bounds__(network_warps* warp_rows, in_shared ? 2 : 1)
    levels(const Sums* sums, int count, T* workspace) {
    HR_DYNAMIC_SHARED(T, kept);
    const Team team = Team::of_block();
    const Lines<T, in_shared> lines{in_shared ? kept + 4096 : workspace};
    if (team.warp != 0) return;
    for (int i = 0; i < count; ++i) {
        const int terms = sums[i].terms, row[level_sums] = {0, terms, 2 * terms, 3 * terms};
        float total[level_sums] = {};
        go_on_with_sums(kind, kept + 64 * i, row, lines, team.lane, Terms{0, terms}, total);
        for (int m = 0; m < level_sums; ++m) lines.at(sums[i].first + m, team.lane) = total[m];
    }
}

// Sums over rows of the products of two lines of the tape.
template <Products kind>
__global__ void __launch_bounds__(sum_threads, 4)
    sums(const SumTask* tasks, const __grid_constant__ Tapes<float> tapes, double* out) {
    HR_DYNAMIC_SHARED(double, shared);
    sum_task_in_fragments(tasks[blockIdx.x], kind == Products::three_tf32, tapes, 0, tapes.tiles, shared, out);
}

// What nobody names is not compiled.
#define HR_SUMS(kind) \
    template __global__ void sums<Products::kind>(const SumTask*, const __grid_constant__ Tapes<float>, double*);
#define HR_FORTH(in_shared, kind)                                                                                     \
    template __global__ void forth<float, in_shared, Products::kind>(const float*, const uint32_t*, const Sums*, int, \
                                                                     int, float*);
#define HR_LEVELS(kind) template __global__ void levels<float, true, Products::kind>(const Sums*, int, float*);
#define HR_BACK(kind) \
    template __global__ void back<float, Products::kind>(const float*, const uint32_t*, const Sums*, int, int, float*);
HR_FORTH(true, exact)
HR_FORTH(false, exact)
HR_FORTH(true, tf32)
HR_FORTH(true, three_tf32)
HR_LEVELS(exact)
HR_LEVELS(tf32)
HR_BACK(exact)
HR_BACK(tf32)
HR_BACK(three_tf32)
HR_SUMS(tf32)
HR_SUMS(three_tf32)
#undef HR_SUMS
#undef HR_FORTH
#undef HR_BACK
#undef HR_LEVELS

}  // namespace headrace
