#include "structure.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "../math/activations.hpp"
#include "../math/maps.hpp"
#include "../math/vector_maps.hpp"
#include "blocks.hpp"
#include "compiled.hpp"

namespace headrace {
namespace {

int padded(int n) {
    return (n + row_padding - 1) / row_padding * row_padding;
}

bool activation_has_slope_of_value(int activation) {
    bool result = false;
    with_activation(activation, [&]<class A>() { result = A::slope_of_value; });
    return result;
}

// A vector map with one set of parameters for all rows: there is nothing that its network reads.
bool is_shared_vector(const MaskedTransform& t) {
    return t.vector_map() >= 0 && t.layers().size() == 1 && t.layers()[0].in == 0;
}

// A map with parameters of its own for each coordinate, that has a form for ready ones: so many for a coordinate, else
// 0.
int n_elementwise_ready(const MaskedTransform& t) {
    int n = 0;
    if (t.vector_map() < 0 && t.layers().size() == 1 && t.layers()[0].in == 0 &&
        int(t.options().active.size()) == t.options().features)
        with_map(t.map(), [&]<class Map>() {
            if constexpr (requires { Map::ready_factors; }) n = Map::n_ready(t.options().bins);
        });
    return n;
}

bool is_transparent(const MaskedTransform& t) {  // to slots: its coordinates may be in any
    return is_shared_vector(t) || n_elementwise_ready(t) > 0;
}

template <class T>
MapOptions<T> map_options(const MaskedOptions& o) {
    return {T(o.slope), T(1 / std::log(1 / o.slope)), o.bins, T(o.bound)};
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

}  // namespace

Structure::Structure(int features, int context, std::vector<StepSpec> steps, ContextScale context_scale)
    : features_(features), context_(context), steps_(std::move(steps)), context_shift_(std::move(context_scale.mean)) {
    if (features < 1 || context < 0) throw std::invalid_argument("features: expected at least 1");
    for (double std : context_scale.std) context_scale_.push_back(1 / std);
    if (context_shift_.size() != context_scale_.size() ||
        (!context_shift_.empty() && context_shift_.size() != size_t(context)))
        throw std::invalid_argument("context_scale: expected a mean and a std for each context column");
    for (const StepSpec& s : steps_) {
        const size_t n = size_t(features);
        bool fits = true;
        switch (s.kind) {
            case StepSpec::Kind::masked:
                fits = s.masked && s.masked->options().features == features &&
                       (s.masked->options().context == 0 || s.masked->options().context == context);
                break;
            case StepSpec::Kind::permutation: {
                std::vector<bool> seen(n, false);
                fits = s.order.size() == n;
                for (size_t i = 0; fits && i < n; ++i) {
                    fits = s.order[i] >= 0 && s.order[i] < features && !seen[s.order[i]];
                    if (fits) seen[s.order[i]] = true;
                }
                break;
            }
            case StepSpec::Kind::rotation: fits = blocks_fit(s.blocks, n, s.matrix.size()); break;
            case StepSpec::Kind::standardize: fits = s.mean.size() == n && s.std.size() == n; break;
        }
        if (!fits)
            throw std::invalid_argument("transforms: a transform does not fit the program's features or context");
        step_weights_.push_back(int64_t(n_weights_));
        step_fold_.push_back(-1);
        if (s.kind != StepSpec::Kind::masked) continue;
        n_weights_ += s.masked->n_weights();
        if (s.masked->options().context > 0) {
            step_fold_.back() = int(n_folded_);
            n_folded_ += s.masked->layers()[0].out;
        }
    }
}

std::vector<Structure::Part> Structure::parts() const {
    std::vector<Part> parts;
    for (size_t i = 0; i < steps_.size(); ++i) {
        if (steps_[i].kind != StepSpec::Kind::masked) continue;
        int64_t begin = step_weights_[i];
        for (const auto& layer : steps_[i].masked->layers()) {
            const int64_t bias = step_weights_[i] + layer.bias, end = bias + padded(layer.out);
            parts.push_back({begin, bias, false});
            parts.push_back({bias, end, true});
            begin = end;
        }
    }
    return parts;
}

template <class T>
void Structure::clear_masked(T* vector) const {
    for (size_t i = 0; i < steps_.size(); ++i)
        if (steps_[i].kind == StepSpec::Kind::masked) steps_[i].masked->clear_masked(vector + step_weights_[i]);
}

template <class T>
void Structure::clear_dead(T* gradient) const {
    for (size_t i = 0; i < steps_.size(); ++i)
        if (steps_[i].kind == StepSpec::Kind::masked) steps_[i].masked->clear_dead(gradient + step_weights_[i]);
}

// Steps in the order of execution. Permutations only rename slots, and a step writes its result where the next one
// wants to read it.
template <class T>
std::shared_ptr<Compiled<T>> Structure::compile(bool inverse, size_t first) const {
    const auto compiled = std::make_shared<Compiled<T>>();
    Compiled<T>& out = *compiled;
    struct Executed {
        const StepSpec* spec;
        size_t index;
        bool to_data;  // runs from the transform's latent side to its data side
    };
    std::vector<Executed> order;
    for (size_t i = first; i < steps_.size(); ++i) {
        const size_t index = inverse ? steps_.size() - 1 - (i - first) : i;
        order.push_back({&steps_[index], index, inverse == steps_[index].inverted});
    }
    const auto reads_built = [](const Executed& e) {
        return e.spec->masked->options().reads_data == e.to_data && !e.spec->masked->reads_passive_only();
    };
    // permuted[i]: which coordinate before the step is coordinate i after it.
    const auto permuted = [](const Executed& e) {
        std::vector<int> source = e.spec->order;
        if (!e.to_data)
            for (size_t i = 0; i < source.size(); ++i) source[e.spec->order[i]] = int(i);
        return source;
    };
    const auto permute = [&](std::vector<int>& of_coordinate, const Executed& e) {
        const std::vector<int> source = permuted(e), before = of_coordinate;
        for (int c = 0; c < features_; ++c) of_coordinate[c] = before[source[c]];
    };
    // Where the result before step `from` should lie: where the next network reads it, or in natural order.
    const auto wanted_slots = [&](size_t from) {
        std::vector<int> name(features_), slots(features_);
        for (int c = 0; c < features_; ++c) {
            name[c] = c;
            slots[c] = context_ + c;
        }
        for (size_t i = from; i < order.size(); ++i) {
            const Executed& e = order[i];
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
    };

    Chain<T>& chain = out.chain;
    chain = Chain<T>{};
    chain.features = features_;
    chain.context = context_;
    std::vector<int> where = wanted_slots(0);  // the slot of each coordinate of the current vector
    out.load_slot = where;
    double log_det = 0;
    TapeShape tape{};
    int most_panels[2] = {0, 0};
    const auto move_to = [&](const std::vector<int>& wanted) {
        if (wanted == where) return;
        Step<T> step{};
        step.kind = StepKind::move;
        step.move = {out.keep(std::move(where)), out.keep(wanted)};
        out.steps.push_back(step);
        where = wanted;
    };
    for (size_t i = 0; i < order.size(); ++i) {
        const Executed& e = order[i];
        if (e.spec->kind == StepSpec::Kind::permutation) {
            permute(where, e);
            continue;
        }
        if (e.spec->kind == StepSpec::Kind::rotation) {
            // One block works from any slots to any others; several find their coordinates side by side, and leave
            // them.
            if (e.spec->blocks.size() > 1) move_to(wanted_slots(i));
            std::vector<int> built = e.spec->blocks.size() > 1 ? where : wanted_slots(i + 1);
            add_rotation(out, *e.spec, e.to_data, where, built);
            where = std::move(built);
            continue;
        }
        if (e.spec->kind == StepSpec::Kind::standardize) {
            std::vector<double> shift = e.spec->mean, scale = e.spec->std;
            for (double s : scale) log_det += e.to_data ? std::log(s) : -std::log(s);
            if (!e.to_data)
                for (double& s : scale) s = 1 / s;
            // Loading and storing know columns, not slots, so that only permutations may lie between them and the step.
            // On the latent side a sample starts and a base density ends: there it is a step like any other.
            const bool at_data_end = inverse ? out.steps.empty() && out.load_shift.empty() : i + 1 == order.size();
            if (at_data_end && !e.to_data && inverse) {
                out.load_shift.resize(features_);
                out.load_scale.resize(features_);
                for (int c = 0; c < features_; ++c) {
                    const size_t column =
                        size_t(std::find(out.load_slot.begin(), out.load_slot.end(), where[c]) - out.load_slot.begin());
                    out.load_shift[column] = shift[c];
                    out.load_scale[column] = scale[c];
                }
            } else if (at_data_end && e.to_data && !inverse) {
                out.store_shift = std::move(shift);
                out.store_scale = std::move(scale);
            } else {
                std::vector<double> slot_shift(features_), slot_scale(features_);
                for (int c = 0; c < features_; ++c) {
                    slot_scale[where[c] - context_] = scale[c];
                    slot_shift[where[c] - context_] = shift[c];
                }
                Step<T> step{};
                step.kind = StepKind::scale;
                step.scale = {out.keep(std::move(slot_scale)), out.keep(std::move(slot_shift)), !e.to_data};
                out.steps.push_back(step);
            }
            continue;
        }
        const MaskedTransform& t = *e.spec->masked;
        if (is_shared_vector(t)) {  // and those that follow with the same map, in whatever slots their coordinates are
            std::vector<int64_t> weights;
            std::vector<int> coordinate;
            for (; i < order.size(); ++i) {
                const Executed& next = order[i];
                if (next.spec->kind == StepSpec::Kind::permutation) {
                    permute(where, next);
                    continue;
                }
                if (next.spec->kind != StepSpec::Kind::masked || next.to_data != e.to_data ||
                    !same_vector_map(t, *next.spec->masked))
                    break;
                weights.push_back(step_weights_[next.index]);
                coordinate.resize(coordinate.size() + size_t(features_));
                for (int c = 0; c < features_; ++c) *(coordinate.end() - features_ + where[c] - context_) = c;
            }
            --i;
            add_vectors(out, t, e.to_data != t.options().formula_to_data, std::move(weights), std::move(coordinate),
                        tape);
            continue;
        }
        const int n_ready = n_elementwise_ready(t);
        if (n_ready == 0 && !reads_built(e)) move_to(wanted_slots(i));
        Step<T> step{};
        step.kind = StepKind::network;
        MaskedStep<T>& m = step.network;
        m.reads_built = reads_built(e);
        m.map_inverse = e.to_data != t.options().formula_to_data;
        m.map = t.map();
        m.vector_map = t.vector_map();
        m.activation = t.activation();
        m.has_activation_sweep = activation_list()[t.activation()] != "relu";
        m.n_params = t.n_params();
        m.options = map_options<T>(t.options());
        m.weights = step_weights_[e.index];
        m.fold = step_fold_[e.index];
        m.input_slot = context_ - t.options().context;

        std::vector<Layer> layers;
        int panels = 0;
        for (size_t l = 0; l < t.layers().size(); ++l) {
            const auto& shape = t.layers()[l];
            layers.push_back({shape.row.data(), shape.visible.data(), shape.bias, shape.in, shape.out, m.units,
                              t.live_units(int(l)), panels});
            m.units += padded(shape.out);
            panels += padded(shape.in);
        }
        m.ready = m.units;
        if (m.vector_map >= 0) {
            m.units += padded(n_ready_of(m.vector_map, features_));
            chain.tiles_only = true;
        }
        m.tape_units = tape.lines;
        tape.lines += m.units;
        m.tape_slopes = -1;
        if (!activation_has_slope_of_value(t.activation())) {
            m.tape_slopes = tape.lines;
            tape.lines += m.units;
        }
        most_panels[out.networks.size() % 2] = std::max(most_panels[out.networks.size() % 2], panels);
        out.networks.push_back(int(out.steps.size()));
        m.n_layers = int(layers.size());
        m.layers = out.keep(std::move(layers));
        if (m.reads_built) {
            m.tile_plan = out.keep(sequential_plan(t, choose_panel(t)));
            m.small_plan = out.keep(sequential_plan(t, 1));
            m.back_plan = out.keep(sequential_back_plan(t));
        } else {
            m.tile_plan = m.small_plan = out.keep(parallel_plan(t));
            m.back_plan = out.keep(parallel_back_plan(t));
        }

        std::vector<int> built = n_ready > 0 ? where : wanted_slots(i + 1);
        if (m.reads_built) {
            built = network_slots(t);
            for (int& slot : built) slot += context_ - t.options().context;
        }
        std::vector<int> active_given, active_built, passive_given, passive_built;
        std::vector<bool> is_active(features_, false);
        for (int c : t.active_order()) {
            active_given.push_back(where[c]);
            active_built.push_back(built[c]);
            is_active[c] = true;
        }
        for (int c = 0; c < features_; ++c)
            if (!is_active[c]) {
                passive_given.push_back(where[c]);
                passive_built.push_back(built[c]);
            }
        m.n_active = int(active_given.size());
        m.n_passive = int(passive_given.size());
        m.active_given = out.keep(std::move(active_given));
        m.active_built = out.keep(std::move(active_built));
        m.passive_given = out.keep(std::move(passive_given));
        m.passive_built = out.keep(std::move(passive_built));
        where = std::move(built);
        if (n_ready > 0) {
            step.kind = StepKind::elementwise;
            std::vector<int> coordinate(size_t(features_), 0);
            for (int k = 0; k < features_; ++k) coordinate[size_t(where[t.active_order()[k]] - context_)] = k;
            step.elementwise = {n_ready, chain.ready, m.weights + t.layers()[0].bias, out.keep(std::move(coordinate))};
            chain.ready += int64_t(n_ready) * features_;
            chain.tiles_only = true;
        }
        chain.units = std::max(chain.units, m.units);
        out.transforms.resize(out.steps.size());
        out.transforms.push_back(&t);
        out.steps.push_back(step);
    }
    out.transforms.resize(out.steps.size());
    out.store_slot = std::move(where);
    const auto data_or_null = [](const std::vector<double>& v) { return v.empty() ? nullptr : v.data(); };
    chain.load_slot = out.load_slot.data();
    chain.store_slot = out.store_slot.data();
    chain.load_shift = data_or_null(out.load_shift);
    chain.load_scale = data_or_null(out.load_scale);
    chain.store_shift = data_or_null(out.store_shift);
    chain.store_scale = data_or_null(out.store_scale);
    chain.context_shift = data_or_null(context_shift_);
    chain.context_scale = data_or_null(context_scale_);
    chain.log_det = log_det;
    chain.steps = out.steps.data();
    chain.n_steps = int(out.steps.size());
    chain.networks = out.networks.data();
    chain.n_networks = int(out.networks.size());
    const auto lines = [&tape](int64_t n) { return std::exchange(tape.lines, tape.lines + n); };
    const int64_t slots = context_ + features_;
    tape.states = lines((chain.n_steps + 1) * slots);
    tape.gradients = lines(2 * slots + row_padding);  // a network's inputs are transposed with the lines up to padding
    for (int i : {0, 1}) tape.panels[i] = lines(most_panels[i]);
    tape.sums = lines(2);
    chain.tape = tape;
    return compiled;
}

// x = Q z to data, z = Qᵀ x to latent, from slot to slot, each block among its own.
template <class T>
void Structure::add_rotation(Compiled<T>& out, const StepSpec& spec, bool to_data, const std::vector<int>& given,
                             const std::vector<int>& built) const {
    std::vector<T> matrix(spec.matrix.size()), transpose(spec.matrix.size());
    const auto [row, first] = block_rows(spec.blocks);
    for (size_t b = 0; b < spec.blocks.size(); ++b) {
        const size_t begin = size_t(first[b]), n = size_t(spec.blocks[b]), start = row[begin];
        const double* q = spec.matrix.data() + start;
        for (size_t i = 0; i < n; ++i)
            for (size_t k = 0; k < n; ++k) {
                const size_t r = size_t(built[begin + i] - context_) - begin;
                const size_t c = size_t(given[begin + k] - context_) - begin;
                matrix[start + r * n + c] = transpose[start + c * n + r] = T(to_data ? q[i * n + k] : q[k * n + i]);
            }
    }
    Step<T> step{};
    step.kind = StepKind::rotation;
    step.rotation = {out.keep(std::move(matrix)),
                     out.keep(std::move(transpose)),
                     out.keep(std::vector<T>(size_t(features_))),
                     out.keep(row),
                     out.keep(first),
                     int(spec.blocks.size())};
    out.steps.push_back(step);
    out.chain.tiles_only = true;
}

// A step for a run of vector maps like t. Its layers are such that the sum of weights finds the gradients by their
// ready parameters where it looks for those by biases: on the tape, and then in the flow's gradient.
template <class T>
void Structure::add_vectors(Compiled<T>& out, const MaskedTransform& t, bool map_inverse, std::vector<int64_t> weights,
                            std::vector<int> coordinate, TapeShape& tape) const {
    Chain<T>& chain = out.chain;
    Step<T> step{};
    step.kind = StepKind::vector;
    VectorStep<T>& v = step.vector;
    v.map = t.vector_map();
    v.inverse = map_inverse;
    v.options = map_options<T>(t.options());
    v.transforms = int(weights.size());
    v.n_ready = n_ready_of(v.map, features_);
    v.ready = chain.ready;
    chain.ready += int64_t(v.transforms) * v.n_ready;
    chain.tiles_only = true;
    v.tape_states = tape.lines;
    tape.lines += int64_t(v.transforms - 1) * features_;
    MaskedStep<T>& m = step.network;
    m.weights = *std::min_element(weights.begin(), weights.end());
    m.tape_units = tape.lines;
    const int* nothing_visible = out.keep(std::vector<int>(size_t(v.n_ready), 0));
    std::vector<Layer> layers;
    for (int64_t w : weights) {
        layers.push_back({nullptr, nothing_visible, uint32_t(w - m.weights), 0, v.n_ready, m.units, v.n_ready, 0});
        m.units += v.n_ready;
    }
    tape.lines += m.units;
    m.layers = out.keep(std::move(layers));
    m.n_layers = v.transforms;
    v.weights = out.keep(std::move(weights));
    v.coordinate = out.keep(std::move(coordinate));
    out.networks.push_back(int(out.steps.size()));
    out.steps.push_back(step);
}

template <class T>
Chains<T>::Chains(const Structure& structure, size_t base_steps) {
    if (base_steps > structure.steps().size())
        throw std::invalid_argument("base_steps: expected at most the number of steps");
    for (const bool inverse : {false, true}) {
        const auto whole = structure.compile<T>(inverse, 0);
        whole->number = inverse;
        with_base_[inverse] = transforms_only_[inverse] = whole;
        if (base_steps == 0) continue;
        const auto part = structure.compile<T>(inverse, base_steps);
        part->number = 2 + inverse;
        transforms_only_[inverse] = part;
    }
}

#define HR_INSTANTIATE(T)                            \
    template void Structure::clear_masked(T*) const; \
    template void Structure::clear_dead(T*) const;   \
    template class Chains<T>;
HR_INSTANTIATE(float)
HR_INSTANTIATE(double)
#undef HR_INSTANTIATE

}  // namespace headrace
