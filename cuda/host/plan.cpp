#include "plan.hpp"

#include <algorithm>

#include "../../cpp/core/views.hpp"
#include "../include/launch.cuh"

namespace headrace {
namespace {

class Stages {
  public:
    explicit Stages(const MaskedConditioner& t) : t_(t), last_(int(t.layers().size()) - 1) {}

    void hidden(int layer, int begin, int end) {
        if (begin < end) plan_.stages.push_back({layer, begin, end});
    }

    // Plans units [begin, end) of the last layer, in windows. The distance between the starts of two windows is a whole
    // number of row blocks, because rows of a block have the same length.
    void outputs(int begin, int end) {
        const int most = t_.is_joint() ? end - begin : most_window();  // a vector map needs all parameters at once
        do {
            const int window_end = std::min(end, begin + most);
            if (begin < window_end) plan_.stages.push_back({last_, begin, window_end});
            plan_.most_window = std::max(plan_.most_window, window_end - begin);
            end_phase(begin, window_end, begin);
            begin = window_end;
        } while (begin < end);
    }

    // Plans layers that read only the context, whose units all levels may read.
    void contexts() {
        for (int l = 0; l < t_.n_context_layers(); ++l) hidden(l, 0, t_.live_units(l));
        if (!plan_.stages.empty()) end_phase(0, 0, 0);
    }

    void level(int level) {
        for (int l = t_.n_context_layers(); l < last_; ++l) hidden(l, first(l, level), first(l, level + 1));
        outputs(first(last_, level), first(last_, level + 1));
    }

    // The end of the panel that starts at `level`; `level` itself if one warp would have too much work, or need too
    // much memory. Parameters of a panel are in one window.
    int panel_end(int level) const {
        if (t_.is_joint()) return level;
        int end = level, kept = 0;
        for (; end <= t_.max_level() && end - level < panel_levels; ++end) {
            int units = 0;
            for (int l = t_.n_context_layers(); l <= last_; ++l) {
                const UnitRange r = continued(l, level, end);
                units += r.end - r.begin;
                if (r.begin < r.end) kept += kept_numbers(r.end - r.begin, r.from, visible(r));
            }
            if (units > panel_units || kept > panel_numbers) break;
            if (first(last_, end + 1) - first(last_, level) > most_window()) break;
        }
        return end;
    }

    // Plans the panel of levels [level, end).
    void panel(int level, int end) {
        int taken = 0, kept = 0;
        for (int l = t_.n_context_layers(); l <= last_; ++l) {
            const UnitRange r{l, first(l, level), first(l, end), StagePart::begun, known(l, level), 0, taken};
            if (r.begin < r.end) plan_.stages.push_back(r);
            taken = (taken + (r.end - r.begin + sums_at_once - 1) / sums_at_once) % network_warps;
        }
        const int window = first(last_, level);
        end_phase(window, window, window);
        const size_t begun = plan_.phases.size() - 1;
        for (int p = level; p < end; ++p) {
            for (int l = t_.n_context_layers(); l <= last_; ++l) {
                UnitRange r = continued(l, level, p);
                if (r.begin >= r.end) continue;
                r.kept = kept;
                kept += kept_numbers(r.end - r.begin, r.from, visible(r));
                plan_.stages.push_back(r);
            }
            end_phase(first(last_, p), first(last_, p + 1), window);
            plan_.phases.back().is_level = true;
        }
        plan_.phases[begun].panel_end = stage_;
        plan_.phases[begun].levels = end - level;
        plan_.most_window = std::max(plan_.most_window, first(last_, end) - window);
    }

    StagePlanStorage finish() { return std::move(plan_); }

  private:
    // Ends a phase: stages that were planned since the previous phase ended determine the coordinates of outputs
    // [begin, end).
    void end_phase(int begin, int end, int window) {
        const int n = std::max(1, t_.outputs()), stages = int(plan_.stages.size());
        plan_.phases.push_back({stage_, stages, begin / n, end / n, window});
        stage_ = stages;
    }

    int most_window() const {
        const int n = t_.outputs();
        return std::max(1, window_units / std::max(1, n * row_block)) * row_block * n;
    }

    // The first unit of a layer that a level needs, because hidden units of degree d are read at level d + 1.
    int first(int layer, int level) const { return t_.first_of_degree(layer, layer == last_ ? level : level - 1); }

    // The number of a layer's inputs (coordinates, or units of the layer below) that are computed before a level,
    // rounded down to a multiple of four.
    int known(int layer, int level) const {
        const auto& shape = t_.layers()[size_t(layer)];
        const int n = shape.below < 0 ? std::min(shape.in, t_.inputs_up_to(level - 1)) : first(shape.below, level);
        return n / 4 * 4;
    }

    // The units of a level whose sums continue in a panel that starts at `start`.
    UnitRange continued(int layer, int start, int level) const {
        return {layer, first(layer, level), first(layer, level + 1), StagePart::continued, known(layer, start)};
    }

    int visible(const UnitRange& r) const { return t_.layers()[size_t(r.layer)].visible[size_t(r.end) - 1]; }

    const MaskedConditioner& t_;
    const int last_;
    int stage_ = 0;
    StagePlanStorage plan_;
};

}  // namespace

StagePlanStorage parallel_stages(const MaskedConditioner& t) {
    Stages plan(t);
    const int last = int(t.layers().size()) - 1;
    for (int l = 0; l < last; ++l) plan.hidden(l, 0, t.live_units(l));
    plan.outputs(0, t.live_units(last));
    return plan.finish();
}

StagePlanStorage sequential_stages(const MaskedConditioner& t) {
    Stages plan(t);
    plan.contexts();
    for (int level = 1; level <= t.max_level();) {
        const int end = plan.panel_end(level);
        if (end > level) {
            plan.panel(level, end);
            level = end;
        } else {
            plan.level(level++);
        }
    }
    return plan.finish();
}

BackLayerStorage back_layers(const BackPlan& plan, int positions,
                             const std::vector<MaskedConditioner::LayerShape>& of) {
    BackLayerStorage made;
    made.done.assign(size_t(positions) + 1, 0);
    for (int to = positions; to > 0; --to) {
        const int end = plan.done[to - 1];
        for (int i = plan.done[to]; i < end;) {
            const int layer = plan.ops[i].layer, begin = i;
            while (i < end && plan.ops[i].layer == layer) ++i;
            made.layers.push_back({layer, begin, i, of[size_t(layer)].in});
        }
        made.done[size_t(to) - 1] = int(made.layers.size());
    }
    return made;
}

}  // namespace headrace
