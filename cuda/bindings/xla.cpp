// The calls of cpp/bindings/xla_calls.hpp from compiled JAX code on a device, queued on XLA's stream. No call waits
// for the device, except the first call of a flow on the device, to which it copies the flow, and a call for which
// memory was exhausted.
#include "../../cpp/bindings/xla_calls.hpp"

#include <map>
#include <stdexcept>

#include "../../cpp/bindings/structure.hpp"
#include "../host/program.hpp"
#include "bindings.hpp"

namespace headrace {
namespace {

// The structure of a program, and the program on each device where it was called. Compiled code names no device: it
// uses the device of the calling thread, which XLA has made current.
template <class T>
class ProgramOnDevices {
  public:
    struct Parts {
        int features, context;
        Base base;
        std::vector<StepSpec> steps;
        size_t base_steps;
        ContextScale context_scale;
        std::vector<T> weights;
        std::string matmul;  // the setting `matmul` of the flow on the CPU
    };
    explicit ProgramOnDevices(Parts parts) : parts_(std::move(parts)) {}

    DeviceProgram<T>& here() {
        if (parts_.matmul != "exact")
            throw std::invalid_argument(
                "flow: expected exact products on a CUDA device, got matmul='" + parts_.matmul +
                "', which is of the CPU; call .to('cpu') of the flow before headrace.jax takes it");
        int device = 0;
        check_cuda(cudaGetDevice(&device), "current device");
        const std::lock_guard<std::mutex> lock(mutex_);
        std::unique_ptr<DeviceProgram<T>>& program = programs_[device];
        if (!program) program = made(device);
        return *program;
    }

  private:
    std::unique_ptr<DeviceProgram<T>> made(int device) const {
        auto program =
            std::make_unique<DeviceProgram<T>>(parts_.features, parts_.context, parts_.base, parts_.steps,
                                               parts_.base_steps, parts_.context_scale, Products::exact, device);
        if (program->n_weights() != parts_.weights.size())
            throw std::invalid_argument("weights: the vector has the wrong size");
        program->set_host_weights(parts_.weights.data());
        return program;
    }

    const Parts parts_;
    std::mutex mutex_;
    std::map<int, std::unique_ptr<DeviceProgram<T>>> programs_;
};

struct DeviceCore {
    template <class T>
    using Program = DeviceProgram<T>;
    template <class T>
    using Known = ProgramOnDevices<T>;
    template <class T>
    using Weights = const T*;
    // Whether the host can read values: no, because they are on the device and no call waits for them. Without values
    // on the host, the gradient by parameters always has a separate run.
    static constexpr bool sees_numbers = false;

    // Handlers lack XLA's trait for command buffers: a call has a position in the order of streams, which a repeated
    // CUDA graph would not keep (host/stream_order.hpp). XLA calls handlers without this trait between its graphs.
    template <class T>
    static DeviceProgram<T>* program_of(ProgramOnDevices<T>* known) {
        return &known->here();
    }
    template <class T>
    static const T* weights_of(const DeviceProgram<T>&, const T* given) {
        return given;
    }
    template <class T>
    static void clear(T* out, size_t n, cudaStream_t stream) {
        if (n > 0) check_cuda(cudaMemsetAsync(out, 0, n * sizeof(T), stream), "gradient");
    }
    // Runs a call again if memory was exhausted, after freeing unused memory. Kernels take memory, except for results,
    // from a pool of this library, which is independent of XLA's pool.
    template <class Body>
    static xla::Error retried(const Body& body) {
        try {
            return body();
        } catch (const CudaOutOfMemory&) {
            trim_pool();
        }
        return body();
    }
    static xla::ErrorCode code_of(const std::exception& error) {
        if (dynamic_cast<const CudaOutOfMemory*>(&error)) return xla::ErrorCode::resource_exhausted;
        if (dynamic_cast<const std::invalid_argument*>(&error)) return xla::ErrorCode::invalid_argument;
        return xla::ErrorCode::internal;
    }
};

// Registers a flow; `handle` is the handle of the flow on the CPU.
template <class T>
void open(int64_t handle, int features, int context, const std::string& base, std::vector<StepSpec> steps,
          size_t base_steps, std::vector<double> mean, std::vector<double> std, const py::object& weights,
          std::string matmul) {
    require(py::isinstance<Array<T>>(weights), "weights: expected a contiguous vector in the flow's dtype");
    const auto given = py::reinterpret_borrow<Array<T>>(weights);
    auto known = std::make_shared<ProgramOnDevices<T>>(typename ProgramOnDevices<T>::Parts{
        features, context, base_of(base), std::move(steps), base_steps, ContextScale{std::move(mean), std::move(std)},
        std::vector<T>(given.data(), given.data() + given.size()), std::move(matmul)});
    require((Handles<DeviceCore, T>::all().open_as(handle, std::move(known))), "handle: expected one that is not open");
}

}  // namespace

void bind_xla(py::module_& m) {
    py::dict handlers;
    add_handlers<XlaCalls<DeviceCore, float, cudaStream_t>>(handlers, "float32");
    add_handlers<XlaCalls<DeviceCore, double, cudaStream_t>>(handlers, "float64");
    m.attr("xla_handlers") = handlers;
    m.def(
        "xla_open",
        [](bool is_double, int64_t handle, int features, int context, const std::string& base,
           std::vector<StepSpec> steps, size_t base_steps, std::vector<double> mean, std::vector<double> std,
           const py::object& weights, std::string matmul) {
            const auto take = is_double ? &open<double> : &open<float>;
            take(handle, features, context, base, std::move(steps), base_steps, std::move(mean), std::move(std),
                 weights, std::move(matmul));
        },
        py::arg("is_double"), py::arg("handle"), py::arg("features"), py::arg("context"), py::arg("base"),
        py::arg("steps"), py::arg("base_steps"), py::arg("context_mean"), py::arg("context_std"), py::arg("weights"),
        py::arg("matmul"));
    bind_handles<DeviceCore>(m);
}

}  // namespace headrace
