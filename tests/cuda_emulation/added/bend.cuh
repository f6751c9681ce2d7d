// The step `bend` on a device.
#pragma once

namespace headrace {
namespace {

template <class T, bool in_shared>
__device__ T run_in_place(const Team& team, const BendStep<T>& s, const Lines<T, in_shared>& given,
                          const Lines<T, in_shared>& built, int context, int features) {
    T log_det = 0;
    for (int c = team.first_of_sum(); c < features; c += team.sum_warps()) {
        const Bent<T> made = bent(s, c, given.at(context + c, team.lane));
        built.at(context + c, team.lane) = made.value;
        log_det += log(made.slope);
    }
    return log_det;
}

template <class T, class State>
__device__ void back_in_place(const Team& team, const BendStep<T>& s, const State& given, const State&,
                              const State& after, const State& before, int context, int features, T grad_log_det) {
    for (int c = team.warp; c < features; c += team.warps) {
        const Bent<T> made = bent(s, c, given.at(context + c, team.lane));
        before.at(context + c, team.lane) = after.at(context + c, team.lane) * made.slope + grad_log_det * made.bend;
    }
}

}  // namespace
}  // namespace headrace
