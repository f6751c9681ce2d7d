// Causal networks, transforms of sequences by causal networks, and states of streams for Python.
#include <atomic>
#include <optional>
#include <utility>

#include "../core/sequences/gradient.hpp"
#include "../core/sequences/prediction.hpp"
#include "../core/sequences/transform.hpp"
#include "bindings.hpp"
#include "initialised.hpp"
#include "state_in_use.hpp"
#include "tensors.hpp"

HR_REFUSE_UNINITIALISED(headrace::CausalConvolution);
HR_REFUSE_UNINITIALISED(headrace::CausalTransform<float>);
HR_REFUSE_UNINITIALISED(headrace::CausalTransform<double>);

namespace headrace {

// The state of streams, with a flag that is set while a call uses the state.
template <class T>
struct HeldStreams {
    std::shared_ptr<const CausalConvolution> network;
    CausalStreams<T> streams;
    std::atomic<bool> is_in_use{false};
    bool is_broken = false;  // whether a call ended before all steps were computed
};

}  // namespace headrace

HR_REFUSE_UNINITIALISED(headrace::HeldStreams<float>);
HR_REFUSE_UNINITIALISED(headrace::HeldStreams<double>);

namespace headrace {
namespace {

// Makes arrays that are aligned to a cache line, unlike NumPy's.
struct AlignedArray {
    template <class T>
    static Array<T> of(size_t n) {
        Aligned<T> memory = aligned_zeros<T>(n);
        T* const numbers = memory.release();
        return Array<T>(py::ssize_t(n), numbers, py::capsule(numbers, [](void* p) { free_aligned(p); }));
    }
};

template <class T>
std::shared_ptr<HeldStreams<T>> held(const CausalTransform<T>& transform, CausalStreams<T> streams) {
    return std::shared_ptr<HeldStreams<T>>(new HeldStreams<T>{transform.network_of(), std::move(streams)});
}

SequenceView open_sequences(const py::object& given, int64_t& rows, int64_t& steps, int64_t inputs) {
    const char* const message = "given: expected an array (rows, steps, values) of float32 or float64";
    const OpenedArray opened = open_host_array(given, message);
    require(opened.axes == 3, message);
    const auto a = py::reinterpret_borrow<py::array>(given);
    require(a.shape(2) == inputs, message);
    rows = a.shape(0);
    steps = a.shape(1);
    return {opened.view.data, a.strides(0), a.strides(1), a.strides(2), opened.view.is_double};
}

// Opens contiguous rows, or one row for all.
template <class T>
const T* open_rows(const py::object& given, int64_t rows, int columns, bool& one_row) {
    const char* const message = "context: expected a contiguous (rows, columns) or (1, columns) of the dtype";
    require(py::isinstance<Array<T>>(given) && py::reinterpret_borrow<Array<T>>(given).ndim() == 2, message);
    one_row = py::reinterpret_borrow<Array<T>>(given).shape(0) == 1;
    return host_numbers<const T>(given, {one_row ? 1 : rows, columns}, message);
}

template <class T>
void open_covariates(SequenceCall<T>& call, const py::object& given, const CausalNetwork& n, int64_t first_frame) {
    const char* const message = "covariates: expected a contiguous (rows, frames, columns) or (1, frames, columns)";
    require(py::isinstance<Array<T>>(given), message);
    const auto a = py::reinterpret_borrow<Array<T>>(given);
    require(a.ndim() == 3, message);
    call.one_covariate_row = a.shape(0) == 1;
    call.frames = a.shape(1);
    call.first_frame = first_frame;
    call.covariates =
        host_numbers<const T>(given, {call.one_covariate_row ? 1 : call.rows, call.frames, n.covariates}, message);
    const int64_t position = call.state ? call.state->position() : 0;
    require(call.steps == 0 || (first_frame >= 0 && first_frame <= position / n.hop &&
                                first_frame + call.frames > (position + call.steps - 1) / n.hop),
            "covariates: expected a frame for every hop of the steps");
}

template <class T>
SequenceCall<T> open_call(const CausalTransform<T>& transform, const py::object& weights, const py::object& given) {
    SequenceCall<T> call{};
    const char* const message = "weights: the vector has the wrong size or dtype";
    const int64_t n = transform.network().n_weights(), n_rounded = n + transform.network().n_pairs();
    require(py::isinstance<Array<T>>(weights), message);
    const bool has_pairs = std::is_same_v<T, float> && py::reinterpret_borrow<Array<T>>(weights).size() == n_rounded;
    call.weights = host_numbers<const T>(weights, {has_pairs ? n_rounded : n}, message);
    if (has_pairs) call.pairs = reinterpret_cast<const uint32_t*>(call.weights + n);
    call.given = open_sequences(given, call.rows, call.steps, transform.network().network().values);
    return call;
}

template <class T>
void open_side(SequenceCall<T>& call, const CausalNetwork& n, const py::object& context, const py::object& covariates,
               int64_t first_frame) {
    require(context.is_none() == (n.context == 0), "context: expected one where the network reads it, and only there");
    if (n.context > 0) call.context = open_rows<T>(context, call.rows, n.context, call.one_context_row);
    require(covariates.is_none() == (n.covariates == 0),
            "covariates: expected them where the network reads them, and only there");
    if (n.covariates > 0) open_covariates(call, covariates, n, first_frame);
}

// Opens a contiguous array for a result; null for None.
template <class T>
T* wanted(const py::object& array, std::initializer_list<int64_t> shape, const char* message) {
    return array.is_none() ? nullptr : host_numbers<T>(array, shape, message);
}

template <class T>
void open_results(SequenceCall<T>& call, const CausalNetwork& n, const py::object& value, const py::object& log_det,
                  const py::object& raw) {
    call.value =
        wanted<T>(value, {call.rows, call.steps, n.values}, "value: expected a contiguous (rows, steps, values)");
    call.log_det = wanted<T>(log_det, {call.rows, call.steps}, "log_det: expected a contiguous (rows, steps)");
    call.raw = wanted<T>(raw, {call.rows, call.steps, n.outputs}, "raw: expected a contiguous (rows, steps, outputs)");
}

enum class Way : int { outputs, parallel, sequential };

template <class T>
void run(const CausalTransform<T>& transform, Way way, const py::object& weights, const py::object& given,
         const py::object& value, const py::object& log_det, const py::object& raw, const py::object& context,
         const py::object& covariates, int64_t first_frame, HeldStreams<T>* state, const py::object& inner) {
    const CausalNetwork& n = transform.network().network();
    SequenceCall<T> call = open_call(transform, weights, given);
    const StateInUse in_use(state);
    if (state) {
        const CausalOptions &own = transform.network().options(), &of = state->network->options();
        require(own.inputs == of.inputs && own.is_companded == of.is_companded && own.channels == of.channels &&
                    own.kernel == of.kernel && own.dilations == of.dilations,
                "state: expected one of this network");
        require(state->streams.rows() == call.rows, "state: expected one of as many rows as are given");
        call.state = &state->streams;
    }
    open_side(call, n, context, covariates, first_frame);
    open_results(call, n, value, log_det, raw);
    require(way == Way::outputs || transform.map() || transform.inner(), "expected a transform with a map or a flow");
    if (const Program<T>* program = transform.inner())  // under the GIL, because os.fork waits for the GIL
        call.inner = inner.is_none()
                         ? program->snapshot()
                         : program->weights_of(host_numbers<const T>(inner, {int64_t(program->n_weights())},
                                                                     "inner_weights: the vector has the wrong size"));
    if (state) state->is_broken = true;
    without_gil([&] { way == Way::sequential ? transform.sequential(call) : transform.parallel(call); });
    if (state) state->is_broken = false;
}

// Opens a gradient (rows, steps, columns), or (rows, steps) of one column; None for zero.
SequenceView open_cotangent(const py::object& given, int64_t rows, int64_t steps, int64_t columns,
                            const char* message) {
    if (given.is_none()) return {};
    const OpenedArray opened = open_host_array(given, message);
    const auto a = py::reinterpret_borrow<py::array>(given);
    const bool has_columns = opened.axes == 3;
    require((has_columns || (opened.axes == 2 && columns == 1)) && a.shape(0) == rows && a.shape(1) == steps &&
                (!has_columns || a.shape(2) == columns),
            message);
    return {opened.view.data, a.strides(0), a.strides(1), has_columns ? a.strides(2) : 0, opened.view.is_double};
}

// Computes results and gradients of the direction that computes all steps at once, from the first step on. With
// is_sequential, vjp computes only gradients, of the sequential direction, whose results are `given`.
template <class T>
void vjp(const CausalTransform<T>& transform, const py::object& weights, const py::object& given,
         const py::object& grad_value, const py::object& grad_log_det, const py::object& grad_raw,
         const py::object& grad_log_prob, const std::string& base, const py::object& value, const py::object& log_det,
         const py::object& raw, const py::object& grad_given, const py::object& grad_weights,
         const py::object& grad_context, const py::object& grad_covariates, const py::object& context,
         const py::object& covariates, bool is_sequential, const py::object& slopes) {
    const CausalNetwork& n = transform.network().network();
    SequenceCall<T> call = open_call(transform, weights, given);
    open_side(call, n, context, covariates, 0);
    open_results(call, n, value, log_det, raw);
    SequenceGradient<T> gradient{};
    const auto cotangent = [&](const py::object& array, int columns, const char* message) {
        return open_cotangent(array, call.rows, call.steps, columns, message);
    };
    gradient.value = cotangent(grad_value, n.values, "grad_value: expected (rows, steps, values)");
    gradient.log_det = cotangent(grad_log_det, 1, "grad_log_det: expected (rows, steps)");
    gradient.raw = cotangent(grad_raw, n.outputs, "grad_raw: expected (rows, steps, outputs)");
    gradient.log_prob = cotangent(grad_log_prob, 1, "grad_log_prob: expected (rows, steps)");
    require(base.empty() || base == "normal" || base == "logistic", "base: expected 'normal' or 'logistic'");
    require(base.empty() == !gradient.log_prob.data, "base: expected one beside grad_log_prob, and only there");
    if (!base.empty()) gradient.base = base == "normal" ? Base::normal : Base::logistic;
    gradient.is_sequential = is_sequential;
    gradient.slopes = cotangent(slopes, n.values * n.outputs, "slopes: expected (rows, steps, values * outputs)");
    require((gradient.slopes.data != nullptr) == (is_sequential && !transform.map()),
            "slopes: expected them in the sequential direction of a transform without a map, and only there");
    require(!is_sequential || (!gradient.log_prob.data && !call.value && !call.log_det && !call.raw),
            "is_sequential: expected no results beside the given ones, and no log densities");
    require(transform.map() || (!gradient.log_det.data && !gradient.log_prob.data && !call.value && !call.log_det &&
                                (is_sequential || !gradient.value.data)),
            "grad_raw: expected no other gradient of a transform without a map");
    require(!is_sequential || !transform.map() || !gradient.raw.data,
            "grad_raw: expected none in the sequential direction of a transform with a map");
    gradient.given = wanted<T>(grad_given, {call.rows, call.steps, n.values},
                               "grad_given: expected a contiguous (rows, steps, values)");
    gradient.weights = wanted<T>(grad_weights, {int64_t(transform.network().n_weights())},
                                 "grad_weights: expected a contiguous vector");
    require(grad_context.is_none() || n.context > 0, "grad_context: there is no context");
    gradient.context =
        wanted<T>(grad_context, {call.rows, n.context}, "grad_context: expected a contiguous (rows, context)");
    require(grad_covariates.is_none() || n.covariates > 0, "grad_covariates: there are no covariates");
    gradient.covariates = wanted<T>(grad_covariates, {call.rows, call.frames, n.covariates},
                                    "grad_covariates: expected a contiguous (rows, frames, covariates)");
    without_gil([&] { sequence_vjp(transform, call, gradient); });
}

template <class T>
void bind_streams_of(py::module_& m, const char* name) {
    using Held = HeldStreams<T>;
    py::class_<Held, std::shared_ptr<Held>>(m, name)
        .def_property_readonly("rows", [](const Held& s) { return s.streams.rows(); })
        .def_property_readonly("position", [](const Held& s) { return s.streams.position(); })
        .def_property_readonly("numbers", [](const Held& s) { return s.streams.numbers(); })
        .def(
            "rows_of",
            [](Held& s, const std::vector<int64_t>& rows) {
                const StateInUse in_use(&s);
                require(std::all_of(rows.begin(), rows.end(),
                                    [&](int64_t row) { return row >= 0 && row < s.streams.rows(); }),
                        "rows: expected rows of the state");
                return std::shared_ptr<Held>(new Held{s.network, s.streams.rows_of(rows)});
            },
            py::arg("rows"))
        .def("to_array",
             [](Held& s) {
                 const StateInUse in_use(&s);
                 Array<T> out({s.streams.rows(), s.streams.numbers()});
                 s.streams.store(out.mutable_data());
                 return out;
             })
        .def(
            "set_array",
            [](Held& s, const py::object& numbers, int64_t position) {
                const T* const from = host_numbers<const T>(numbers, {s.streams.rows(), s.streams.numbers()},
                                                            "numbers: expected a contiguous (rows, numbers)");
                require(position >= 0, "position: expected at least 0");
                const StateInUse in_use(&s);
                s.streams.load(from, position);
            },
            py::arg("numbers"), py::arg("position"));
}

template <class T>
void bind_transform_of(py::module_& m, const char* name) {
    using C = CausalTransform<T>;
    py::class_<C, std::shared_ptr<C>> transform(m, name);
    transform
        .def(
            py::init([](std::shared_ptr<const CausalConvolution> network, bool reads_data, const std::string& map,
                        const std::string& variant, double slope, int bins, double bound, std::optional<double> low,
                        double min_bin, bool formula_to_data, std::shared_ptr<const Program<T>> inner, bool has_level) {
                require(network != nullptr, "network: expected a causal network");
                require(slope > 0 && slope < 1, "slope: expected a number between 0 and 1");
                std::shared_ptr<const TransformMap> own;
                if (!map.empty())
                    own = std::make_shared<TransformMap>(
                        MapSettings{map, variant, slope, bins, bound, min_bin, low, formula_to_data});
                return std::make_shared<C>(std::move(network), std::move(own), std::move(inner), reads_data, has_level);
            }),
            py::arg("network"), py::arg("reads_data"), py::kw_only(), py::arg("map") = "", py::arg("variant") = "",
            py::arg("slope") = 1e-3, py::arg("bins") = 8, py::arg("bound") = 5.0, py::arg("low") = py::none(),
            py::arg("min_bin") = 1e-3, py::arg("formula_to_data") = true, py::arg("inner") = py::none(),
            py::arg("has_level") = false)
        .def(
            "streams",
            [](const C& t, int64_t rows) {
                require(rows >= 0, "rows: expected at least 0");
                return held(t, t.streams(rows));
            },
            py::arg("rows"));
    transform.def(
        "outputs",
        [](const C& t, const py::object& weights, const py::object& given, const py::object& raw,
           const py::object& context, const py::object& covariates, int64_t first_frame, HeldStreams<T>* state) {
            run(t, Way::outputs, weights, given, py::none(), py::none(), raw, context, covariates, first_frame, state,
                py::none());
        },
        py::arg("weights"), py::arg("given"), py::arg("raw"), py::arg("context") = py::none(),
        py::arg("covariates") = py::none(), py::arg("first_frame") = 0, py::arg("state") = py::none());
    transform.def(
        "vjp", &vjp<T>, py::arg("weights"), py::arg("given"), py::kw_only(), py::arg("grad_value") = py::none(),
        py::arg("grad_log_det") = py::none(), py::arg("grad_raw") = py::none(), py::arg("grad_log_prob") = py::none(),
        py::arg("base") = "", py::arg("value") = py::none(), py::arg("log_det") = py::none(),
        py::arg("raw") = py::none(), py::arg("grad_given") = py::none(), py::arg("grad_weights") = py::none(),
        py::arg("grad_context") = py::none(), py::arg("grad_covariates") = py::none(), py::arg("context") = py::none(),
        py::arg("covariates") = py::none(), py::arg("is_sequential") = false, py::arg("slopes") = py::none());
    for (const auto& [verb, way] : {std::pair{"parallel", Way::parallel}, std::pair{"sequential", Way::sequential}})
        transform.def(
            verb,
            [way = way](const C& t, const py::object& weights, const py::object& given, const py::object& value,
                        const py::object& log_det, const py::object& raw, const py::object& context,
                        const py::object& covariates, int64_t first_frame, HeldStreams<T>* state,
                        const py::object& inner_weights) {
                run(t, way, weights, given, value, log_det, raw, context, covariates, first_frame, state,
                    inner_weights);
            },
            py::arg("weights"), py::arg("given"), py::arg("value") = py::none(), py::arg("log_det") = py::none(),
            py::arg("raw") = py::none(), py::arg("context") = py::none(), py::arg("covariates") = py::none(),
            py::arg("first_frame") = 0, py::arg("state") = py::none(), py::arg("inner_weights") = py::none());
}

// Binds linear prediction: residuals of x, or x from residuals, after earlier steps of x.
template <class T>
void bind_prediction_of(py::module_& m, const char* name) {
    m.def(
        name,
        [](const py::object& coefficients, const py::object& given, const py::object& result, const py::object& past,
           bool to_signal) {
            const char* const message = "given: expected a contiguous (rows, steps, columns) of the dtype";
            require(py::isinstance<Array<T>>(given) && py::isinstance<Array<T>>(coefficients), message);
            const auto a = py::reinterpret_borrow<Array<T>>(given);
            const auto of = py::reinterpret_borrow<Array<T>>(coefficients);
            require(a.ndim() == 3 && of.ndim() == 2, message);
            PredictionCall<T> call{};
            call.rows = a.shape(0);
            call.steps = a.shape(1);
            call.columns = a.shape(2);
            call.order = of.shape(1);
            call.given = host_numbers<const T>(given, {call.rows, call.steps, call.columns}, message);
            call.result = host_numbers<T>(result, {call.rows, call.steps, call.columns},
                                          "result: expected a contiguous (rows, steps, columns) of the dtype");
            call.coefficients =
                host_numbers<const T>(coefficients, {call.columns, call.order},
                                      "coefficients: expected a contiguous (columns, order) of the dtype");
            if (!past.is_none())
                call.past = host_numbers<const T>(past, {call.rows, call.order, call.columns},
                                                  "past: expected a contiguous (rows, order, columns) of the dtype");
            without_gil([&] { to_signal ? signals_of(call) : residuals_of(call); });
        },
        py::arg("coefficients"), py::arg("given"), py::arg("result"), py::arg("past") = py::none(),
        py::arg("to_signal") = false);
}

}  // namespace

void bind_sequences(py::module_& m) {
    bind_prediction_of<float>(m, "predict_f32");
    bind_prediction_of<double>(m, "predict_f64");
    py::class_<CausalConvolution, std::shared_ptr<CausalConvolution>> network(m, "CausalConvolution");
    network
        .def(py::init([](int inputs, int channels, int skip, int kernel, std::vector<int> dilations, int outputs,
                         int context, int covariates, int hop, bool is_companded) {
                 return std::make_shared<CausalConvolution>(CausalOptions{inputs, is_companded, channels, skip, kernel,
                                                                          std::move(dilations), outputs, context,
                                                                          covariates, hop});
             }),
             py::kw_only(), py::arg("inputs"), py::arg("channels"), py::arg("skip"), py::arg("kernel"),
             py::arg("dilations"), py::arg("outputs"), py::arg("context") = 0, py::arg("covariates") = 0,
             py::arg("hop") = 1, py::arg("is_companded") = false)
        .def_property_readonly("field", &CausalConvolution::field)
        .def_property_readonly("n_pairs", &CausalConvolution::n_pairs)
        .def(
            "round",
            [](const CausalConvolution& c, const py::object& weights, const py::object& to) {
                const float* const from = host_numbers<const float>(weights, {int64_t(c.n_weights())},
                                                                    "weights: expected a contiguous float32 vector");
                c.round(from, host_numbers<float>(to, {int64_t(c.n_weights()) + c.n_pairs()},
                                                  "to: expected a contiguous float32 vector, with room for pairs"));
            },
            py::arg("weights"), py::arg("to"))
        .def("parts", [](const CausalConvolution& c) {
            std::vector<std::tuple<int64_t, int64_t, bool>> parts;
            for (const WeightRange& part : c.parts()) parts.emplace_back(part.begin, part.end, part.is_bias);
            return parts;
        });
    bind_tensors<AlignedArray>(network, [](const CausalConvolution& c) -> const WeightLayout& { return c; });
    bind_streams_of<float>(m, "CausalStreamsF32");
    bind_streams_of<double>(m, "CausalStreamsF64");
    bind_transform_of<float>(m, "CausalTransformF32");
    bind_transform_of<double>(m, "CausalTransformF64");
}

}  // namespace headrace
