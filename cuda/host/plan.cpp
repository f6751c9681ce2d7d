#include "plan.hpp"

#include <algorithm>

#include "../../cpp/core/views.hpp"
#include "../include/launch.cuh"

namespace headrace {
namespace {

class Stages {
  public:
    explicit Stages(const MaskedTransform& t) : t_(t), last_(int(t.layers().size()) - 1) {}

    void hidden(int layer, int begin, int end) {
        if (begin < end) plan_.stages.push_back({layer, begin, end});
    }

    // Units [begin, end) of the last layer, in windows. A window starts at a whole number of row blocks after the
    // first, as rows of a block have one length.
    void outputs(int begin, int end) {
        const int n = t_.n_params();
        int most = std::max(1, window_units / std::max(1, n * row_block)) * row_block * n;
        if (t_.vector_map() >= 0) most = end - begin;  // which wants all parameters at once
        do {
            const int window_end = std::min(end, begin + most);
            if (begin < window_end) plan_.stages.push_back({last_, begin, window_end});
            const int stages = int(plan_.stages.size());
            plan_.phases.push_back({stage_, stages, n ? begin / n : 0, n ? window_end / n : 0, begin});
            plan_.most_window = std::max(plan_.most_window, window_end - begin);
            stage_ = stages;
            begin = window_end;
        } while (begin < end);
    }

    StagePlanStorage finish() { return std::move(plan_); }

  private:
    const MaskedTransform& t_;
    const int last_;
    int stage_ = 0;
    StagePlanStorage plan_;
};

}  // namespace

StagePlanStorage parallel_stages(const MaskedTransform& t) {
    Stages plan(t);
    const int last = int(t.layers().size()) - 1;
    for (int l = 0; l < last; ++l) plan.hidden(l, 0, t.live_units(l));
    plan.outputs(0, t.live_units(last));
    return plan.finish();
}

StagePlanStorage sequential_stages(const MaskedTransform& t) {
    Stages plan(t);
    const int last = int(t.layers().size()) - 1;
    for (int level = 1; level <= t.max_level(); ++level) {
        for (int l = 0; l < last; ++l)  // hidden units of degree d serve level d + 1
            plan.hidden(l, t.first_of_degree(l, level - 1), t.first_of_degree(l, level));
        plan.outputs(t.first_of_degree(last, level), t.first_of_degree(last, level + 1));
    }
    return plan.finish();
}

}  // namespace headrace
