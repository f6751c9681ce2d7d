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

// Whether a transform is a vector map of all coordinates with one set of parameters for all rows.
bool is_shared_vector(const NetworkSpec& s, int features) {
    return s.map->is_vector() && is_shared(s, features);
}

bool is_transparent(const NetworkSpec& s, int features) {  // whether coordinates may be in any order of slots
    return is_shared_vector(s, features) || n_elementwise_ready(s, features) > 0;
}

bool same_vector_map(const NetworkSpec& a, const NetworkSpec& b, int features) {
    const MapSettings &x = a.map->settings(), &y = b.map->settings();
    return is_shared_vector(b, features) && a.map->vector_index() == b.map->vector_index() && x.slope == y.slope &&
           x.formula_to_data == y.formula_to_data;
}

int n_vector_ready(int vector_map, int features) {
    int n = 0;
    with_vector_map(vector_map, [&]<class Map>() { n = Map::n_ready(features); });
    return n;
}

// The slot of every coordinate in the order of a conditioner's inputs: the context, then coordinates that it reads,
// then the remaining coordinates.
std::vector<int> network_slots(const Conditioner& c, int features) {
    std::vector<int> slots(size_t(features), -1);
    int next = c.context();
    for (int coordinate : c.read_order(features)) slots[size_t(coordinate)] = next++;
    for (int& slot : slots)
        if (slot < 0) slot = next++;
    return slots;
}

bool is_inverted(const StepSpec& spec) {
    return std::visit(
        [](const auto& own) {
            if constexpr (requires { own.inverted; }) return own.inverted;
            return false;
        },
        spec);
}

// Converts transforms, in the order of execution, to steps. Permutations only rename slots, and a step writes its
// result to the slots that the next step reads.
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
            order_.push_back({&specs[index], index, inverse == is_inverted(specs[index])});
        }
        chain_ = Chain<T>{};
        chain_.features = features_;
        chain_.context = context_;
        where_ = wanted_slots(0);
        out_.load_slot = where_;
    }

    std::shared_ptr<Compiled<T>> compiled() {
        for (size_t i = 0; i < order_.size(); ++i) std::visit([&](const auto& spec) { add(i, spec); }, *order_[i].spec);
        finish();
        return compiled_;
    }

  private:
    struct Executed {
        const StepSpec* spec;
        size_t index;
        bool to_data;  // whether the transform runs from its latent side to its data side
    };

    static bool reads_built(const NetworkSpec& spec, bool to_data) {
        return spec.reads_data == to_data && !spec.conditioner->reads_passive_only();
    }
    // Whether a map runs against the direction of its formula.
    static bool is_inverse(const TransformMap& map, bool to_data) { return to_data != map.settings().formula_to_data; }

    // ---- slots

    void permute(std::vector<int>& of_coordinate, const PermutationSpec& spec, bool to_data) const {
        std::vector<int> source = spec.order;  // index before the step of the coordinate that has index i after the
                                               // step
        if (!to_data)
            for (size_t i = 0; i < source.size(); ++i) source[size_t(spec.order[i])] = int(i);
        const std::vector<int> before = of_coordinate;
        for (size_t c = 0; c < before.size(); ++c) of_coordinate[c] = before[size_t(source[c])];
    }

    // The slots of coordinates before step `from`: the slots in which the next network reads the coordinates, or slots
    // in the natural order.
    std::vector<int> wanted_slots(size_t from) const {
        std::vector<int> name(features_), slots(features_);
        for (int c = 0; c < features_; ++c) {
            name[c] = c;
            slots[c] = context_ + c;
        }
        for (size_t i = from; i < order_.size(); ++i) {
            const Executed& e = order_[i];
            if (const auto* const permutation = std::get_if<PermutationSpec>(e.spec)) {
                permute(name, *permutation, e.to_data);
            } else if (const auto* const rotation = std::get_if<RotationSpec>(e.spec)) {
                for (int c = 0; c < features_ && rotation->blocks.size() > 1; ++c) slots[name[c]] = context_ + c;
                break;
            } else if (const auto* const network = std::get_if<NetworkSpec>(e.spec);
                       network && !is_transparent(*network, features_)) {
                if (reads_built(*network, e.to_data)) break;
                const std::vector<int> wanted = network_slots(*network->conditioner, features_);
                for (int c = 0; c < features_; ++c)
                    slots[name[c]] = wanted[c] - network->conditioner->context() + context_;
                break;
            }
        }
        return slots;
    }

    void move_to(const std::vector<int>& wanted) {
        if (wanted == where_) return;
        out_.steps.push_back(step_of(MoveStep<T>{out_.kept.keep(std::move(where_)), out_.kept.keep(wanted)}));
        where_ = wanted;
    }

    // ---- steps

    void add(size_t i, const PermutationSpec& spec) { permute(where_, spec, order_[i].to_data); }

    // Adds a network's step. i is the index of the transform; of several transforms in one step, the last index.
    void add(size_t& i, const NetworkSpec& spec) {
        if (is_shared_vector(spec, features_)) {
            i = add_vectors(i, spec);
        } else if (n_elementwise_ready(spec, features_) > 0) {
            add_elementwise(i, spec);
        } else {
            add_network(i, spec);
        }
    }

    // Adds a step that has weights, with the sums of its gradients over the rows.
    void add_weighted(Step<T> step, std::vector<Summed> summed) {
        step.n_summed = int(summed.size());
        step.summed = out_.kept.keep(std::move(summed));
        out_.networks.push_back(int(out_.steps.size()));
        out_.steps.push_back(step);
    }

    int64_t lines(int64_t n) { return std::exchange(tape_.lines, tape_.lines + n); }
    int64_t ready(int64_t n) { return std::exchange(chain_.ready, chain_.ready + n); }

    // Adds the scaling value * scale + shift of each slot, or its inverse.
    void add(size_t i, const StandardizeSpec& spec) {
        const Executed& e = order_[i];
        std::vector<double> shift = spec.mean, scale = spec.std;
        for (double s : scale) chain_.log_det += e.to_data ? std::log(s) : -std::log(s);
        if (!e.to_data)
            for (double& s : scale) s = 1 / s;
        // Loading and storing scale by column, not by slot, so that they can include the scaling if only permutations
        // are between them and this step. At the latent end of a chain the scaling is an ordinary step.
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
            out_.steps.push_back(step_of(ScaleStep<T>{out_.kept.keep(std::move(slot_scale)),
                                                      out_.kept.keep(std::move(slot_shift)), !e.to_data}));
        }
    }

    // Whether there is no step from `i` on, or only one that maps coordinates to their support.
    bool ends_with_support(size_t i) const {
        return i == order_.size() ||
               (i + 1 == order_.size() && std::holds_alternative<SupportSpec>(*order_[i].spec) && order_[i].to_data);
    }

    // Adds the map to a support. At the data end of a chain the map is part of loading or storing, on the data side of
    // any scaling.
    void add(size_t i, const SupportSpec& spec) {
        const Executed& e = order_[i];
        const std::vector<SupportColumn> columns = support_columns<T>(spec);
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
            out_.steps.push_back(step_of(SupportStep<T>{out_.kept.keep(std::move(by_slot)), e.to_data}));
        }
    }

    // Adds the step that the description of a transform returns (`lowered`).
    template <class Spec>
    void add(size_t i, const Spec& spec) {
        std::vector<int> slots(where_);
        for (int& slot : slots) slot -= context_;
        out_.steps.push_back(step_of(spec.template lowered<T>({out_.kept, std::move(slots), order_[i].to_data})));
    }

    // Adds the base, a step that leaves coordinates unchanged.
    void add(size_t i, const DensitySpec& spec) {
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
        s.coordinate = out_.kept.keep(std::move(coordinate));
        s.column = out_.kept.keep(std::move(column));
        s.raw = out_.kept.keep(std::move(raw));
        s.fixed = spec.fixed.data();
        s.weights = spec.trains() ? structure_.weights_of(order_[i].index) : -1;
        s.ready = ready(n_density_ready(s, features_));
        s.tape_grads = spec.trains() ? lines(s.n_raw) : -1;
        chain_.density = out_.kept.keep(std::vector<DensityStep<T>>{s});
        if (spec.trains()) {
            add_weighted(step_of(s), {{s.tape_grads, s.n_raw, s.weights, 0, nullptr, nullptr, 0}});
        } else {
            out_.steps.push_back(step_of(s));
        }
    }

    // Adds a rotation: x = Q z to data, z = Qᵀ x to latent (or with the inverse of a Q that is not orthogonal), block
    // by block. A single block may read and write any slots; the coordinates of each of several blocks must be in
    // adjacent slots, before and after.
    void add(size_t i, const RotationSpec& spec) {
        const Executed& e = order_[i];
        if (spec.blocks.size() > 1) move_to(wanted_slots(i));
        std::vector<int> built = spec.blocks.size() > 1 ? where_ : wanted_slots(i + 1);
        std::vector<T> matrix(spec.matrix.size()), transpose(spec.matrix.size());
        const auto [row, first] = block_rows(spec.blocks);
        for (size_t b = 0; b < spec.blocks.size(); ++b) {
            const size_t begin = size_t(first[b]), n = size_t(spec.blocks[b]), start = row[begin];
            const double* q = spec.matrix.data() + start;
            const double* back = spec.inverse.empty() ? nullptr : spec.inverse.data() + start;
            for (size_t k = 0; k < n; ++k)
                for (size_t l = 0; l < n; ++l) {
                    const size_t r = size_t(built[begin + k] - context_) - begin;
                    const size_t c = size_t(where_[begin + l] - context_) - begin;
                    matrix[start + r * n + c] = transpose[start + c * n + r] = T(e.to_data ? q[k * n + l]
                                                                                 : back    ? back[k * n + l]
                                                                                           : q[l * n + k]);
                }
        }
        out_.steps.push_back(
            step_of(RotationStep<T>{out_.kept.keep(std::move(matrix)), out_.kept.keep(std::move(transpose)),
                                    out_.kept.keep(std::vector<T>(size_t(features_))), out_.kept.keep(row),
                                    out_.kept.keep(first), int(spec.blocks.size())}));
        chain_.tiles_only = true;
        where_ = std::move(built);
    }

    // Adds one step for a run of transforms with the same vector map, with coordinates in any slots, and returns the
    // index of the run's last transform.
    size_t add_vectors(size_t i, const NetworkSpec& spec) {
        const bool to_data = order_[i].to_data;
        std::vector<int64_t> weights;
        std::vector<int> coordinate;
        for (; i < order_.size(); ++i) {
            const Executed& next = order_[i];
            if (const auto* const permutation = std::get_if<PermutationSpec>(next.spec)) {
                permute(where_, *permutation, next.to_data);
                continue;
            }
            const auto* const other = std::get_if<NetworkSpec>(next.spec);
            if (!other || next.to_data != to_data || !same_vector_map(spec, *other, features_)) break;
            weights.push_back(structure_.weights_of(next.index));
            coordinate.resize(coordinate.size() + size_t(features_));
            for (int c = 0; c < features_; ++c) *(coordinate.end() - features_ + where_[c] - context_) = c;
        }
        VectorStep<T> v{};
        v.map = spec.map->vector_index();
        v.inverse = is_inverse(*spec.map, to_data);
        v.options = spec.map->options<T>();
        v.transforms = int(weights.size());
        v.n_ready = n_vector_ready(v.map, features_);
        v.ready = ready(int64_t(v.transforms) * v.n_ready);
        v.tape_states = lines(int64_t(v.transforms - 1) * features_);
        v.tape_gradients = lines(int64_t(v.transforms) * v.n_ready);
        chain_.tiles_only = true;
        std::vector<Summed> summed;  // gradients by ready parameters are stored where gradients by raw parameters
                                     // replace them later (steps/ready.hpp)
        summed.reserve(weights.size());
        for (size_t k = 0; k < weights.size(); ++k)
            summed.push_back(
                {v.tape_gradients + int64_t(k) * v.n_ready, v.n_ready, weights[k], 0, nullptr, nullptr, 0});
        v.weights = out_.kept.keep(std::move(weights));
        v.coordinate = out_.kept.keep(std::move(coordinate));
        add_weighted(step_of(v), std::move(summed));
        return i - 1;
    }

    CoordinateMap<T> coordinate_map(const NetworkSpec& spec, bool to_data, const std::vector<int>& built) {
        std::vector<int> active_given, active_built;
        for (int c : spec.conditioner->active_order(features_)) {
            active_given.push_back(where_[c]);
            active_built.push_back(built[c]);
        }
        const int n = int(active_given.size());
        return {spec.map->index(),
                spec.conditioner->outputs(),
                spec.map->options<T>(),
                is_inverse(*spec.map, to_data),
                n,
                out_.kept.keep(std::move(active_given)),
                out_.kept.keep(std::move(active_built))};
    }

    void add_elementwise(size_t i, const NetworkSpec& spec) {
        const Executed& e = order_[i];
        ElementwiseStep<T> s{};
        s.map = coordinate_map(spec, e.to_data, where_);
        s.n_ready = n_elementwise_ready(spec, features_);
        s.ready = ready(int64_t(s.n_ready) * features_);
        s.weights = structure_.weights_of(e.index);
        const int n = features_ * s.map.n_params;
        s.tape_raw = lines(n);
        std::vector<int> coordinate(size_t(features_), 0);
        for (int k = 0; k < features_; ++k) coordinate[size_t(s.map.given[k] - context_)] = k;
        s.coordinate = out_.kept.keep(std::move(coordinate));
        chain_.tiles_only = true;
        add_weighted(step_of(s), {{s.tape_raw, n, s.weights, 0, nullptr, nullptr, 0}});
    }

    void add_network(size_t i, const NetworkSpec& spec) {
        const Executed& e = order_[i];
        const Conditioner& c = *spec.conditioner;
        NetworkStep<T> m{};
        m.reads_built = reads_built(spec, e.to_data);
        if (!m.reads_built) move_to(wanted_slots(i));
        m.vector_map = spec.map->vector_index();
        m.weights = structure_.weights_of(e.index);
        m.fold = structure_.fold_of(e.index);
        m.stream = uint32_t(e.index) + 2;  // the first two streams are for samples
        m.input_slot = context_ - c.context();
        m.rounded = structure_.pairs_of(e.index);
        m.rounded_back = structure_.back_pairs_of(e.index);
        std::vector<int> built = wanted_slots(i + 1);
        if (m.reads_built) {
            built = network_slots(c, features_);
            for (int& slot : built) slot += context_ - c.context();
        }
        m.map = coordinate_map(spec, e.to_data, built);
        add_passive(m, c, built);
        where_ = std::move(built);
        std::vector<Summed> summed = add_conditioner(m, c, structure_.bf16_of(e.index));
        out_.conditioners.resize(out_.steps.size());
        out_.conditioners.push_back(&c);
        add_weighted(step_of(m), std::move(summed));
    }

    // Adds coordinates that pass through the step unchanged.
    void add_passive(NetworkStep<T>& m, const Conditioner& c, const std::vector<int>& built) {
        std::vector<bool> is_active(size_t(features_), false);
        for (int a : c.active_order(features_)) is_active[size_t(a)] = true;
        std::vector<int> passive_given, passive_built;
        for (int p = 0; p < features_; ++p)
            if (!is_active[size_t(p)]) {
                passive_given.push_back(where_[size_t(p)]);
                passive_built.push_back(built[size_t(p)]);
            }
        m.n_passive = int(passive_given.size());
        m.passive_given = out_.kept.keep(std::move(passive_given));
        m.passive_built = out_.kept.keep(std::move(passive_built));
    }

    // Adds the conditioner's arguments, and lines for the conditioner and for the ready parameters of a vector map.
    std::vector<Summed> add_conditioner(NetworkStep<T>& m, const Conditioner& c, const Bf16Layout& bf16) {
        Lowered<T> own = c.lower<T>(out_.kept, {features_, m.reads_built, bf16});
        m.conditioner = own.kernels;
        m.n_ready = m.vector_map >= 0 ? padded(n_vector_ready(m.vector_map, m.map.n)) : 0;
        if (m.vector_map >= 0 || own.tiles_only) chain_.tiles_only = true;
        with_conditioner(m.conditioner, [&](const auto& kernels) {
            const int span = span_of(m, positions(kernels, m.map.n));
            m.ready = state_lines(kernels) + scratch_lines(kernels, span);
            m.tape_ready = tape_lines(kernels, positions(kernels, m.map.n));
        });
        m.tape = lines(m.tape_ready + m.n_ready);
        chain_.units = std::max(chain_.units, m.ready + m.n_ready);
        chain_.pairs = std::max(chain_.pairs, own.pairs);
        chain_.sums = std::max(chain_.sums, own.sums);
        int& most = most_panels_[out_.networks.size() % 2];
        most = std::max(most, own.panels);
        for (Summed& s : own.summed) {
            s.line += m.tape;
            s.bias += m.weights;
            s.weights += m.weights;
        }
        return std::move(own.summed);
    }

    // ---- the chain's ends

    void finish() {
        out_.conditioners.resize(out_.steps.size());
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
        // The transposition of a network's inputs to panels also reads lines up to the padding.
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
