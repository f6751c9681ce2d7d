// The loops of cuda/kernels/product.cuh in kernels of their own, which nvcc compiles in seconds: what
// bench/gpu_loops.py counts. Threads, registers and places of lines are those of run_chain and there_and_back.
#include "../cuda/kernels/product.cuh"

namespace headrace {

struct Sums {
    int first, count, terms;
};

// A layer from the lines below it to its own.
template <class T, bool in_shared, bool tf32>
__global__ void __launch_bounds__(network_warps* warp_rows, in_shared ? 2 : 1)
    forth(const T* weights, const uint32_t* row, const Sums* sums, int blocks, int lines, T* workspace) {
    HR_DYNAMIC_SHARED(T, scratch);
    const Team team = Team::of_block();
    const Lines<T, in_shared> given{in_shared ? scratch + 4096 : workspace}, built = given.from(lines);
    for_sums(
        team, scratch, blocks, lines, [&](int b) { return Terms{0, sums[b].terms}; },
        [&](int b, Terms part, const PartialSums<T>& partial) {
            sum_unit_products({tf32, tf32}, weights, row + sums[b].first, sums[b].count, given, part, partial);
        },
        [&](int b, int m, T total) {
            if (m < sums[b].count) built.at(sums[b].first + m, team.lane) = total;
        });
}

// Gradients of a layer's units to those of its inputs.
template <class T, bool tf32>
__global__ void __launch_bounds__(network_warps* warp_rows, 1)
    back(const T* weights, const uint32_t* row, const Sums* sums, int blocks, int lines, T* workspace) {
    HR_DYNAMIC_SHARED(T, scratch);
    const Team team = Team::of_block();
    const Lines<T, false> given{workspace}, built = given.from(lines);
    for_sums(
        team, scratch, blocks, lines, [&](int b) { return Terms{0, sums[b].terms}; },
        [&](int b, Terms part, const PartialSums<T>& partial) {
            sum_input_products(tf32, weights, row, sums[b].first, sums[b].count, given, part, partial);
        },
        [&](int b, int m, T total) {
            if (m < sums[b].count) built.at(sums[b].first + m, team.lane) = total;
        });
}

// What nobody names is not compiled.
template __global__ void forth<float, true, false>(const float*, const uint32_t*, const Sums*, int, int, float*);
template __global__ void forth<float, false, false>(const float*, const uint32_t*, const Sums*, int, int, float*);
template __global__ void forth<float, true, true>(const float*, const uint32_t*, const Sums*, int, int, float*);
template __global__ void back<float, false>(const float*, const uint32_t*, const Sums*, int, int, float*);
template __global__ void back<float, true>(const float*, const uint32_t*, const Sums*, int, int, float*);

}  // namespace headrace
