// Chains over time, their states and their streams for Python.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>

#include "../core/sequences/reflections.hpp"
#include "chains.hpp"

namespace headrace {
namespace {

template <class T>
using Chained = std::shared_ptr<const SequenceChain<T>>;

// Makes a link from a tuple: ("steps", program, that program in the other dtype or None), ("prediction", order),
// ("adaptive", order, window, every, floor, ceiling, start, damping) or ("network", transform, is_rounded,
// reads_sizes).
template <class T>
SequenceLink<T> chain_link(const py::tuple& given, int64_t features) {
    const auto kind = given[0].cast<std::string>();
    if (kind == "prediction") return PredictionLink<T>(features, given[1].cast<int64_t>());
    if (kind == "adaptive") {
        const AdaptiveOptions options{features,
                                      given[1].cast<int64_t>(),
                                      given[2].cast<int64_t>(),
                                      given[3].cast<int64_t>(),
                                      given[4].cast<double>(),
                                      given[5].cast<double>(),
                                      given[6].cast<double>(),
                                      given[7].cast<double>()};
        require(options.order > 0 && options.window > options.order && options.every > 0 && options.floor > 0.0,
                "links: expected an order below the window");
        return AdaptiveLink<T>(options);
    }
    if (kind == "network") {
        auto transform = given[1].cast<std::shared_ptr<CausalTransform<T>>>();
        require(transform && (transform->map() || transform->inner()),
                "links: expected a network with a map or a flow");
        require(transform->network().network().values == features, "links: expected networks of the features");
        const bool reads_sizes = given[3].cast<bool>();
        require(!reads_sizes || transform->network().network().covariates == features * adaptive_sizes,
                "links: expected a network of as many covariates as there are running sizes");
        return NetworkLink<T>(std::move(transform), given[2].cast<bool>(), reads_sizes);
    }
    using Other = typename StepsLink<T>::Other;
    auto program = given[1].cast<std::shared_ptr<Program<T>>>();
    auto other = given[2].cast<std::shared_ptr<Program<Other>>>();
    require(kind == "steps" && program && program->features() == features && program->context() == 0,
            "links: expected programs of the features without a context");
    require(!other || (other->features() == features && other->context() == 0 && program->n_weights() == 0),
            "links: expected a second program only beside one without parameters");
    return StepsLink<T>(std::move(program), std::move(other));
}

template <class T>
Chained<T> chain_of(int64_t features, const std::vector<py::tuple>& links, std::shared_ptr<const Program<T>> base) {
    require(features > 0 && !links.empty(), "links: expected at least one, of at least one feature");
    require(!base || (base->features() == features && base->context() == 0), "base: expected one of the features");
    std::vector<SequenceLink<T>> own;
    int64_t context = 0, covariates = 0, hop = 0;
    for (const py::tuple& link : links) {
        own.push_back(chain_link<T>(link, features));
        const LinkSides sides = std::visit([](const auto& one) { return one.sides(); }, own.back());
        for (const auto& [known, one] : {std::pair{&context, sides.context}, {&covariates, sides.covariates}}) {
            require(one == 0 || *known == 0 || one == *known, "links: expected one number of columns");
            *known = std::max(*known, one);
        }
        require(sides.covariates == 0 || hop == 0 || hop == sides.hop, "links: expected one hop");
        if (sides.covariates > 0) hop = sides.hop;
    }
    return std::make_shared<const SequenceChain<T>>(features, std::move(own), std::move(base));
}

// The weights of a chain. For each linear prediction, `filters` has reflection coefficients (columns, order), gains
// (columns,), and the sum of the logarithms of the gains.
template <class T>
HeldChainWeights<T> chain_weights(const std::shared_ptr<SequenceChain<T>>& given_chain, const py::object& parameters,
                                  const std::vector<py::tuple>& filters) {
    const SequenceChain<T>& chain = *given_chain;
    std::vector<PredictionFilter<T>> own;
    size_t next = 0;
    for (size_t i = 0; i < chain.links().size(); ++i) {
        if (!std::holds_alternative<PredictionLink<T>>(chain.links()[i])) continue;
        require(next < filters.size(), "filters: expected one for each linear prediction");
        const py::tuple& given = filters[next++];
        const int64_t columns = chain.features(), n = int64_t(chain.begin_of(i + 1) - chain.begin_of(i));
        const double* const k =
            host_numbers<const double>(given[0], {columns, n / columns}, "filters: expected float64 (columns, order)");
        const double* const gain =
            host_numbers<const double>(given[1], {columns}, "filters: expected float64 gains (columns,)");
        PredictionFilter<T> filter{{}, {gain, gain + columns}, given[2].cast<double>(), {k, k + n}};
        const std::vector<double> a = stepped_up(filter.reflections, columns);
        for (auto row = a.begin(); row != a.end(); row += n / columns)
            filter.coefficients.insert(filter.coefficients.end(), std::make_reverse_iterator(row + n / columns),
                                       std::make_reverse_iterator(row));
        own.push_back(std::move(filter));
    }
    require(next == filters.size(), "filters: expected one for each linear prediction");
    const T* const from = host_numbers<const T>(parameters, {int64_t(chain.n_weights())},
                                                "parameters: the vector has the wrong size or dtype");
    return {given_chain, chain.weights_of(from, std::move(own))};
}

// The arguments of a call: contiguous steps, context and frames.
template <class T>
struct ChainArguments {
    py::array given;
    LinkCall<T> call{};
    StepValues values;

    // Arguments of a call without context and frames.
    ChainArguments(const SequenceChain<T>& chain, bool inverse, const py::object& steps) {
        const char* const message = "given: expected an array (rows, steps, features) of float32 or float64";
        const bool is_double = py::isinstance<py::array_t<double>>(steps);
        require(is_double || py::isinstance<py::array_t<float>>(steps), message);
        if (is_double) {
            given = Array<double>(py::reinterpret_borrow<py::object>(steps));
        } else {
            given = Array<float>(py::reinterpret_borrow<py::object>(steps));
        }
        require(given.ndim() == 3 && given.shape(2) == chain.features(), message);
        values = {given.data(), is_double};
        call = {inverse, given.shape(0), given.shape(1), chain.features(), nullptr, nullptr, 0, 0};
    }

    ChainArguments(const SequenceChain<T>& chain, bool inverse, const py::object& steps, const py::object& context,
                   const py::object& frames, int64_t position)
        : ChainArguments(chain, inverse, steps) {
        require(context.is_none() == (chain.context() == 0), "context: expected if and only if networks read one");
        if (!context.is_none())
            call.context = host_numbers<const T>(context, {call.rows, chain.context()},
                                                 "context: expected a contiguous (rows, columns) of the dtype");
        open_frames(chain, frames, position);
    }

    py::ssize_t rows() const { return call.rows; }
    py::ssize_t steps() const { return call.steps; }

  private:
    void open_frames(const SequenceChain<T>& chain, const py::object& frames, int64_t position) {
        require(frames.is_none() == (chain.covariates() == 0),
                "covariates: expected if and only if networks read them");
        if (frames.is_none()) return;
        const char* const message = "covariates: expected a contiguous (rows, frames, columns) of the dtype";
        require(py::isinstance<Array<T>>(frames), message);
        const auto a = py::reinterpret_borrow<Array<T>>(frames);
        require(a.ndim() == 3, message);
        call.n_frames = a.shape(1);
        call.frames = host_numbers<const T>(frames, {call.rows, call.n_frames, chain.covariates()}, message);
        require(call.steps == 0 || call.n_frames > (position + call.steps - 1) / chain.hop(),
                "covariates: expected a frame for every hop of the steps");
    }
};

template <class T>
py::array copied_as(StepValues values, const std::vector<py::ssize_t>& shape) {
    py::array own = copied(values, shape);
    if (values.is_double == std::is_same_v<T, double>) return own;
    return Array<T>(py::object(std::move(own)));
}

template <class T>
void check_state(const SequenceChain<T>& chain, const HeldChainState<T>* state, int64_t rows) {
    require(!state || state->chain.get() == &chain, "state: expected one of this chain");
    require(!state || state->state->rows == rows, "state: expected one of as many rows as are given");
}

// Runs steps of data to latent steps, or latent steps to data, and returns the results with log-derivatives.
template <class T>
py::tuple chain_run(const SequenceChain<T>& chain, const HeldChainWeights<T>& weights, bool inverse,
                    const py::object& given, const py::object& context, const py::object& frames,
                    HeldChainState<T>* state) {
    const ChainWeights<T>& used = weights.of(chain);
    const StateInUse in_use(state);
    const ChainArguments<T> own(chain, inverse, given, context, frames, state ? state->state->position : 0);
    check_state(chain, state, own.rows());
    ChainRoom<T> room;
    StepValues values;
    without_gil([&] { values = chain.run(used, own.call, own.values, state ? state->state.get() : nullptr, room); });
    return py::make_tuple(copied_as<T>(values, {own.rows(), own.steps(), own.call.features}),
                          Array<T>({own.rows(), own.steps()}, room.log_det.data()));
}

// Runs a single link that is not a network, and returns values in the dtype of the result, log-derivatives of steps,
// and running sizes (rows, steps, columns) or None. The position of the state does not change.
template <class T>
py::tuple chain_run_link(const SequenceChain<T>& chain, const HeldChainWeights<T>& weights, size_t link, bool inverse,
                         const py::object& given, HeldChainState<T>* state) {
    const ChainWeights<T>& used = weights.of(chain);
    const StateInUse in_use(state);
    require(link < chain.links().size() && !std::holds_alternative<NetworkLink<T>>(chain.links()[link]),
            "link: expected the index of one that is no network");
    const ChainArguments<T> own(chain, inverse, given);
    check_state(chain, state, own.rows());
    LinkRoom<T> room;
    std::vector<T> log_det(size_t(own.rows() * own.steps()));
    StepValues values;
    without_gil([&] {
        values = std::visit(
            [&](const auto& one) {
                return one.run(own.call, used.links[link], own.values, log_det.data(),
                               state ? &state->state->links[link] : nullptr, room);
            },
            chain.links()[link]);
    });
    py::object sizes = py::none();
    if (!room.sizes.empty())
        sizes = Array<T>({own.rows(), own.steps(), py::ssize_t(own.call.features * adaptive_sizes)}, room.sizes.data());
    return py::make_tuple(copied(values, {own.rows(), own.steps(), own.call.features}),
                          Array<T>({own.rows(), own.steps()}, log_det.data()), sizes);
}

// Computes the outputs of the first link, which must be a network, from values of the side that the network reads. The
// position of the state does not change.
template <class T>
Array<T> chain_outputs(const SequenceChain<T>& chain, const HeldChainWeights<T>& weights, const py::object& given,
                       const py::object& context, const py::object& frames, HeldChainState<T>* state,
                       const py::object& sizes) {
    const ChainWeights<T>& used = weights.of(chain);
    const StateInUse in_use(state);
    const auto* const network = std::get_if<NetworkLink<T>>(&chain.links()[0]);
    if (network == nullptr) throw py::value_error("links: expected a network as the first");
    ChainArguments<T> own(chain, true, given, context, frames, state ? state->state->position : 0);
    check_state(chain, state, own.rows());
    require(sizes.is_none() != network->reads_sizes(), "sizes: expected if and only if the network reads them");
    if (network->reads_sizes()) {
        own.call.frames = host_numbers<const T>(sizes, {own.rows(), own.steps(), own.call.features * adaptive_sizes},
                                                "sizes: expected (rows, steps, columns)");
        own.call.n_frames = own.steps();
        own.call.first_frame = state ? state->state->position : 0;
    }
    Array<T> raw({own.rows(), own.steps(), py::ssize_t(network->transform().network().network().outputs)});
    T* const to = raw.mutable_data();
    if (state) state->is_broken = true;
    without_gil(
        [&] { network->outputs(own.call, used.links[0], own.values, state ? &state->state->links[0] : nullptr, to); });
    if (state) state->is_broken = false;
    return raw;
}

template <class T>
Array<T> chain_log_base(const SequenceChain<T>& chain, const HeldChainWeights<T>& weights, const Array<T>& z) {
    const ChainWeights<T>& used = weights.of(chain);
    require(chain.has_density() && z.ndim() == 3 && z.shape(2) == chain.features(),
            "z: expected (rows, steps, features)");
    Array<T> log_prob({z.shape(0), z.shape(1)});
    T* const to = log_prob.mutable_data();
    const T* const from = z.data();
    without_gil([&] { chain.log_base(used, from, z.shape(0) * z.shape(1), to); });
    return log_prob;
}

template <class T>
Array<T> chain_noise(const SequenceChain<T>& chain, const HeldChainWeights<T>& weights, uint64_t seed, int64_t first,
                     int64_t rows, int64_t begin, int64_t end) {
    const ChainWeights<T>& used = weights.of(chain);
    require(chain.has_density(), "noise: expected a chain with a base");
    require(
        first >= 0 && rows >= 0 && first + rows < most_samples && 0 <= begin && begin <= end && end <= most_drawn_steps,
        "noise: expected fewer than 2^31 samples, and at most 2^32 steps");
    Array<T> noise({py::ssize_t(rows), py::ssize_t(end - begin), py::ssize_t(chain.features())});
    T* const to = noise.mutable_data();
    without_gil([&] { ChainNoise<T>().take(chain, used, seed, first, rows, begin, end, to); });
    return noise;
}

template <class T>
void bind_chain_of(py::module_& m, const char* name, const char* weights_name) {
    using Chain = SequenceChain<T>;
    const py::class_<HeldChainWeights<T>> of_weights(m, weights_name);
    py::class_<Chain, std::shared_ptr<Chain>> bound(m, name);
    bound
        .def(py::init([](int64_t features, const std::vector<py::tuple>& links, std::shared_ptr<Program<T>> base) {
                 return std::const_pointer_cast<Chain>(chain_of<T>(features, links, std::move(base)));
             }),
             py::arg("features"), py::arg("links"), py::arg("base"))
        .def("weights", &chain_weights<T>, py::arg("parameters"), py::arg("filters"))
        .def(
            "state",
            [](const std::shared_ptr<Chain>& chain, int64_t rows) {
                require(rows >= 0, "rows: expected at least 0");
                auto state = std::make_shared<ChainState<T>>(chain->state(rows));
                return std::shared_ptr<HeldChainState<T>>(new HeldChainState<T>{chain, std::move(state)});
            },
            py::arg("rows"))
        .def("run", &chain_run<T>, py::arg("weights"), py::arg("inverse"), py::arg("given"), py::arg("context"),
             py::arg("frames"), py::arg("state"))
        .def("run_link", &chain_run_link<T>, py::arg("weights"), py::arg("link"), py::arg("inverse"), py::arg("given"),
             py::arg("state"))
        .def("outputs", &chain_outputs<T>, py::arg("weights"), py::arg("given"), py::arg("context"), py::arg("frames"),
             py::arg("state"), py::arg("sizes"))
        .def("log_base", &chain_log_base<T>, py::arg("weights"), py::arg("z"))
        .def("noise", &chain_noise<T>, py::arg("weights"), py::arg("seed"), py::arg("first"), py::arg("rows"),
             py::arg("begin"), py::arg("end"));
    bind_ragged_of<T>(bound);
}

template <class T>
void bind_chain_state_of(py::module_& m, const char* name) {
    using Held = HeldChainState<T>;
    py::class_<Held, std::shared_ptr<Held>>(m, name)
        .def_property_readonly("rows", [](const Held& s) { return s.state->rows; })
        .def_property_readonly("position", [](const Held& s) { return s.state->position; })
        .def_property_readonly("numbers",  // number of values of a row's state in each link
                               [](const Held& s) {
                                   std::vector<int64_t> all;
                                   all.reserve(s.state->links.size());
                                   for (size_t i = 0; i < s.state->links.size(); ++i)
                                       all.push_back(s.state->numbers(i));
                                   return all;
                               })
        .def(
            "go_on", [](Held& s, int64_t steps) { s.state->position += steps; }, py::arg("steps"))
        .def(
            "to_array",
            [](Held& s, size_t link) {
                const StateInUse in_use(&s);
                require(link < s.state->links.size(), "link: expected the index of one");
                Array<T> out({s.state->rows, s.state->numbers(link)});
                s.state->store(link, out.mutable_data());
                return out;
            },
            py::arg("link"))
        .def(
            "set_array",
            [](Held& s, size_t link, const py::object& numbers, int64_t position) {
                const StateInUse in_use(&s);
                require(link < s.state->links.size() && position >= 0, "link, position: expected indices");
                s.state->load(link,
                              host_numbers<const T>(numbers, {s.state->rows, s.state->numbers(link)},
                                                    "numbers: expected a contiguous (rows, numbers)"),
                              position);
            },
            py::arg("link"), py::arg("numbers"), py::arg("position"));
}

// ---- streams

// Whether a push can take steps without conversion: a NumPy array of the right shape whose values the dtype holds.
// `view` and `steps` are set where the function returns true.
template <class T>
bool opens_steps(const py::object& x, const ChainStream<T>& stream, SequenceView& view, int64_t& steps) {
    if (Py_TYPE(x.ptr()) != py::detail::npy_api::get().PyArray_Type_) return false;  // a subclass may have a mask
    const bool is_double = py::isinstance<py::array_t<double>>(x);
    if (!is_double && !py::isinstance<py::array_t<float>>(x)) return false;
    const auto a = py::reinterpret_borrow<py::array>(x);
    const int64_t features = stream.chain().features();
    if (a.ndim() != 3 || a.shape(0) != stream.rows() || a.shape(1) < 1 || a.shape(2) != features) return false;
    steps = a.shape(1);
    view = {static_cast<const char*>(a.data()), a.strides(0), a.strides(1), a.strides(2), is_double};
    const auto all_held = [&](auto number) {
        for (int64_t r = 0; r < stream.rows(); ++r)
            for (int64_t t = 0; t < steps; ++t)
                for (int64_t c = 0; c < features; ++c) {
                    std::memcpy(&number,
                                view.data + r * view.row_stride + t * view.step_stride + c * view.column_stride,
                                sizeof number);
                    if (!holds<T>(double(number))) return false;
                }
        return true;
    };
    return is_double ? all_held(0.0) : all_held(0.0f);
}

// Whether frames of covariates are known for `steps` further steps.
template <class T>
bool has_frames_for(const ChainStream<T>& stream, int64_t steps) {
    const int64_t hop = stream.chain().hop();
    return stream.chain().covariates() == 0 || stream.n_frames() >= (stream.position() + steps + hop - 1) / hop;
}

// Pushes steps, and returns log densities, or (log densities, latent steps), or None for arguments that Python code
// must convert or refuse.
template <class T>
py::object pushed(HeldChainStream<T>& own, const py::object& x, const py::object& latent) {
    const StateInUse in_use(own.held.get());
    SequenceView view;
    int64_t steps = 0;
    if (!opens_steps(x, own.stream, view, steps) || !has_frames_for(own.stream, steps)) return py::none();
    const py::ssize_t rows = own.stream.rows();
    Array<T> log_prob({rows, py::ssize_t(steps)});
    T* const to = log_prob.mutable_data();
    const int has_latent = PyObject_IsTrue(latent.ptr());
    if (has_latent < 0) throw py::error_already_set();
    if (has_latent == 0) {
        without_gil([&] { own.stream.push(view, steps, to, nullptr); });
        return log_prob;
    }
    Array<T> z({rows, py::ssize_t(steps), py::ssize_t(own.stream.chain().features())});
    T* const to_latent = z.mutable_data();
    without_gil([&] { own.stream.push(view, steps, to, to_latent); });
    return py::make_tuple(std::move(log_prob), std::move(z));
}

// Draws the next steps, or returns None for arguments that Python code must convert or refuse.
template <class T>
py::object pulled(HeldChainStream<T>& own, const py::object& steps_given, const py::object& seed_given, int64_t first) {
    if (!PyLong_CheckExact(steps_given.ptr()) || !PyLong_CheckExact(seed_given.ptr())) return py::none();
    const long long steps = PyLong_AsLongLong(steps_given.ptr());
    const unsigned long long seed = PyLong_AsUnsignedLongLong(seed_given.ptr());
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return py::none();
    }
    const StateInUse in_use(own.held.get());
    if (steps < 1 || steps > most_drawn_steps - own.stream.position() || !has_frames_for(own.stream, steps))
        return py::none();
    Array<T> x({py::ssize_t(own.stream.rows()), py::ssize_t(steps), py::ssize_t(own.stream.chain().features())});
    require(first >= 0 && first < most_samples - own.stream.rows(), "first: expected fewer than 2^31 samples");
    T* const to = x.mutable_data();
    without_gil([&] { own.stream.pull(seed, steps, to, first); });
    return x;
}

template <class T>
void bind_chain_stream_of(py::module_& m, const char* name) {
    using Own = HeldChainStream<T>;
    py::class_<Own>(m, name)
        .def(py::init([](const std::shared_ptr<SequenceChain<T>>& chain, const HeldChainWeights<T>& weights,
                         const std::shared_ptr<HeldChainState<T>>& state, const py::object& context) {
                 require(chain && state && state->chain == chain && chain->has_density(),
                         "state: expected one of this chain, and a base");
                 require(context.is_none() == (chain->context() == 0), "context: expected where networks read one");
                 weights.of(*chain);
                 std::vector<T> own;
                 if (!context.is_none()) {
                     const T* const from = host_numbers<const T>(context, {state->state->rows, chain->context()},
                                                                 "context: expected a contiguous (rows, columns)");
                     own.assign(from, from + state->state->rows * chain->context());
                 }
                 return std::make_unique<Own>(
                     Own{state, ChainStream<T>(chain, weights.weights, state->state, std::move(own))});
             }),
             py::arg("chain"), py::arg("weights"), py::arg("state"), py::arg("context"))
        .def(
            "set_frames",
            [](Own& own, const Array<T>& frames) {
                const StateInUse in_use(own.held.get());
                require(frames.ndim() == 3 && frames.shape(0) == own.stream.rows() &&
                            frames.shape(2) == own.stream.chain().covariates(),
                        "frames: expected (rows, frames, columns)");
                own.stream.set_frames({frames.data(), frames.data() + frames.size()}, 0, frames.shape(1));
            },
            py::arg("frames"))
        .def("push", &pushed<T>, py::arg("x"), py::arg("latent"))
        .def("pull", &pulled<T>, py::arg("steps"), py::arg("seed"), py::arg("first"))
        .def(
            "copies",
            [](Own& own, int64_t n) {
                const StateInUse in_use(own.held.get());
                require(n > 0, "n: expected at least 1");
                ChainStream<T> stream = own.stream.copies(n);
                std::shared_ptr<HeldChainState<T>> held(new HeldChainState<T>{own.held->chain, stream.shared_state()});
                return std::make_unique<Own>(Own{std::move(held), std::move(stream)});
            },
            py::arg("n"))
        .def_property_readonly("state", [](const Own& own) { return own.held; });
}

}  // namespace

void bind_chains(py::module_& m) {
    bind_sequences_given(m);
    m.def(
        "step_up",
        [](const Array<double>& reflections) {
            require(reflections.ndim() == 2 && reflections.size() > 0, "reflections: expected (columns, order)");
            const std::vector<double> k(reflections.data(), reflections.data() + reflections.size());
            return Array<double>({reflections.shape(0), reflections.shape(1)},
                                 stepped_up(k, reflections.shape(0)).data());
        },
        py::arg("reflections"));
    bind_chain_of<float>(m, "SequenceChainF32", "ChainWeightsF32");
    bind_chain_of<double>(m, "SequenceChainF64", "ChainWeightsF64");
    bind_chain_state_of<float>(m, "ChainStateF32");
    bind_chain_state_of<double>(m, "ChainStateF64");
    bind_chain_stream_of<float>(m, "ChainStreamF32");
    bind_chain_stream_of<double>(m, "ChainStreamF64");
}

}  // namespace headrace
