// Points of dual ascent for Python.
#include "../core/points.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "../core/host_ascent.hpp"
#include "bindings.hpp"
#include "initialised.hpp"
#include "points_calls.hpp"

HR_REFUSE_UNINITIALISED(headrace::Points<float>);
HR_REFUSE_UNINITIALISED(headrace::Points<double>);
HR_REFUSE_UNINITIALISED(headrace::HostAscent<float>);
HR_REFUSE_UNINITIALISED(headrace::HostAscent<double>);

namespace headrace {
namespace {

template <class T>
py::object step(Points<T>& points, const Doubles& maps, double log_scale, const Doubles& matrix, const Doubles& shift,
                const py::object& next, std::vector<int> blocks, std::vector<int> order) {
    const auto take = [&](const PointsStep& s, bool wants_sums) {
        std::vector<double> sums = points.step(s, wants_sums).all;
        sums.resize(size_t(points.features()) * ascent_sum_count);
        return sums;
    };
    return step_points(points.features(), maps, log_scale, matrix, shift, next, std::move(blocks), std::move(order),
                       take);
}

// An array with one value for each row of points.
template <class T>
Doubles of_rows(const Points<T>& points, void (Points<T>::*verb)(double*) const) {
    Doubles out(py::ssize_t(points.count()));
    double* const numbers = out.mutable_data();
    {
        const py::gil_scoped_release nogil;
        (points.*verb)(numbers);
    }
    return out;
}

template <class T>
void bind_points_of(py::module_& m, const char* name) {
    py::class_<Points<T>, std::shared_ptr<Points<T>>>(m, name)
        .def(py::init([](const py::object& x, const py::object& weights, bool keeps_log_jacobian) {
                 const OpenedArray a = points_of(open_host_array(x, "x: expected float32 or float64"));
                 const T* const w =
                     weights.is_none() ? nullptr : host_numbers<const T>(weights, {a.rows}, expects_weights);
                 const py::gil_scoped_release nogil;
                 return std::make_shared<Points<T>>(a.view, a.rows, int(a.columns), w, keeps_log_jacobian);
             }),
             py::arg("x"), py::arg("weights"), py::arg("keeps_log_jacobian") = true)
        .def("checked_rows",
             [](const Points<T>& p) {
                 std::vector<int64_t> rows;
                 for (int64_t row = 0; row < p.count(); ++row)
                     if (p.is_checked(row / ascent_block_rows)) rows.push_back(row);
                 return Array<int64_t>(py::ssize_t(rows.size()), rows.data());
             })
        .def("step", &step<T>, py::arg("maps"), py::arg("log_scale"), py::arg("matrix"), py::arg("shift"),
             py::arg("next"), py::arg("blocks"), py::arg("order"))
        .def("values",
             [](const Points<T>& p) {
                 Array<T> out({py::ssize_t(p.count()), py::ssize_t(p.features())});
                 T* const numbers = out.mutable_data();
                 {
                     const py::gil_scoped_release nogil;
                     p.values(numbers);
                 }
                 return out;
             })
        .def("squares", [](const Points<T>& p) { return of_rows(p, &Points<T>::squares); })
        .def("log_jacobian", [](const Points<T>& p) { return of_rows(p, &Points<T>::log_jacobian); });
}

template <class T>
typename HostAscent<T>::Party party_of(std::vector<std::shared_ptr<Points<T>>> parts, std::vector<bool> is_checked) {
    require(parts.size() == is_checked.size(), "checked: expected one for each part");
    for (const auto& part : parts) require(part != nullptr, "points, held_out: expected points");
    typename HostAscent<T>::Party party;
    party.parts = std::move(parts);
    party.is_checked = std::move(is_checked);
    return party;
}

// A C++ function that an ascent calls without the interpreter's lock to sum over parts. Copies of the C++ function
// share one py::function, because copying a py::function needs the lock to count references.
std::function<std::vector<double>(const std::vector<std::vector<double>>&, size_t)> called(const py::function& sum) {
    const std::shared_ptr<py::function> shared(new py::function(sum), [](py::function* function) {
        const py::gil_scoped_acquire gil;
        delete function;
    });
    return [shared](const std::vector<std::vector<double>>& parts, size_t size) {
        const py::gil_scoped_acquire gil;
        Doubles given({py::ssize_t(parts.size()), py::ssize_t(size)});
        for (size_t i = 0; i < parts.size(); ++i)
            std::copy(parts[i].begin(), parts[i].end(), given.mutable_data(py::ssize_t(i)));
        const auto found = py::cast<Doubles>((*shared)(given));
        require(found.ndim() == 1 && found.shape(0) == py::ssize_t(size), "sum: expected (columns,)");
        return std::vector<double>(found.data(), found.data() + size);
    };
}

template <class T>
void bind_ascent_of(py::module_& m, const char* name) {
    using A = HostAscent<T>;
    py::class_<A> ascent(m, name);
    bind_kinks<A>(ascent);
    ascent
        .def(py::init([](std::vector<std::shared_ptr<Points<T>>> points, std::shared_ptr<Points<double>> anchors,
                         std::vector<std::shared_ptr<Points<T>>> held_out, double precision, double neighbours,
                         const std::string& rule, int64_t most, std::vector<bool> checked,
                         std::vector<bool> held_out_checked, const py::function& sum) {
                 require(anchors != nullptr, "anchors: expected points");
                 const KinkRule of = rule_of(precision, 1.0, neighbours, rule);
                 return std::make_unique<A>(party_of<T>(std::move(points), std::move(checked)), std::move(anchors),
                                            party_of<T>(std::move(held_out), std::move(held_out_checked)), of, most,
                                            called(sum));
             }),
             py::arg("points"), py::arg("anchors"), py::arg("held_out"), py::arg("precision"), py::arg("neighbours"),
             py::arg("rule"), py::arg("most"), py::arg("checked"), py::arg("held_out_checked"), py::arg("sum"),
             "`sum` is given (parts, columns) and returns (columns,): the sums over the parts here and elsewhere.")
        .def(
            "terms", [](const A& ascent) { return found_by([&] { return ascent.terms(); }, {ascent.features(), 2}); },
            "(kinks, features, 2): means of log φ' and φ².");
}

// The kink of each coordinate (a, b, c, center, square), and a lower bound of the gain of the coordinate's
// log-likelihood.
Doubles choose_kinks(const Doubles& sums, const Doubles& next, double precision, double total,
                     const std::string& rule) {
    const py::ssize_t n = sums.ndim() == 2 ? sums.shape(0) : -1;
    require(n >= 0 && sums.shape(1) == ascent_sum_count, "sums: expected (features, 6)");
    require(next.ndim() == 2 && next.shape(0) == n && next.shape(1) == 2, "next: expected (features, 2)");
    const KinkRule of = rule_of(precision, total, 1.0, rule);
    Doubles out({n, py::ssize_t(6)});
    for (py::ssize_t k = 0; k < n; ++k) {
        double* const row = out.mutable_data(k, 0);
        const Kink kink = chosen_kink(sums.data(k, 0), next.at(k, 0), next.at(k, 1), of, row[5]);
        std::memcpy(row, &kink, sizeof kink);
    }
    return out;
}

}  // namespace

void bind_points(py::module_& m) {
    bind_points_of<float>(m, "PointsF32");
    bind_points_of<double>(m, "PointsF64");
    bind_ascent_of<float>(m, "AscentF32");
    bind_ascent_of<double>(m, "AscentF64");
    m.attr("least_kink_width") = least_width;
    m.def("choose_kinks", &choose_kinks, py::arg("sums"), py::arg("next"), py::arg("precision"), py::arg("total"),
          py::arg("rule"));
    m.def(
        "kink_square",
        [](double center, double precision, double neighbours) {
            return kink_square(center, {precision, 1.0, neighbours, true});
        },
        py::arg("center"), py::arg("precision"), py::arg("neighbours"));
}

}  // namespace headrace
