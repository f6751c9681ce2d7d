#include "lowering.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "../math/activations.hpp"
#include "../math/maps.hpp"
#include "../math/vector_maps.hpp"
#include "blocks.hpp"
#include "shared_maps.hpp"
#include "support_columns.hpp"

namespace headrace {
namespace {

bool moves_all(const MaskedTransform& t) {
    return int(t.options().active.size()) == t.options().features;
}

// A vector map of all coordinates with one set of parameters for all rows: there is nothing that its network reads.
bool is_shared_vector(const MaskedTransform& t) {
    return t.vector_map() >= 0 && t.layers().size() == 1 && t.layers()[0].in == 0 && moves_all(t);
}

bool is_transparent(const MaskedTransform& t) {  // to slots: its coordinates may be in any
    return is_shared_vector(t) || n_elementwise_ready(t) > 0;
}

bool same_vector_map(const MaskedTransform& a, const MaskedTransform& b) {
    return is_shared_vector(b) && a.vector_map() == b.vector_map() && a.options().slope == b.options().slope &&
           a.options().formula_to_data == b.options().formula_to_data;
}

int n_ready_of(int vector_map, int features) {
    int n = 0;
    with_vector_map(vector_map, [&]<class Map>() { n = Map::n_ready(features); });
    return n;
}

// The slot of every coordinate where a network finds its inputs: context, what it reads by level, the rest.
std::vector<int> network_slots(const MaskedTransform& t) {
    std::vector<int> slots(t.options().features, -1);
    int next = t.options().context;
    for (int column : t.input_order())
        if (column < int(t.options().reads.size())) slots[t.options().reads[column]] = next++;
    for (int& slot : slots)
        if (slot < 0) slot = next++;
    return slots;
}

#define HR_STEP_OF(name, type)            \
    template <class T>                    \
    Step<T> step_of(const type<T>& own) { \
        Step<T> step{};                   \
        step.kind = StepKind::name;       \
        step.name = own;                  \
        return step;                      \
    }
HR_STEPS(HR_STEP_OF)
#undef HR_STEP_OF

// Transforms in the order of execution. Permutations only rename slots, and a step writes its result where the next one
// wants to read it.
template <class T>
class Lowering {
  public:
    Lowering(const Structure& structure, bool inverse, size_t first)
        : structure_(structure),
          features_(structure.features()),
          context_(structure.context()),
          inverse_(inverse),
          compiled_(std::make_shared<Compiled<T>>()),
          out_(*compiled_),
          chain_(out_.chain) {
        const std::vector<StepSpec>& specs = structure.steps();
        for (size_t i = first; i < specs.size(); ++i) {
            const size_t index = inverse ? specs.size() - 1 - (i - first) : i;
            order_.push_back({&specs[index], index, inverse == specs[index].inverted});
        }
        chain_ = Chain<T>{};
        chain_.features = features_;
        chain_.context = context_;
        where_ = wanted_slots(0);
        out_.load_slot = where_;
    }

    std::shared_ptr<Compiled<T>> compiled() {
        for (size_t i = 0; i < order_.size(); ++i) {
            const Executed& e = order_[i];
            switch (e.spec->kind) {
                case StepSpec::Kind::permutation: permute(where_, e); break;
                case StepSpec::Kind::rotation: add_rotation(i); break;
                case StepSpec::Kind::standardize: add_scale(i); break;
                case StepSpec::Kind::support: add_support(i); break;
                case StepSpec::Kind::marginal: add_marginal(i); break;
                case StepSpec::Kind::density: add_density(i); break;
                case StepSpec::Kind::masked:
                    if (is_shared_vector(*e.spec->masked)) {
                        i = add_vectors(i);
                    } else if (n_elementwise_ready(*e.spec->masked) > 0) {
                        add_elementwise(i);
                    } else {
                        add_network(i);
                    }
                    break;
            }
        }
        finish();
        return compiled_;
    }

  private:
    struct Executed {
        const StepSpec* spec;
        size_t index;
        bool to_data;  // runs from the transform's latent side to its data side
    };

    static bool reads_built(const Executed& e) {
        return e.spec->masked->options().reads_data == e.to_data && !e.spec->masked->reads_passive_only();
    }

    // ---- slots

    // Which coordinate before a permutation is coordinate i after it.
    static std::vector<int> permuted(const Executed& e) {
        std::vector<int> source = e.spec->order;
        if (!e.to_data)
            for (size_t i = 0; i < source.size(); ++i) source[size_t(e.spec->order[i])] = int(i);
        return source;
    }

    void permute(std::vector<int>& of_coordinate, const Executed& e) const {
        const std::vector<int> source = permuted(e), before = of_coordinate;
        for (size_t c = 0; c < before.size(); ++c) of_coordinate[c] = before[size_t(source[c])];
    }

    // Where the result before step `from` should lie: where the next network reads it, or in natural order.
    std::vector<int> wanted_slots(size_t from) const {
        std::vector<int> name(features_), slots(features_);
        for (int c = 0; c < features_; ++c) {
            name[c] = c;
            slots[c] = context_ + c;
        }
        for (size_t i = from; i < order_.size(); ++i) {
            const Executed& e = order_[i];
            if (e.spec->kind == StepSpec::Kind::permutation) {
                permute(name, e);
            } else if (e.spec->kind == StepSpec::Kind::rotation) {
                for (int c = 0; c < features_ && e.spec->blocks.size() > 1; ++c) slots[name[c]] = context_ + c;
                break;
            } else if (e.spec->kind == StepSpec::Kind::masked && !is_transparent(*e.spec->masked)) {
                if (reads_built(e)) break;
                const std::vector<int> wanted = network_slots(*e.spec->masked);
                for (int c = 0; c < features_; ++c)
                    slots[name[c]] = wanted[c] - e.spec->masked->options().context + context_;
                break;
            }
        }
        return slots;
    }

    void move_to(const std::vector<int>& wanted) {
        if (wanted == where_) return;
        out_.steps.push_back(step_of(MoveStep<T>{out_.keep(std::move(where_)), out_.keep(wanted)}));
        where_ = wanted;
    }

    // ---- steps

    // One that has weights, and what of it is summed over the rows.
    void add_weighted(Step<T> step, std::vector<Summed> summed) {
        step.n_summed = int(summed.size());
        step.summed = out_.keep(std::move(summed));
        out_.networks.push_back(int(out_.steps.size()));
        out_.steps.push_back(step);
    }

    int64_t lines(int64_t n) { return std::exchange(tape_.lines, tape_.lines + n); }
    int64_t ready(int64_t n) { return std::exchange(chain_.ready, chain_.ready + n); }

    // value * scale + shift at a place, or the way back of it.
    void add_scale(size_t i) {
        const Executed& e = order_[i];
        std::vector<double> shift = e.spec->mean, scale = e.spec->std;
        for (double s : scale) chain_.log_det += e.to_data ? std::log(s) : -std::log(s);
        if (!e.to_data)
            for (double& s : scale) s = 1 / s;
        // Loading and storing know columns, not slots, so that only permutations may lie between them and the step.
        // On the latent side a sample starts and a base density ends: there it is a step like any other.
        const bool at_data_end = inverse_ ? out_.steps.empty() && out_.load_shift.empty() : ends_with_support(i + 1);
        if (at_data_end && !e.to_data && inverse_) {
            out_.load_shift.resize(features_);
            out_.load_scale.resize(features_);
            for (int c = 0; c < features_; ++c) {
                const auto column = std::find(out_.load_slot.begin(), out_.load_slot.end(), where_[c]);
                out_.load_shift[size_t(column - out_.load_slot.begin())] = shift[c];
                out_.load_scale[size_t(column - out_.load_slot.begin())] = scale[c];
            }
        } else if (at_data_end && e.to_data && !inverse_) {
            out_.store_shift = std::move(shift);
            out_.store_scale = std::move(scale);
        } else {
            std::vector<double> slot_shift(features_), slot_scale(features_);
            for (int c = 0; c < features_; ++c) {
                slot_scale[where_[c] - context_] = scale[c];
                slot_shift[where_[c] - context_] = shift[c];
            }
            out_.steps.push_back(
                step_of(ScaleStep<T>{out_.keep(std::move(slot_scale)), out_.keep(std::move(slot_shift)), !e.to_data}));
        }
    }

    // Whether nothing comes from step `i` on, or what takes coordinates to their support.
    bool ends_with_support(size_t i) const {
        return i == order_.size() ||
               (i + 1 == order_.size() && order_[i].spec->kind == StepSpec::Kind::support && order_[i].to_data);
    }

    // At the data end it is part of loading and storing, outside of a scale there.
    void add_support(size_t i) {
        const Executed& e = order_[i];
        const std::vector<SupportColumn> columns = support_columns<T>(*e.spec);
        if (inverse_ && !e.to_data && out_.steps.empty() && out_.load_shift.empty() && out_.load_support.empty()) {
            out_.load_support.resize(size_t(features_));
            for (int c = 0; c < features_; ++c) {
                const auto column = std::find(out_.load_slot.begin(), out_.load_slot.end(), where_[c]);
                out_.load_support[size_t(column - out_.load_slot.begin())] = columns[size_t(c)];
            }
        } else if (!inverse_ && e.to_data && i + 1 == order_.size()) {
            out_.store_support = columns;
        } else {
            std::vector<SupportColumn> by_slot(columns);
            for (int c = 0; c < features_; ++c) by_slot[size_t(where_[c] - context_)] = columns[size_t(c)];
            out_.steps.push_back(step_of(SupportStep<T>{out_.keep(std::move(by_slot)), e.to_data}));
        }
    }

    // Its parameters are no weights: they are made ready here, once.
    void add_marginal(size_t i) {
        const Executed& e = order_[i];
        const MaskedTransform& t = *e.spec->masked;
        std::vector<int> slots(size_t(features_), 0);
        for (int k = 0; k < features_; ++k) slots[size_t(k)] = where_[t.active_order()[k]] - context_;
        const T* const ready = out_.keep(ready_by_slot<T>(*e.spec, slots));
        out_.steps.push_back(step_of(MarginalStep<T>{
            {t.map(), e.to_data != t.options().formula_to_data, map_options_of<T>(t), n_elementwise_ready(t), ready}}));
    }

    // The base: a step that leaves coordinates alone.
    void add_density(size_t i) {
        const StepSpec& spec = *order_[i].spec;
        DensityStep<T> s{};
        s.components = spec.components;
        s.n_raw = spec.n_raw;
        std::vector<int> coordinate(static_cast<size_t>(features_)), raw(static_cast<size_t>(features_), -1);
        std::vector<ColumnDensity> column(spec.columns.size());
        for (int c = 0, next = 0; c < features_; ++c) {
            const size_t slot = size_t(where_[c] - context_);
            coordinate[slot] = c;
            if (spec.components > 0) continue;
            column[slot] = spec.columns[size_t(c)];
            if (column[slot] == ColumnDensity::student) raw[slot] = next++;
        }
        s.coordinate = out_.keep(std::move(coordinate));
        s.column = out_.keep(std::move(column));
        s.raw = out_.keep(std::move(raw));
        s.fixed = spec.fixed.data();
        s.weights = spec.trains() ? structure_.weights_of(order_[i].index) : -1;
        s.ready = ready(n_density_ready(s, features_));
        s.tape_grads = spec.trains() ? lines(s.n_raw) : -1;
        chain_.density = out_.keep(std::vector<DensityStep<T>>{s});
        if (spec.trains()) {
            add_weighted(step_of(s), {{s.tape_grads, s.n_raw, s.weights, 0, nullptr, nullptr, 0}});
        } else {
            out_.steps.push_back(step_of(s));
        }
    }

    // x = Q z to data, z = Qᵀ x to latent, from slot to slot, each block among its own. One block works from any slots
    // to any others; several find their coordinates side by side, and leave them.
    void add_rotation(size_t i) {
        const Executed& e = order_[i];
        const StepSpec& spec = *e.spec;
        if (spec.blocks.size() > 1) move_to(wanted_slots(i));
        std::vector<int> built = spec.blocks.size() > 1 ? where_ : wanted_slots(i + 1);
        std::vector<T> matrix(spec.matrix.size()), transpose(spec.matrix.size());
        const auto [row, first] = block_rows(spec.blocks);
        for (size_t b = 0; b < spec.blocks.size(); ++b) {
            const size_t begin = size_t(first[b]), n = size_t(spec.blocks[b]), start = row[begin];
            const double* q = spec.matrix.data() + start;
            for (size_t k = 0; k < n; ++k)
                for (size_t l = 0; l < n; ++l) {
                    const size_t r = size_t(built[begin + k] - context_) - begin;
                    const size_t c = size_t(where_[begin + l] - context_) - begin;
                    matrix[start + r * n + c] = transpose[start + c * n + r] =
                        T(e.to_data ? q[k * n + l] : q[l * n + k]);
                }
        }
        out_.steps.push_back(step_of(RotationStep<T>{out_.keep(std::move(matrix)), out_.keep(std::move(transpose)),
                                                     out_.keep(std::vector<T>(size_t(features_))), out_.keep(row),
                                                     out_.keep(first), int(spec.blocks.size())}));
        chain_.tiles_only = true;
        where_ = std::move(built);
    }

    // And those that follow with the same map, in whatever slots their coordinates are; the last transform of the run.
    size_t add_vectors(size_t i) {
        const Executed& e = order_[i];
        const MaskedTransform& t = *e.spec->masked;
        std::vector<int64_t> weights;
        std::vector<int> coordinate;
        for (; i < order_.size(); ++i) {
            const Executed& next = order_[i];
            if (next.spec->kind == StepSpec::Kind::permutation) {
                permute(where_, next);
                continue;
            }
            if (next.spec->kind != StepSpec::Kind::masked || next.to_data != e.to_data ||
                !same_vector_map(t, *next.spec->masked))
                break;
            weights.push_back(structure_.weights_of(next.index));
            coordinate.resize(coordinate.size() + size_t(features_));
            for (int c = 0; c < features_; ++c) *(coordinate.end() - features_ + where_[c] - context_) = c;
        }
        VectorStep<T> v{};
        v.map = t.vector_map();
        v.inverse = e.to_data != t.options().formula_to_data;
        v.options = map_options_of<T>(t);
        v.transforms = int(weights.size());
        v.n_ready = n_ready_of(v.map, features_);
        v.ready = ready(int64_t(v.transforms) * v.n_ready);
        v.tape_states = lines(int64_t(v.transforms - 1) * features_);
        v.tape_gradients = lines(int64_t(v.transforms) * v.n_ready);
        chain_.tiles_only = true;
        std::vector<Summed> summed;  // gradients by ready parameters lie where those by raw ones will: steps/ready.hpp
        summed.reserve(weights.size());
        for (size_t k = 0; k < weights.size(); ++k)
            summed.push_back(
                {v.tape_gradients + int64_t(k) * v.n_ready, v.n_ready, weights[k], 0, nullptr, nullptr, 0});
        v.weights = out_.keep(std::move(weights));
        v.coordinate = out_.keep(std::move(coordinate));
        add_weighted(step_of(v), std::move(summed));
        return i - 1;
    }

    CoordinateMap<T> coordinate_map(const Executed& e, const std::vector<int>& built) {
        const MaskedTransform& t = *e.spec->masked;
        std::vector<int> active_given, active_built;
        for (int c : t.active_order()) {
            active_given.push_back(where_[c]);
            active_built.push_back(built[c]);
        }
        const int n = int(active_given.size());
        return {t.map(),
                t.n_params(),
                map_options_of<T>(t),
                e.to_data != t.options().formula_to_data,
                n,
                out_.keep(std::move(active_given)),
                out_.keep(std::move(active_built))};
    }

    void add_elementwise(size_t i) {
        const Executed& e = order_[i];
        const MaskedTransform& t = *e.spec->masked;
        ElementwiseStep<T> s{};
        s.map = coordinate_map(e, where_);
        s.n_ready = n_elementwise_ready(t);
        s.ready = ready(int64_t(s.n_ready) * features_);
        s.weights = structure_.weights_of(e.index) + t.layers()[0].bias;
        const int n = features_ * t.n_params();
        s.tape_raw = lines(n);
        std::vector<int> coordinate(size_t(features_), 0);
        for (int k = 0; k < features_; ++k) coordinate[size_t(where_[t.active_order()[k]] - context_)] = k;
        s.coordinate = out_.keep(std::move(coordinate));
        chain_.tiles_only = true;
        add_weighted(step_of(s), {{s.tape_raw, n, s.weights, 0, nullptr, nullptr, 0}});
    }

    void add_network(size_t i) {
        const Executed& e = order_[i];
        const MaskedTransform& t = *e.spec->masked;
        if (!reads_built(e)) move_to(wanted_slots(i));
        NetworkStep<T> m{};
        m.reads_built = reads_built(e);
        m.vector_map = t.vector_map();
        m.weights = structure_.weights_of(e.index);
        m.fold = structure_.fold_of(e.index);
        m.stream = uint32_t(e.index) + 2;  // the first two are those of numbers that are drawn
        m.input_slot = context_ - t.options().context;
        m.bf16 = structure_.bf16_of(e.index);
        m.rounded = structure_.pairs_of(e.index);
        m.rounded_back = structure_.back_pairs_of(e.index);
        add_layers(m, t, structure_.rounded_places(e.index));
        if (m.reads_built) {
            m.tile_plan = keep_plan(m, t, sequential_plan(t, choose_panel(t)));
            m.small_plan =
                keep_plan(m, t, m.bf16.parts > 0 ? few_rows_plan(t, true, m.bf16.step) : sequential_plan(t, 1));
            m.back_plan = keep_plan(m, t, sequential_back_plan(t));
        } else {
            const int block = m.bf16.step > 1 ? bf16_units : row_block;
            m.tile_plan = m.small_plan = keep_plan(m, t, parallel_plan(t, block));
            if (m.bf16.parts > 0) m.small_plan = keep_plan(m, t, few_rows_plan(t, false, m.bf16.step));
            m.back_plan = keep_plan(m, t, parallel_back_plan(t, block));
        }
        std::vector<int> built = wanted_slots(i + 1);
        if (m.reads_built) {
            built = network_slots(t);
            for (int& slot : built) slot += context_ - t.options().context;
        }
        m.map = coordinate_map(e, built);
        std::vector<bool> is_active(features_, false);
        for (int c : t.active_order()) is_active[c] = true;
        std::vector<int> passive_given, passive_built;
        for (int c = 0; c < features_; ++c)
            if (!is_active[c]) {
                passive_given.push_back(where_[c]);
                passive_built.push_back(built[c]);
            }
        m.n_passive = int(passive_given.size());
        m.passive_given = out_.keep(std::move(passive_given));
        m.passive_built = out_.keep(std::move(passive_built));
        where_ = std::move(built);
        chain_.units = std::max(chain_.units, m.units);
        chain_.pairs = std::max(chain_.pairs, m.pairs);
        chain_.sums = std::max(chain_.sums, m.sums);
        std::vector<Summed> summed;
        for (int l = 0; l < m.n_layers; ++l) {
            const Layer& layer = m.layers[l];
            summed.push_back({m.tape_units + layer.product, layer.live, m.weights + layer.bias, m.weights, layer.row,
                              layer.visible, layer.panel, m.bf16.parts > 0 ? layer.grad_rows : -1});
        }
        out_.transforms.resize(out_.steps.size());
        out_.transforms.push_back(&t);
        add_weighted(step_of(m), std::move(summed));
    }

    template <class P>
    auto keep_plan(const NetworkStep<T>& m, const MaskedTransform& t, P plan) {
        if (m.bf16.parts > 0) plan_rounding(plan, t);
        return out_.keep(std::move(plan));
    }

    // Lines for each layer's products, sums and values; apart only where two of them are needed.
    void add_layers(NetworkStep<T>& m, const MaskedTransform& t, const std::vector<RoundedPlaces>& rounded) {
        const auto& shapes = t.layers();
        std::vector<int> added_by(shapes.size(), -1);
        for (size_t l = 0; l < shapes.size(); ++l)
            if (shapes[l].adds >= 0) added_by[size_t(shapes[l].adds)] = int(l);
        std::vector<Layer> layers;
        int panels = 0, folded = 0;
        bool has_slopes = false;
        const auto room = [&](int units) { return std::exchange(m.units, m.units + padded(units)); };
        int grad_pairs = 0;
        const int parts = m.bf16.parts;
        const auto pair_room = [&](int& next, int n) {
            return std::exchange(next, next + parts * padded((n + 1) / 2));
        };
        if (parts > 0) m.input_pairs = pair_room(m.pairs, int(t.input_order().size()));
        for (size_t l = 0; l < shapes.size(); ++l) {
            const auto& shape = shapes[l];
            const bool hidden = !t.is_output(int(l)), joined = shape.context >= 0 || shape.adds >= 0;
            Layer layer{};
            layer.row = shape.row.data();
            layer.visible = shape.visible.data();
            layer.bias = shape.bias;
            layer.in = shape.in;
            layer.out = shape.out;
            layer.below = shape.below;
            layer.activation = shape.activation;
            layer.product = room(shape.out);
            layer.sum = shape.gated ? room(shape.out) : layer.product;
            const bool is_changed = shape.activation != identity_index || shape.dropout > 0;
            layer.value = added_by[l] >= 0 && is_changed ? room(shape.out) : layer.sum;
            layer.dropout = shape.dropout;
            if (parts > 0) {
                layer.block = rounded[l].block.data();
                layer.back = rounded[l].back.data();
                layer.pairs = hidden && !shape.context_alone ? pair_room(m.pairs, shape.out) : -1;
                layer.grad_pairs = pair_room(grad_pairs, shape.out);
                layer.sums = std::exchange(m.sums, m.sums + padded(shape.out));
            }
            layer.relu = shape.activation == relu_index && !joined && layer.value == layer.product && !shape.dropout;
            layer.sweep = joined || shape.dropout > 0 || !(layer.relu || shape.activation == identity_index);
            layer.context_alone = shape.context_alone;
            layer.gated = shape.gated;
            layer.c_layer = shape.context;
            layer.live = t.live_units(int(l));
            layer.panel = std::exchange(panels, panels + (parts > 0 ? padded(shape.in) / 2 * parts : padded(shape.in)));
            if (parts > 0) layer.grad_rows = std::exchange(panels, panels + (shape.out * parts + 1) / 2);
            if (shape.below < 0) layer.fold = std::exchange(folded, folded + shape.out);
            if (shape.context >= 0)
                layer.c = out_.keep(lines_of(t, int(l), shape.context, layers[size_t(shape.context)].value));
            if (shape.adds >= 0)
                layer.adds = out_.keep(lines_of(t, int(l), shape.adds, layers[size_t(shape.adds)].sum));
            if (hidden) {
                m.has_slope_sweep = m.has_slope_sweep || (layer.sweep && layer.activation != relu_index);
                has_slopes = has_slopes || keeps_slopes(layer);
            }
            layers.push_back(layer);
        }
        for (size_t l = 0; l < shapes.size(); ++l)
            if (added_by[l] >= 0) {
                const int by = added_by[l];
                std::vector<int> lines = lines_of(t, int(l), by, layers[size_t(by)].sum);
                for (int& line : lines)
                    if (line >= layers[size_t(by)].sum + layers[size_t(by)].live)
                        line = -1;  // a dead unit has no gradient
                layers[l].added_to = out_.keep(std::move(lines));
            }
        m.pairs = std::max(m.pairs, grad_pairs);  // those of values are not needed any more on the way back
        m.ready = m.units;
        if (m.vector_map >= 0) {
            m.units += padded(n_ready_of(m.vector_map, int(t.options().active.size())));
            chain_.tiles_only = true;
        }
        m.tape_units = lines(m.units);
        m.tape_slopes = has_slopes ? lines(m.units) : -1;
        int& most = most_panels_[out_.networks.size() % 2];
        most = std::max(most, panels);
        m.n_layers = int(layers.size());
        m.layers = out_.keep(std::move(layers));
    }

    // For each unit of a layer, in the order of degrees, the line of the same unit (to the user) of another one, whose
    // lines start at `first`.
    static std::vector<int> lines_of(const MaskedTransform& t, int layer, int other, int first) {
        const std::vector<int> places = t.places(other);
        std::vector<int> lines;
        for (int unit : t.layers()[size_t(layer)].order) lines.push_back(first + places[size_t(unit)]);
        return lines;
    }

    // ---- the chain's ends

    void finish() {
        out_.transforms.resize(out_.steps.size());
        out_.store_slot = std::move(where_);
        const auto data_or_null = [](const auto& v) { return v.empty() ? nullptr : v.data(); };
        chain_.load_slot = out_.load_slot.data();
        chain_.store_slot = out_.store_slot.data();
        chain_.load_shift = data_or_null(out_.load_shift);
        chain_.load_scale = data_or_null(out_.load_scale);
        chain_.store_shift = data_or_null(out_.store_shift);
        chain_.store_scale = data_or_null(out_.store_scale);
        chain_.load_support = data_or_null(out_.load_support);
        chain_.store_support = data_or_null(out_.store_support);
        chain_.context_shift = data_or_null(structure_.context_shift());
        chain_.context_scale = data_or_null(structure_.context_scale());
        chain_.steps = out_.steps.data();
        chain_.n_steps = int(out_.steps.size());
        chain_.networks = out_.networks.data();
        chain_.n_networks = int(out_.networks.size());
        const int64_t slots = context_ + features_;
        tape_.states = lines((chain_.n_steps + 1) * slots);
        // A network's inputs are transposed with the lines up to padding.
        tape_.gradients = lines(2 * slots + row_padding);
        for (int i : {0, 1}) tape_.panels[i] = lines(most_panels_[i]);
        tape_.pairs = lines(chain_.pairs);
        tape_.sums = lines(2);
        chain_.tape = tape_;
    }

    const Structure& structure_;
    const int features_, context_;
    const bool inverse_;
    std::shared_ptr<Compiled<T>> compiled_;
    Compiled<T>& out_;
    Chain<T>& chain_;
    std::vector<Executed> order_;
    std::vector<int> where_;  // the slot of each coordinate of the current vector
    TapeShape tape_{};
    int most_panels_[2] = {0, 0};
};

}  // namespace

template <class T>
std::shared_ptr<const Compiled<T>> lowered(const Structure& structure, bool inverse, size_t first, int number) {
    const auto compiled = Lowering<T>(structure, inverse, first).compiled();
    compiled->number = number;
    return compiled;
}

template std::shared_ptr<const Compiled<float>> lowered(const Structure&, bool, size_t, int);
template std::shared_ptr<const Compiled<double>> lowered(const Structure&, bool, size_t, int);

}  // namespace headrace
