// Calls of the points of dual ascent for Python, on every device; the few parameters of a step are copied from the
// host.
#pragma once

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "../core/request.hpp"
#include "../math/ascent.hpp"
#include "../math/kink.hpp"
#include "arrays.hpp"

namespace headrace {

using Doubles = Array<double>;

constexpr const char* expects_weights = "weights: expected contiguous (rows,) of the dtype";

inline OpenedArray points_of(OpenedArray x) {
    require(x.axes == 2 && x.columns >= 1 && x.columns <= 8192, "x: expected (rows, features)");
    return x;
}

// Column c of an array (features, columns).
inline std::vector<double> column(const Doubles& a, int features, int columns, int c, const char* message) {
    require(a.ndim() == 2 && a.shape(0) == features && a.shape(1) == columns, message);
    std::vector<double> out(size_t(a.shape(0)));
    for (py::ssize_t i = 0; i < a.shape(0); ++i) out[size_t(i)] = a.at(i, c);
    return out;
}

// An array (n, tail...) of the values that a call computes without the interpreter's lock.
template <class Call>
Doubles found_by(const Call& call, std::vector<py::ssize_t> tail) {
    std::vector<double> found;
    {
        const py::gil_scoped_release nogil;
        found = call();
    }
    py::ssize_t each = 1;
    for (const py::ssize_t size : tail) each *= size;
    tail.insert(tail.begin(), py::ssize_t(found.size()) / each);
    Doubles out(tail);
    std::copy(found.begin(), found.end(), out.mutable_data());
    return out;
}

// Returns the sums (features, 6) that `take(step, whether sums are needed)` computes, or None if there is no next map.
// `matrix` has the blocks of the given sizes, row by row, one block after another.
template <class Take>
py::object step_points(int features, const Doubles& maps, double log_scale, const Doubles& matrix, const Doubles& shift,
                       const py::object& next, std::vector<int> blocks, std::vector<int> order, const Take& take) {
    constexpr const char* expects_maps = "maps: expected (features, 3): bend, center, square";
    constexpr const char* expects_next = "next: expected (features, 2): center, square";
    PointsStep s{};
    s.bend = column(maps, features, 3, 0, expects_maps);
    s.center = column(maps, features, 3, 1, expects_maps);
    s.square = column(maps, features, 3, 2, expects_maps);
    s.log_scale = log_scale;
    s.matrix.assign(matrix.data(), matrix.data() + matrix.size());
    s.blocks = std::move(blocks);
    s.order = std::move(order);
    require(shift.size() == features, "shift: expected (features,)");
    s.shift.assign(shift.data(), shift.data() + features);
    if (next.is_none()) {
        {
            const py::gil_scoped_release nogil;
            take(s, false);
        }
        return py::none();
    }
    const auto a = py::cast<Doubles>(next);
    s.next_center = column(a, features, 2, 0, expects_next);
    s.next_square = column(a, features, 2, 1, expects_next);
    return found_by([&] { return take(s, true); }, {ascent_sum_count});
}

inline KinkRule rule_of(double precision, double total, double neighbours, const std::string& rule) {
    require(rule == "newton" || rule == "gradient", "rule: expected newton or gradient");
    return {precision, total, neighbours, rule == "newton"};
}

// Binds the methods of every ascent by kinks. On a device the last argument, `named`, is a queue, from which At makes a
// stream.
template <class A, auto At = nullptr, class... Queue, class... Named>
void bind_kinks(py::class_<A>& c, const Named&... named) {
    c.def(
         "kink",
         [](A& ascent, const Doubles& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
            const std::vector<int64_t>& rows, const std::vector<double>& drawn, Queue... queue) {
             const std::vector<double> numbers(matrix.data(), matrix.data() + matrix.size());
             const py::gil_scoped_release nogil;
             ascent.kink(numbers, blocks, order, rows, drawn, At(queue)...);
         },
         py::arg("matrix"), py::arg("blocks"), py::arg("order"), py::arg("rows"), py::arg("drawn"), named...)
        .def(
            "finish",
            [](A& ascent, Queue... queue) {
                const py::gil_scoped_release nogil;
                ascent.finish(At(queue)...);
            },
            named...)
        .def(
            "kinks",
            [](A& ascent, Queue... queue) {
                static_assert(sizeof(Kink) == 5 * sizeof(double));
                return found_by(
                    [&] {
                        const std::vector<Kink> kinks = ascent.kinks(At(queue)...);
                        std::vector<double> numbers(5 * kinks.size());
                        if (!kinks.empty()) std::memcpy(numbers.data(), kinks.data(), kinks.size() * sizeof(Kink));
                        return numbers;
                    },
                    {ascent.features(), 5});
            },
            named..., "(kinks, features, 5): a, b, c, center, square.")
        .def(
            "log_likelihoods",
            [](A& ascent, Queue... queue) {
                return found_by([&] { return ascent.log_likelihoods(At(queue)...); }, {A::likelihoods_each});
            },
            named...,
            "(kinks, 2 or 4): of the points, of those held out, and on the host of the checked rows of either.");
}

}  // namespace headrace
