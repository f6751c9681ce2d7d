// The bindings to Python. Arrays on the device are tuples (address, shape, strides in bytes, name of the dtype in
// NumPy); streams are addresses, 0 for the default stream. Bindings check every size, although Python has checked it,
// so that no call can read or write outside of the arrays' declared bounds. Python has already checked, by the array's
// library, that an address is on the device.
#pragma once

#include <string>

#include "../../cpp/bindings/arrays.hpp"
#include "../include/memory.cuh"

namespace headrace {

void bind_program(py::module_& m);
void bind_optimizer(py::module_& m);
void bind_ops(py::module_& m);
void bind_points(py::module_& m);
void bind_sequences(py::module_& m);
void bind_xla(py::module_& m);
void bind_lanes(py::module_& m);      // in builds with tests
void bind_emulation(py::module_& m);  // only in _emu

inline cudaStream_t stream_at(uintptr_t address) {
    return reinterpret_cast<cudaStream_t>(address);
}

// An array on the device, from the tuple that Python passes.
struct DeviceArray {
    char* data = nullptr;
    std::vector<int64_t> shape, strides;
    std::string dtype;

    explicit DeviceArray(const py::handle& given) {
        require(py::isinstance<py::tuple>(given),
                "expected (address, shape, strides, dtype) of an array on the device");
        const auto row = py::reinterpret_borrow<py::tuple>(given);
        require(row.size() == 4, "expected (address, shape, strides, dtype) of an array on the device");
        data = reinterpret_cast<char*>(row[0].cast<uintptr_t>());
        shape = row[1].cast<std::vector<int64_t>>();
        strides = row[2].cast<std::vector<int64_t>>();
        dtype = row[3].cast<std::string>();
        require(shape.size() == strides.size(), "expected a stride for each axis");
        for (int64_t n : shape) require(n >= 0, "expected sizes of at least 0");
        require(data || count() == 0, "expected an address");
#ifdef HR_EMULATE  // an interpreted kernel may access only memory that is registered here
        if (count() > 0) {
            int64_t first = 0, end = is<float>() ? 4 : 8;
            for (size_t i = 0; i < shape.size(); ++i) (strides[i] < 0 ? first : end) += (shape[i] - 1) * strides[i];
            ptx::array_seen(data + first, size_t(end - first));
        }
#endif
    }

    int64_t count() const {
        int64_t n = 1;
        for (int64_t size : shape) n *= size;
        return n;
    }
    template <class T>
    bool is() const {
        return dtype == (std::is_same_v<std::remove_const_t<T>, float>    ? "float32"
                         : std::is_same_v<std::remove_const_t<T>, double> ? "float64"
                                                                          : "int64");
    }
    bool is_float() const { return is<float>() || is<double>(); }
    bool has_shape(std::initializer_list<int64_t> wanted) const {
        return std::equal(shape.begin(), shape.end(), wanted.begin(), wanted.end());
    }
    // Each element must have an address that its dtype allows, because a device cannot read other addresses.
    void require_alignment() const {
        const int64_t size = is<float>() ? 4 : 8;
        bool fits = reinterpret_cast<uintptr_t>(data) % uintptr_t(size) == 0;
        for (size_t i = 0; i < shape.size(); ++i) fits = fits && (shape[i] <= 1 || strides[i] % size == 0);
        require(fits || count() == 0, "expected numbers at addresses that their dtype allows");
    }
    // The values of an array that is in C order without gaps, and aligned for T.
    template <class T>
    T* contiguous(const char* message) const {
        require(is<T>() && reinterpret_cast<uintptr_t>(data) % alignof(T) == 0, message);
        int64_t stride = int64_t(sizeof(T));
        for (size_t i = shape.size(); i-- > 0; stride *= shape[i])
            require(shape[i] <= 1 || strides[i] == stride || count() == 0, message);
        return reinterpret_cast<T*>(data);
    }
};

// The values of a contiguous array of the given shape.
template <class T>
T* numbers(const py::handle& given, std::initializer_list<int64_t> shape, const char* message) {
    const DeviceArray a(given);
    require(a.has_shape(shape), message);
    return a.contiguous<T>(message);
}

// The values of a contiguous array for a result; null for None.
template <class T>
T* output(const py::object& given, std::initializer_list<int64_t> shape, const char* message) {
    return given.is_none() ? nullptr : numbers<T>(given, shape, message);
}

// A view of an array of floats with any strides.
inline OpenedArray open_array(const py::handle& given, const char* message) {
    const DeviceArray a(given);
    require(a.is_float(), message);
    a.require_alignment();
    const size_t axes = a.shape.size();
    return {{a.data, axes > 0 ? a.strides[0] : 0, axes > 1 ? a.strides[1] : 0, a.is<double>(), nullptr},
            int64_t(axes),
            axes > 0 ? a.shape[0] : 0,
            axes > 1 ? a.shape[1] : 0};
}

}  // namespace headrace
