// Transforms of sequences on a device for Python.
#include "../host/sequences.hpp"

#include "../../cpp/bindings/initialised.hpp"
#include "bindings.hpp"

HR_REFUSE_UNINITIALISED(headrace::DeviceCausalTransform<float>);
HR_REFUSE_UNINITIALISED(headrace::DeviceCausalTransform<double>);

namespace headrace {
namespace {

SequenceView open_sequences(const py::object& given, int64_t& rows, int64_t& steps, int64_t values) {
    const char* const message = "given: expected an array (rows, steps, values) of float32 or float64";
    const DeviceArray a(given);
    require(a.is_float() && a.shape.size() == 3 && a.shape[2] == values, message);
    a.require_alignment();
    rows = a.shape[0];
    steps = a.shape[1];
    return {a.data, a.strides[0], a.strides[1], a.strides[2], a.is<double>()};
}

template <class T>
const T* open_context(const py::object& given, int64_t rows, int64_t columns, bool& one_row) {
    const char* const message = "context: expected a contiguous (rows, columns) or (1, columns) of the dtype";
    require(given.is_none() == (columns == 0), "context: expected one where the network reads it, and only there");
    if (columns == 0) return nullptr;
    const DeviceArray a(given);
    one_row = !a.shape.empty() && a.shape[0] == 1;
    require(a.has_shape({one_row ? 1 : rows, columns}), message);
    return a.contiguous<T>(message);
}

template <class T>
const T* open_covariates(const py::object& given, SequencesOnDevice<T>& call, const CausalNetwork& n) {
    const char* const message = "covariates: expected a contiguous (rows, frames, columns) or (1, frames, columns)";
    require(given.is_none() == (n.covariates == 0),
            "covariates: expected them where the network reads them, and only there");
    if (n.covariates == 0) return nullptr;
    const DeviceArray a(given);
    require(a.shape.size() == 3, message);
    call.one_covariate_row = a.shape[0] == 1;
    call.frames = a.shape[1];
    require(a.has_shape({call.one_covariate_row ? 1 : call.rows, call.frames, n.covariates}), message);
    require(call.steps == 0 || call.frames > (call.steps - 1) / n.hop,
            "covariates: expected a frame for every hop of the steps");
    return a.contiguous<T>(message);
}

template <class T>
auto verb_of(void (DeviceCausalTransform<T>::*verb)(const SequencesOnDevice<T>&, cudaStream_t)) {
    return [verb](DeviceCausalTransform<T>& t, const py::object& weights, const py::object& given,
                  const py::object& value, const py::object& log_det, const py::object& raw, const py::object& context,
                  const py::object& covariates, uintptr_t stream) {
        const CausalNetwork& n = t.network().network();
        SequencesOnDevice<T> call{};
        call.weights =
            numbers<T>(weights, {int64_t(t.network().n_weights())}, "weights: the vector has the wrong size or dtype");
        call.given = open_sequences(given, call.rows, call.steps, n.values);
        call.context = open_context<T>(context, call.rows, n.context, call.one_context_row);
        call.covariates = open_covariates<T>(covariates, call, n);
        call.value =
            output<T>(value, {call.rows, call.steps, n.values}, "value: expected a contiguous (rows, steps, values)");
        call.log_det = output<T>(log_det, {call.rows, call.steps}, "log_det: expected a contiguous (rows, steps)");
        call.raw =
            output<T>(raw, {call.rows, call.steps, n.outputs}, "raw: expected a contiguous (rows, steps, outputs)");
        const py::gil_scoped_release nogil;
        (t.*verb)(call, stream_at(stream));
    };
}

template <class T>
void bind_transform_of(py::module_& m, const char* name) {
    using C = DeviceCausalTransform<T>;
    py::class_<C, std::shared_ptr<C>> transform(m, name, py::module_local());
    transform
        .def(py::init([](int inputs, int channels, int skip, int kernel, std::vector<int> dilations, int outputs,
                         int context, int covariates, int hop, bool is_companded, bool reads_data,
                         const std::string& map, const std::string& variant, double slope, int bins, double bound,
                         std::optional<double> low, double min_bin, bool has_level, int device) {
                 return std::make_shared<C>(CausalOptions{inputs, is_companded, channels, skip, kernel,
                                                          std::move(dilations), outputs, context, covariates, hop},
                                            MapSettings{map, variant, slope, bins, bound, min_bin, low, true},
                                            reads_data, has_level, device);
             }),
             py::kw_only(), py::arg("inputs"), py::arg("channels"), py::arg("skip"), py::arg("kernel"),
             py::arg("dilations"), py::arg("outputs"), py::arg("context"), py::arg("covariates"), py::arg("hop"),
             py::arg("is_companded"), py::arg("reads_data"), py::arg("map"), py::arg("variant"), py::arg("slope"),
             py::arg("bins"), py::arg("bound"), py::arg("low"), py::arg("min_bin"), py::arg("has_level"),
             py::arg("device"))
        .def_property_readonly("n_weights", [](const C& c) { return c.network().n_weights(); })
        .def_property_readonly("device", &C::device);
    for (const auto& [verb, function] :
         {std::pair{"parallel", verb_of<T>(&C::parallel)}, std::pair{"sequential", verb_of<T>(&C::sequential)}})
        transform.def(verb, function, py::arg("weights"), py::arg("given"), py::arg("value") = py::none(),
                      py::arg("log_det") = py::none(), py::arg("raw") = py::none(), py::arg("context") = py::none(),
                      py::arg("covariates") = py::none(), py::arg("stream"));
}

// Calls f.operator()<T>() for the dtype of an array.
template <class F>
void by_dtype(const DeviceArray& array, const char* message, const F& f) {
    require(array.is_float(), message);
    if (array.is<float>()) {
        f.template operator()<float>();
    } else {
        f.template operator()<double>();
    }
}

void predict_of(const py::object& theta, const py::object& given, const py::object& result, const py::object& log_gain,
                bool to_signal, int device, uintptr_t stream) {
    const char* const message = "given: expected a contiguous (rows, steps, columns), all arrays of one dtype";
    const DeviceArray a(given), parameters(theta);
    require(a.shape.size() == 3 && parameters.shape.size() == 2 && parameters.shape[0] == a.shape[2] &&
                parameters.shape[1] >= 1,
            "theta: expected a contiguous (columns, order) beside given (rows, steps, columns)");
    by_dtype(a, message, [&]<class T>() {
        PredictionCallOnDevice<T> call{};
        call.rows = a.shape[0];
        call.steps = a.shape[1];
        call.columns = a.shape[2];
        call.order = parameters.shape[1];
        call.theta = parameters.contiguous<T>(message);
        call.given = a.contiguous<T>(message);
        call.result = numbers<T>(result, {call.rows, call.steps, call.columns},
                                 "result: expected a contiguous (rows, steps, columns) of the dtype");
        call.log_gain = numbers<double>(log_gain, {call.columns}, "log_gain: expected (columns,) of float64");
        call.to_signal = to_signal;
        const py::gil_scoped_release nogil;
        predict_on(call, device, stream_at(stream));
    });
}

void sum_steps_of(const py::object& scores, const py::object& totals, int device, uintptr_t stream) {
    const char* const message = "scores: expected a contiguous (rows, steps)";
    const DeviceArray a(scores);
    require(a.shape.size() == 2, message);
    by_dtype(a, message, [&]<class T>() {
        const T* const given = a.contiguous<T>(message);
        T* const to = numbers<T>(totals, {a.shape[0]}, "totals: expected a contiguous (rows,) of the dtype");
        const py::gil_scoped_release nogil;
        const OnDevice on(device);
        sum_steps(given, a.shape[0], a.shape[1], to, stream_at(stream));
    });
}

}  // namespace

void bind_sequences(py::module_& m) {
    bind_transform_of<float>(m, "CausalTransformF32");
    bind_transform_of<double>(m, "CausalTransformF64");
    m.def("predict", &predict_of, py::arg("theta"), py::arg("given"), py::arg("result"), py::arg("log_gain"),
          py::arg("to_signal"), py::arg("device"), py::arg("stream"));
    m.def("sum_steps", &sum_steps_of, py::arg("scores"), py::arg("totals"), py::arg("device"), py::arg("stream"));
}

}  // namespace headrace
