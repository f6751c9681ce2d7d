// Multiplies the coordinates by a block diagonal matrix, and gradients by its transpose.
#pragma once

#include "../product.cuh"
#include "../tape.cuh"
#include "../units.cuh"

namespace headrace {
namespace {

// Multiplies coordinates by a matrix of the step, block by block.
template <class T, bool in_shared>
__device__ void rotate(const Team& team, const RotationStep<T>& s, const T* matrix, int context, T* partial,
                       const Lines<T, in_shared>& given, const Lines<T, in_shared>& built) {
    for (int i = 0; i < s.blocks; ++i) {
        const int begin = s.first[i], size = s.first[i + 1] - begin;
        const auto count = [&](int b) { return smaller(sums_at_once, size - b * sums_at_once); };
        for_sums(
            team, partial, (size + sums_at_once - 1) / sums_at_once, size, [&](int) { return Terms{0, size}; },
            [&](const BlockPart& of, Terms part, const PartialSums<T>& sums) {
                sum_row_products(matrix, s.row + begin + of.block * sums_at_once + of.first,
                                 smaller(of.count, count(of.block) - of.first), given.from(context + begin), part,
                                 sums);
            },
            [&](int b, int m, T(&total)[finished_at_once]) {
                const Lines<T, in_shared> values = built.from(context + begin + b * sums_at_once + m);
                for_first<finished_at_once>(count(b) - m, [&](int j) { values.at(j, team.lane) = total[j]; });
            });
        team.sync();
    }
}

template <class T, bool in_shared>
__device__ void run_step(const Team& team, const PlacedStep<RotationStep<T>>& s, const Run<T>& run,
                         TileState<T, in_shared, false>& t) {
    rotate(team, s.step, s.step.matrix, run.d.chain.context, t.partial, t.given, t.built);
}

template <class T>
__device__ void record_step(const Team& team, const PlacedStep<RotationStep<T>>& s, const Tape<T>&, int,
                            const Run<T>& run, TileState<T, false, true>& t) {
    rotate(team, s.step, s.step.matrix, run.d.chain.context, t.partial, t.given, t.built);
}

template <class T>
__device__ void backward_step(const Team& team, const PlacedStep<RotationStep<T>>& s, const Tape<T>& t, int i,
                              const WayBack<T>& way) {
    carry_context(team, t, i);
    rotate(team, s.step, s.step.transpose, t.d.chain.context, way.partial, t.gradient(i + 1), t.gradient(i));
}

}  // namespace
}  // namespace headrace
