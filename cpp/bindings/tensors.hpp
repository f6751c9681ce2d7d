// Conversion between named tensors and the vector of weights of an object, for Python.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "../core/weights.hpp"
#include "arrays.hpp"

namespace headrace {

// Packs tensors into `packed`, a vector of n_weights values.
template <class T>
Array<T> pack_tensors(const WeightLayout& layout, const std::vector<Array<T>>& tensors, Array<T> packed) {
    const std::vector<Tensor> wanted = layout.tensors();
    require(tensors.size() == wanted.size(),
            ("tensors: expected " + std::to_string(wanted.size()) + ", got " + std::to_string(tensors.size())).c_str());
    std::vector<const T*> numbers;
    for (size_t i = 0; i < tensors.size(); ++i) {
        const std::vector<int64_t> shape(tensors[i].shape(), tensors[i].shape() + tensors[i].ndim());
        require(shape == wanted[i].shape && is_aligned(tensors[i]),
                (wanted[i].name + ": expected an aligned array of its shape").c_str());
        numbers.push_back(tensors[i].data());
    }
    layout.pack(numbers, packed.mutable_data());
    return packed;
}

template <class T>
std::vector<Array<T>> unpack_tensors(const WeightLayout& layout, const Array<T>& packed) {
    require(packed.ndim() == 1 && is_aligned(packed) && packed.shape(0) == py::ssize_t(layout.n_weights()),
            "weights: the vector has the wrong size");
    std::vector<Array<T>> tensors;
    std::vector<T*> numbers;
    for (const Tensor& tensor : layout.tensors()) {
        tensors.emplace_back(tensor.shape);
        numbers.push_back(tensors.back().mutable_data());
    }
    layout.unpack(packed.data(), numbers);
    return tensors;
}

struct NewArray {
    template <class T>
    static Array<T> of(size_t n) {
        return Array<T>(py::ssize_t(n));
    }
};

// Binds methods for tensors. layout_of(object) is the layout of the object's weights, and Vectors::of<T>(n) makes the
// vector for n weights.
template <class Vectors = NewArray, class Class, class F>
void bind_tensors(Class& bound, F layout_of) {
    using Object = typename Class::type;
    const auto bind_of = [&]<class T>(T) {
        bound.def(
            "pack",
            [=](const Object& o, const std::vector<Array<T>>& tensors) {
                const WeightLayout& layout = layout_of(o);
                return pack_tensors(layout, tensors, Vectors::template of<T>(layout.n_weights()));
            },
            py::arg("tensors"));
        bound.def(
            "unpack", [=](const Object& o, const Array<T>& packed) { return unpack_tensors(layout_of(o), packed); },
            py::arg("packed").noconvert());
    };
    bind_of(float{});
    bind_of(double{});
    bound.def_property_readonly("tensors", [=](const Object& o) {
        std::vector<std::pair<std::string, std::vector<int64_t>>> named;
        for (const Tensor& one : layout_of(o).tensors()) named.emplace_back(one.name, one.shape);
        return named;
    });
    bound.def_property_readonly("n_weights", [=](const Object& o) { return layout_of(o).n_weights(); });
}

}  // namespace headrace
