#include "devices.hpp"

#include <sstream>

namespace headrace {
namespace {

constexpr int least_capability = 80;  // the least with TF32 products m16n8k8, which kernels use

int attribute_of(int device, cudaDeviceAttr attribute) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "device");
    return value;
}

// The compute capability of a device, where 90 is 9.0.
int capability_of(int device) {
    return 10 * attribute_of(device, cudaDevAttrComputeCapabilityMajor) +
           attribute_of(device, cudaDevAttrComputeCapabilityMinor);
}

std::string number_text(int whole, int part) {
    return std::to_string(whole) + "." + std::to_string(part);
}

std::string capability_text(int capability) {
    return number_text(capability / 10, capability % 10);
}

std::string version_text(int version) {
    return number_text(version / 1000, version % 1000 / 10);
}

enum class Code { none, compiled_by_driver, machine };

// The best form of code that a build has for a card. Machine code runs on cards of the same major compute capability
// that are at least as new; code that the driver compiles runs on all cards that are at least as new. If a word of the
// list of architectures is no number (such as "all"), the build is assumed to have machine code for every card.
Code code_for(int capability) {
    std::istringstream words(architectures());
    Code best = Code::none;
    for (std::string word; words >> word;) {
        size_t digits = 0;
        while (digits < word.size() && word[digits] >= '0' && word[digits] <= '9') ++digits;
        const std::string kind = word.substr(digits);
        if (digits == 0 || digits > 3 || (!kind.empty() && kind != "-real" && kind != "-virtual")) return Code::machine;
        const int built_for = std::stoi(word);
        if (built_for > capability) continue;
        if (kind != "-virtual" && built_for / 10 == capability / 10) return Code::machine;
        if (kind != "-real") best = Code::compiled_by_driver;
    }
    return best;
}

// The meaning of the runtime's error "insufficient driver": there is no driver, or the driver is older than the
// toolkit.
std::string without_driver() {
    const int driver = driver_version();
    if (driver == 0) return "there is no NVIDIA driver";
    const std::string built = version_text(runtime_version()), known = version_text(driver);
    return "headrace was built with CUDA " + built + ", and the driver knows CUDA up to " + known +
           ": update the driver, or build headrace with a toolkit of CUDA " + std::to_string(driver / 1000);
}

// The number of devices that the runtime counts; `reason` explains a count of zero.
int devices_of_runtime(std::string& reason) {
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error == cudaSuccess && n > 0) return n;
    cudaGetLastError();  // clears the error, which the next call would report
    reason = error == cudaSuccess                   ? "no CUDA device"
             : error == cudaErrorInsufficientDriver ? without_driver()
                                                    : cudaGetErrorString(error);
    return 0;
}

}  // namespace

std::string device_name(int device) {
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, device), "device");
    return properties.name;
}

std::string device_capability(int device) {
    return capability_text(capability_of(device));
}

int driver_version() {
    int version = 0;
    check_cuda(cudaDriverGetVersion(&version), "driver version");
    return version;
}

int runtime_version() {
    int version = 0;
    check_cuda(cudaRuntimeGetVersion(&version), "runtime version");
    return version;
}

std::string architectures() {
#ifdef HR_EMULATE
    return emu::runtime().built_for;
#else
    return HEADRACE_CUDA_ARCHITECTURES;
#endif
}

std::string device_reason(int device) {
    const int capability = capability_of(device);
    const std::string named = device_name(device) + " has compute capability " + capability_text(capability);
    if (capability < least_capability) return named + ", and headrace needs " + capability_text(least_capability);
    if (code_for(capability) == Code::none)
        return named + ", and headrace was built for " + architectures() +
               " only: build it on this machine, or with CUDAARCHS=" + std::to_string(capability) + "-real";
    if (attribute_of(device, cudaDevAttrMemoryPoolsSupported) == 0)
        return named + " and no memory pools, which headrace takes its memory from: some virtual GPUs lack them";
    return "";
}

bool is_compiled_by_driver(int device) {
    return code_for(capability_of(device)) == Code::compiled_by_driver;
}

std::string reason_without_devices() {
    std::string reasons;
    const int n = devices_of_runtime(reasons);
    for (int device = 0; device < n; ++device) {
        const std::string reason = device_reason(device);
        if (reason.empty()) return "";
        reasons += (device == 0 ? "" : "; ") + reason;
    }
    return reasons;
}

int device_count() {
    std::string reason;
    return reason_without_devices().empty() ? devices_of_runtime(reason) : 0;
}

}  // namespace headrace
