#include "masked_plan.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace headrace {
namespace {

constexpr int most_levels = 32;  // largest number of levels of a panel

class Planner {
  public:
    explicit Planner(const MaskedConditioner& t) : t_(t), n_layers_(int(t.layers().size())) {}

    // Plans all units [0, end) of a layer from all their inputs, in the blocks of the weight layout, where all rows of
    // a block are as long as its last row.
    void whole_blocks(int layer, int end, int block) {
        for (int begin = 0; begin < end; begin += block) {
            const int rows = std::min(block, end - begin);
            plan_.ops.push_back({layer, begin, rows, 0, t_.layers()[layer].visible[begin + rows - 1], true, true});
        }
    }

    // Plans units [begin, end), which all read inputs [k0, k1), in blocks whose sizes are as equal as possible.
    void units(int layer, int begin, int end, int k0, int k1, bool from_bias, bool finish, int block) {
        while (begin < end) {
            const int blocks = (end - begin + block - 1) / block;
            const int rows = (end - begin + blocks - 1) / blocks;
            plan_.ops.push_back({layer, begin, rows, k0, k1, from_bias, finish});
            begin += rows;
        }
    }

    // Plans units [begin, end) of a layer in one op.
    void whole(int layer, int begin, int end, int k0, int k1) {
        plan_.ops.push_back({layer, begin, end - begin, k0, k1, true, true});
    }

    // Plans the addition of inputs [0, k1) to the sums of the panel of units from `begin` on.
    void add_to_panel(int layer, int begin, int k1) {
        const int rows = std::min(panel_blocks * bf16_units, t_.live_units(layer) - begin);
        if (rows > 0 && k1 > 0) plan_.ops.push_back({layer, begin, rows, 0, k1, false, false});
    }

    // Ends a position, whose ops are those planned since the end of the previous position.
    void settle() { plan_.first.push_back(int(plan_.ops.size())); }

    // Ends the plan. Positions after the last planned position have no ops, because the ops of that position compute
    // all of their units.
    PlanStorage finish() {
        plan_.first.resize(size_t(n_positions(t_)) + 1, int(plan_.ops.size()));
        return std::move(plan_);
    }

    int first(int layer, int degree) const { return t_.first_of_degree(layer, degree); }
    int last_layer() const { return n_layers_ - 1; }

    // The number of a layer's inputs that are computed before level p: coordinates of levels below p, hidden units of
    // degrees below p - 1.
    int known(int layer, int p) const {
        const auto& shape = t_.layers()[size_t(layer)];
        return shape.below < 0 ? std::min(shape.in, t_.inputs_up_to(p - 1)) : first(shape.below, p - 1);
    }

    // The layer with the most weights.
    int largest() const {
        const auto weights = [](const auto& layer) { return int64_t(layer.in) * layer.out; };
        const auto& layers = t_.layers();
        return int(std::max_element(layers.begin(), layers.end(),
                                    [&](const auto& a, const auto& b) { return weights(a) < weights(b); }) -
                   layers.begin());
    }

  private:
    const MaskedConditioner& t_;
    const int n_layers_;
    PlanStorage plan_{{}, {0}};
};

// Plans the gradients of columns [begin, end) of a layer, from all units that read the first column.
void add_columns(BackPlanStorage& plan, const MaskedConditioner& t, int layer, int begin, int end,
                 int block = row_block) {
    const auto& shape = t.layers()[layer];
    while (begin < end) {
        const int blocks = (end - begin + block - 1) / block;
        const int columns = std::min(block, (end - begin + blocks - 1) / blocks);
        const int row0 =
            int(std::upper_bound(shape.visible.begin(), shape.visible.end(), begin) - shape.visible.begin());
        const int row1 = t.live_units(layer);
        plan.ops.push_back({layer, begin, columns, std::min(row0, row1), row1});
        begin += columns;
    }
}

}  // namespace

int n_positions(const MaskedConditioner& t) {
    return std::max(1, t.max_level());
}

BackPlanStorage parallel_back_plan(const MaskedConditioner& t, int block) {
    BackPlanStorage plan;
    const int last = int(t.layers().size()) - 1;
    for (int l = last; l >= 0; --l) {
        const auto& layer = t.layers()[size_t(l)];
        const int columns = layer.below < 0 ? layer.in : t.live_units(layer.below);
        // Blocks start at multiples of `block`, so that the padding of a row cannot end inside a block.
        for (int begin = 0; begin < columns; begin += block)
            add_columns(plan, t, l, begin, std::min(columns, begin + block), block);
    }
    plan.done.assign(size_t(n_positions(t)) + 1, int(plan.ops.size()));
    plan.done.back() = 0;
    return plan;
}

BackPlanStorage sequential_back_plan(const MaskedConditioner& t) {
    BackPlanStorage plan;
    const int last = int(t.layers().size()) - 1;
    plan.done.assign(size_t(n_positions(t)) + 1, 0);
    for (int level = t.max_level(); level >= 1; --level) {
        for (int l = last; l >= 0; --l) {
            const auto& layer = t.layers()[size_t(l)];
            if (layer.below < 0) {  // layers that read only the context have no further inputs
                add_columns(plan, t, l, level == 1 ? 0 : std::min(layer.in, t.inputs_up_to(level - 2)),
                            std::min(layer.in, t.inputs_up_to(level - 1)));
            } else {
                add_columns(plan, t, l, t.first_of_degree(layer.below, level - 1),
                            t.first_of_degree(layer.below, level));
            }
        }
        plan.done[size_t(level) - 1] = int(plan.ops.size());
    }
    return plan;
}

PlanStorage parallel_plan(const MaskedConditioner& t, int block) {
    Planner plan(t);
    for (int l = 0; l <= plan.last_layer(); ++l) plan.whole_blocks(l, t.live_units(l), block);
    plan.settle();
    return plan.finish();
}

PlanStorage sequential_plan(const MaskedConditioner& t, int panel, int step, int block) {
    Planner plan(t);
    const int last = plan.last_layer();
    std::vector<int> known(last + 1, 0);
    const int largest = plan.largest();
    for (int p = 1, q; p <= t.max_level(); p = q) {
        q = std::min(t.max_level() + 1, p + panel);
        // A panel ends once the computed inputs reach the next multiple of `step`: the next panel adds them all at
        // once, and not level by level.
        for (int end = p + 1; panel > 1 && step > 1 && end <= std::min(t.max_level() + 1, p + most_levels); ++end) {
            q = end;
            if (plan.known(largest, end) / step > plan.known(largest, p) / step) break;
        }
        if (panel > 1)
            for (int l = 0; l <= last; ++l) {
                known[l] = plan.known(l, p);
                const int shift = l == last ? 0 : 1;  // hidden units of degree d are read at level d + 1
                plan.units(l, plan.first(l, p - shift), plan.first(l, q - shift), 0, known[l], true, false, block);
            }
        for (int level = p; level < q; ++level) {
            for (int l = 0; l <= last; ++l) {
                const int degree = l == last ? level : level - 1;
                const int begin = plan.first(l, degree), end = plan.first(l, degree + 1);
                if (begin < end)
                    plan.units(l, begin, end, known[l], t.layers()[l].visible[begin], panel == 1, true, block);
            }
            plan.settle();
        }
    }
    return plan.finish();
}

PlanStorage small_batch_plan(const MaskedConditioner& t, bool sequential, int quad) {
    Planner plan(t);
    const int last = plan.last_layer();
    std::vector<int> added(size_t(last) + 1, 0), panels_end(size_t(last) + 1, 0);
    for (int level = sequential ? 1 : t.max_level(); level <= t.max_level(); ++level) {
        for (int l = 0; l <= last; ++l) {
            const int degree = l == last ? level : level - 1;
            const int begin = sequential ? plan.first(l, degree) : 0;
            const int end = sequential ? plan.first(l, degree + 1) : t.live_units(l);
            if (begin >= end) continue;
            const int seen = t.layers()[size_t(l)].visible[size_t(end) - 1];
            for (int& begun = panels_end[size_t(l)]; begun < end; begun += panel_blocks * bf16_units)
                plan.add_to_panel(l, begun, added[size_t(l)]);
            plan.whole(l, begin, end, added[size_t(l)], seen);
            added[size_t(l)] = seen / quad * quad;  // quads are added when all their values are computed
        }
        plan.settle();
    }
    return plan.finish();
}

int plan_waiting(PlanStorage& plan, const MaskedConditioner& t) {
    struct Run {  // a run of waiting units of a layer
        int begin = 0, units = 0, line = 0;
        bool is_open = false;
    };
    std::vector<Run> runs(t.layers().size());
    for (Op& op : plan.ops) {
        Run& run = runs[size_t(op.layer)];
        if (op.from_bias && op.finish) continue;
        if (!op.finish && !run.is_open) run.begin = op.row;
        run.is_open = !op.finish;
        run.units = std::max(run.units, op.row + op.rows - run.begin);
        op.waits = 2 * (op.row - run.begin);
    }
    int lines = 0;
    for (Run& run : runs) run.line = std::exchange(lines, lines + 2 * run.units);
    for (Op& op : plan.ops)
        if (op.waits >= 0) op.waits += runs[size_t(op.layer)].line;
    return lines;
}

void plan_rounding(PlanStorage& plan, const MaskedConditioner& t) {
    int rounded = 0;
    for (Op& op : plan.ops) {
        op.fresh = rounded;
        if (t.layers()[size_t(op.layer)].below < 0) rounded = std::max(rounded, op.k1);
    }
}

void plan_rounding(BackPlanStorage& plan, const MaskedConditioner& t) {
    std::vector<int> fresh;
    fresh.reserve(t.layers().size());
    for (size_t l = 0; l < t.layers().size(); ++l) fresh.push_back(t.live_units(int(l)));
    for (BackOp& op : plan.ops) {
        int& next = fresh[size_t(op.layer)];
        op.fresh = next;
        next = std::min(next, op.row0);
    }
}

int choose_panel(const MaskedConditioner& t) {
    // Measured on Zen 4, sampling 100 rows: 784 features with hidden layers [1024] take 24 ms without panels and 17 ms
    // with 8 to 48 units in a panel; flows of 43 and of 64 features with 4 to 12 units in each level show no difference
    // beyond noise.
    constexpr double units_of_panel = 24;
    double units = 0;
    for (const auto& layer : t.layers()) units += layer.out;
    const double a_level = units / double(t.layers().size() * size_t(std::max(1, t.max_level())));
    return std::clamp(int(std::lround(units_of_panel / std::max(a_level, 0.01))), 1, most_levels);
}

}  // namespace headrace
