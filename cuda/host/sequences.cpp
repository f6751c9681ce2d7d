#include "sequences.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace headrace {
namespace {

std::vector<CausalLayer> layers_of(const CausalNetwork& network) {
    return {network.layers, network.layers + network.n_layers};
}

// A view of a contiguous array [row][step][columns].
template <class T>
SequenceView view_of(const T* data, int64_t row, int64_t step) {
    constexpr int64_t size = sizeof(T);
    return {reinterpret_cast<const char*>(data), row * size, step * size, size, std::is_same_v<T, double>};
}

SequenceView from(SequenceView view, int64_t row, int64_t step) {
    view.data += row * view.row_stride + step * view.step_stride;
    return view;
}

// The first frame that steps [begin, end) read, the number of frames that they read, and the last of all frames.
struct Frames {
    int64_t first, count, last;
    Frames(const CausalNetwork& n, int64_t all, int64_t begin, int64_t end)
        : first(begin / n.hop), count(std::min(all, (end - 1) / n.hop + 2) - first), last(all - 1) {}
};

template <class T>
DeviceBuffer<T> numbers_of(int64_t n, cudaStream_t stream) {
    return DeviceBuffer<T>(size_t(n), stream);
}

}  // namespace

// Memory for values of layers at some positions of some rows, and for further arguments of a layer.
template <class T>
struct DeviceCausalTransform<T>::Room {
    DeviceBuffer<T> values, next, skip, hidden, raw, bias, frames, gated;
};

template <class T>
DeviceCausalTransform<T>::DeviceCausalTransform(CausalOptions options, const MapSettings& map, bool reads_data,
                                                bool has_level, int device)
    : network_(std::move(options)), map_(map), reads_data_(reads_data), has_level_(has_level), device_(device) {
    if (map_.is_vector() || !is_map_of_steps(map_.index()))
        throw std::invalid_argument(
            "map: expected one without a spline, because no other has kernels of sequences on "
            "a device, got " +
            map.name);
    const CausalOptions& o = network_.options();
    const int outputs = (map_.n_params(1) + (has_level_ ? 1 : 0)) * o.inputs;
    if (outputs != o.outputs)
        throw std::invalid_argument("outputs: expected " + std::to_string(outputs) +
                                    ", the parameters of the map for each value, got " + std::to_string(o.outputs));
    const OnDevice on(device_);
    layers_ = DeviceBuffer<CausalLayer>(layers_of(network_.network()), default_stream);
}

template <class T>
DeviceCausalTransform<T>::~DeviceCausalTransform() {
    try {
        const OnDevice on(device_);
        order_.wait_for_all(default_stream);  // memory is freed in the order of this stream
    } catch (const CudaError&) {              // a lost device has no memory to free
    }
}

template <class T>
CausalMap<T> DeviceCausalTransform<T>::map_for(bool in_parallel) const {
    const bool to_data = reads_data_ != in_parallel;
    return {map_.index(), map_.n_params(1), to_data != map_.settings().formula_to_data,
            to_data,      has_level_,       map_.template options<T>()};
}

// Computes the gate biases of a layer, plus the contribution of the context, for some rows.
template <class T>
void DeviceCausalTransform<T>::fold(const SequencesOnDevice<T>& call, int l, int64_t row, int64_t rows, T* to,
                                    int64_t to_row, cudaStream_t stream) const {
    const CausalNetwork& n = network_.network();
    const CausalLayer& layer = n.layers[l];
    CausalProducts<T> p{};
    p.weights = call.weights + layer.context;
    p.stride = p.units = gate_units(n);
    p.taps = 1;
    p.inputs = p.values = n.context;
    p.start = call.weights + layer.gate_bias;
    // The kernel's call has one row, whose positions are the rows of the context.
    p.x = view_of(call.context + (call.one_context_row ? 0 : row * n.context), 0, n.context);
    p.rows = 1;
    p.n = call.one_context_row ? 1 : rows;
    p.to = to;
    p.to_step = to_row;
    causal_products(p, stream);
}

template <class T>
void DeviceCausalTransform<T>::multiply_frames(const SequencesOnDevice<T>& call, int l, int64_t row, int64_t rows,
                                               int64_t first, int64_t frames, T* to, int64_t to_row, int64_t to_step,
                                               cudaStream_t stream) const {
    const CausalNetwork& n = network_.network();
    CausalProducts<T> p{};
    p.weights = call.weights + n.layers[l].covariates;
    p.stride = p.units = gate_units(n);
    p.taps = 1;
    p.inputs = p.values = n.covariates;
    p.x = from(view_of(call.covariates, call.frames * n.covariates, n.covariates), call.one_covariate_row ? 0 : row,
               first);
    p.rows = call.one_covariate_row ? 1 : rows;
    p.n = frames;
    p.to = to;
    p.to_row = to_row;
    p.to_step = to_step;
    causal_products(p, stream);
}

// Computes values of all layers at positions [start, start + n) of some rows, then outputs of the head in room.raw.
// Values of layers before `start` count as zero.
template <class T>
void DeviceCausalTransform<T>::layers(const SequencesOnDevice<T>& call, Room& room, int64_t row, int64_t rows,
                                      int64_t start, int64_t n, cudaStream_t stream) const {
    const CausalNetwork& net = network_.network();
    const int gates = gate_units(net);
    CausalProducts<T> p{};
    p.weights = call.weights + net.input;
    p.stride = p.units = net.channel_units;
    p.taps = net.kernel;
    p.inputs = net.inputs;
    p.values = net.values;
    p.start = call.weights + net.input_bias;
    p.x = from(call.given, row, 0);
    p.first = start - net.kernel;
    p.rows = rows;
    p.n = n;
    p.to = room.values.get();
    p.to_row = n * net.channel_units;
    p.to_step = net.channel_units;
    causal_products(p, stream);
    for (int l = 0; l < net.n_layers; ++l) {
        CausalLayerCall<T> c{};
        c.network = net;
        c.layer = net.layers[l];
        c.weights = call.weights;
        c.is_first = l == 0;
        c.rows = rows;
        c.n = n;
        c.bias = call.weights + c.layer.gate_bias;
        c.position = start;
        if (net.context > 0) {
            fold(call, l, row, rows, room.bias.get(), gates, stream);
            c.bias = room.bias.get();
            c.bias_row = call.one_context_row ? 0 : gates;
        }
        if (net.covariates > 0) {
            const Frames frames(net, call.frames, start, start + n);
            c.frames_row = call.one_covariate_row ? 0 : frames.count * gates;
            multiply_frames(call, l, row, rows, frames.first, frames.count, room.frames.get(), c.frames_row, gates,
                            stream);
            c.frames = room.frames.get();
            c.first_frame = frames.first;
            c.last_frame = frames.last;
        }
        c.values = room.values.get();
        c.next = room.next.get();
        c.skip = room.skip.get();
        c.room = room.gated.get();
        causal_layer(c, stream);
        room.values.swap(room.next);
    }
}

// Computes positions [begin, end) of some rows, after a warm-up, so that layers have the values of whole rows.
template <class T>
void DeviceCausalTransform<T>::part(const SequencesOnDevice<T>& call, Room& room, int64_t row, int64_t rows,
                                    int64_t begin, int64_t end, cudaStream_t stream) const {
    const CausalNetwork& net = network_.network();
    const int64_t start = std::max<int64_t>(0, begin - (begin > 0 ? network_.warm_up() : 0));
    const int64_t n = end - start, wanted = end - begin, skipped = begin - start;
    layers(call, room, row, rows, start, n, stream);
    CausalProducts<T> p{};
    p.weights = call.weights + net.head;
    p.stride = p.units = net.skip_units;
    p.taps = 1;
    p.inputs = p.values = net.skip;
    p.start = call.weights + net.head_bias;
    p.x = from(view_of(room.skip.get(), n * net.skip_units, net.skip_units), 0, skipped);
    p.relu_of_x = p.relu = true;
    p.rows = rows;
    p.n = wanted;
    p.to = room.hidden.get();
    p.to_row = wanted * net.skip_units;
    p.to_step = net.skip_units;
    causal_products(p, stream);
    T* const raw = call.raw ? call.raw + (row * call.steps + begin) * net.outputs : room.raw.get();
    const int64_t raw_row = (call.raw ? call.steps : wanted) * net.outputs;
    p.weights = call.weights + net.last;
    p.stride = net.output_units;
    p.units = net.outputs;
    p.start = call.weights + net.last_bias;
    p.x = view_of(room.hidden.get(), wanted * net.skip_units, net.skip_units);
    p.relu_of_x = p.relu = false;
    p.to = raw;
    p.to_row = raw_row;
    p.to_step = net.outputs;
    causal_products(p, stream);
    if (!call.value && !call.log_det) return;
    const int64_t at = row * call.steps + begin;
    causal_map(CausalMapCall<T>{map_for(true), net.values, rows, wanted, from(call.given, row, begin), raw, raw_row,
                                call.value ? call.value + at * net.values : nullptr,
                                call.log_det ? call.log_det + at : nullptr, call.steps},
               stream);
}

template <class T>
void DeviceCausalTransform<T>::parallel(const SequencesOnDevice<T>& call, cudaStream_t stream) {
    if (call.rows == 0 || call.steps == 0) return;
    const CausalNetwork& net = network_.network();
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    refuse_capture(stream);
    const int64_t gates = gate_units(net), raw = call.raw ? 0 : net.outputs;
    const int64_t of_frames = net.covariates > 0 ? (gates + net.hop - 1) / net.hop : 0;
    const int64_t each =
        (2 * net.channel_units + 2 * net.skip_units + raw + of_frames) * int64_t(sizeof(T));  // bytes of a position
    const int64_t warm_up = network_.warm_up(), most = std::max<int64_t>(1, causal_bytes / each);
    const int64_t length = std::max(most, least_warm_ups * warm_up);
    const int64_t parts = (call.steps + length - 1) / length;
    const int64_t rows_at_once = parts > 1 ? 1 : std::clamp<int64_t>(most / call.steps, 1, call.rows);
    const int64_t wanted = (call.steps + parts - 1) / parts;
    const int64_t n = std::min(call.steps, wanted + (parts > 1 ? warm_up : 0)), all = rows_at_once * n;
    Room room;
    room.values = numbers_of<T>(all * net.channel_units, stream);
    room.next = numbers_of<T>(all * net.channel_units, stream);
    room.skip = numbers_of<T>(all * net.skip_units, stream);
    room.hidden = numbers_of<T>(rows_at_once * wanted * net.skip_units, stream);
    if (!call.raw) room.raw = numbers_of<T>(rows_at_once * wanted * net.outputs, stream);
    if (net.context > 0) room.bias = numbers_of<T>(rows_at_once * gates, stream);
    if (net.covariates > 0) room.frames = numbers_of<T>(rows_at_once * ((n - 1) / net.hop + 3) * gates, stream);
    const int64_t gated = causal_layer_room(net);
    if (size_t(gated) * sizeof(T) > causal_shared_bytes)
        room.gated = numbers_of<T>(causal_layer_blocks(rows_at_once, n) * gated, stream);
    for (int64_t row = 0; row < call.rows; row += rows_at_once)
        for (int64_t begin = 0; begin < call.steps; begin += wanted)
            part(call, room, row, std::min(rows_at_once, call.rows - row), begin, std::min(begin + wanted, call.steps),
                 stream);
}

// Computes all steps of some rows, one after another.
template <class T>
void DeviceCausalTransform<T>::steps(const SequencesOnDevice<T>& call, int64_t row, int64_t rows,
                                     cudaStream_t stream) const {
    const CausalNetwork& net = network_.network();
    const int64_t gates = gate_units(net), of_layers = net.n_layers * gates;
    CausalStepsCall<T> c{};
    c.network = net;
    c.network.layers = layers_.get();
    c.weights = call.weights;
    c.map = map_for(false);
    c.rows = rows;
    c.steps = call.steps;
    c.given = from(call.given, row, 0);
    const int64_t at = row * call.steps;
    c.value = call.value ? call.value + at * net.values : nullptr;
    c.log_det = call.log_det ? call.log_det + at : nullptr;
    c.raw = call.raw ? call.raw + at * net.outputs : nullptr;
    const int64_t panels = (rows + panel_streams - 1) / panel_streams, lanes = panels * panel_streams;
    const DeviceBuffer<T> state = numbers_of<T>(lanes * net.state, stream);
    check_cuda(cudaMemsetAsync(state.get(), 0, state.size() * sizeof(T), stream), "state of streams");
    c.state = state.get();
    DeviceBuffer<T> bias, frames, room;
    if (net.context > 0) {
        bias = numbers_of<T>((call.one_context_row ? 1 : rows) * of_layers, stream);
        c.bias_row = call.one_context_row ? 0 : of_layers;
        for (int l = 0; l < net.n_layers; ++l) fold(call, l, row, rows, bias.get() + l * gates, of_layers, stream);
        c.bias = bias.get();
    }
    int64_t at_once = steps_of_launch;
    const int64_t frame_rows = call.one_covariate_row ? 1 : rows;
    if (net.covariates > 0) {
        const int64_t most = causal_bytes / std::max<int64_t>(1, frame_rows * of_layers * int64_t(sizeof(T)));
        at_once = std::min(at_once, std::max<int64_t>(1, most - 2) * net.hop);
        frames = numbers_of<T>(frame_rows * ((std::min(at_once, call.steps) - 1) / net.hop + 3) * of_layers, stream);
    }
    const int64_t lines = causal_steps_room(net);
    if (size_t(lines) * sizeof(T) > causal_shared_bytes)
        room = numbers_of<T>(causal_steps_blocks(rows) * lines, stream);
    c.room = room.get();
    for (c.begin = 0; c.begin < call.steps; c.begin = c.end) {
        c.end = std::min(call.steps, c.begin + at_once);
        if (net.covariates > 0) {
            const Frames some(net, call.frames, c.begin, c.end);
            c.frames_row = call.one_covariate_row ? 0 : some.count * of_layers;
            for (int l = 0; l < net.n_layers; ++l)
                multiply_frames(call, l, row, rows, some.first, some.count, frames.get() + l * gates, c.frames_row,
                                of_layers, stream);
            c.frames = frames.get();
            c.first_frame = some.first;
            c.last_frame = some.last;
        }
        causal_steps(c, stream);
    }
}

template <class T>
void DeviceCausalTransform<T>::sequential(const SequencesOnDevice<T>& call, cudaStream_t stream) {
    if (call.rows == 0 || call.steps == 0) return;
    const CausalNetwork& net = network_.network();
    const OnDevice on(device_);
    const std::lock_guard<std::mutex> lock(mutex_);
    const StreamOrder::Reading reading(order_, stream);
    const int64_t each = int64_t(net.state) * int64_t(sizeof(T));
    const int64_t panels = std::max<int64_t>(1, causal_bytes / (each * panel_streams));
    const int64_t at_once = panels * panel_streams;
    for (int64_t row = 0; row < call.rows; row += at_once) steps(call, row, std::min(at_once, call.rows - row), stream);
}

template class DeviceCausalTransform<float>;
template class DeviceCausalTransform<double>;

template <class T>
void predict_on(PredictionCallOnDevice<T> call, int device, cudaStream_t stream) {
    const OnDevice on(device);
    const DeviceBuffer<double> coefficients(size_t(call.columns * call.order), stream);
    call.coefficients = coefficients.get();
    predict(call, stream);
}

template void predict_on(PredictionCallOnDevice<float>, int, cudaStream_t);
template void predict_on(PredictionCallOnDevice<double>, int, cudaStream_t);

}  // namespace headrace
