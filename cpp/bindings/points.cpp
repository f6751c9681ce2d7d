// Points of a dual ascent for Python.
#include "../core/points.hpp"

#include <algorithm>
#include <cstring>

#include "../core/host_ascent.hpp"
#include "bindings.hpp"
#include "initialised.hpp"

HR_REFUSE_UNINITIALISED(headrace::Points<float>);
HR_REFUSE_UNINITIALISED(headrace::Points<double>);
HR_REFUSE_UNINITIALISED(headrace::HostAscent<float>);
HR_REFUSE_UNINITIALISED(headrace::HostAscent<double>);

namespace headrace {
namespace {

using Doubles = Array<double>;

std::vector<double> numbers(const Doubles& a, py::ssize_t size, const char* message) {
    require(a.size() == size, message);
    return std::vector<double>(a.data(), a.data() + a.size());
}

// Column c of (features, columns).
std::vector<double> column(const Doubles& a, int features, int columns, int c, const char* message) {
    require(a.ndim() == 2 && a.shape(0) == features && a.shape(1) == columns, message);
    std::vector<double> out(size_t(a.shape(0)));
    for (py::ssize_t i = 0; i < a.shape(0); ++i) out[size_t(i)] = a.at(i, c);
    return out;
}

// `matrix`: its blocks of these sizes, row by row, one after another.
template <class T>
py::object step(Points<T>& points, const Doubles& maps, double log_scale, const Doubles& matrix, const Doubles& shift,
                const py::object& next, std::vector<int> blocks, std::vector<int> order) {
    const int n = points.features();
    const bool wants_sums = !next.is_none();
    constexpr const char* expects_maps = "maps: expected (features, 3): bend, center, square";
    PointsStep s{};
    s.bend = column(maps, n, 3, 0, expects_maps);
    s.center = column(maps, n, 3, 1, expects_maps);
    s.square = column(maps, n, 3, 2, expects_maps);
    s.log_scale = log_scale;
    s.matrix.assign(matrix.data(), matrix.data() + matrix.size());
    s.blocks = std::move(blocks);
    s.order = std::move(order);
    s.shift = numbers(shift, n, "shift: expected (features,)");
    if (wants_sums) {
        const auto a = py::cast<Doubles>(next);
        s.next_center = column(a, n, 2, 0, "next: expected (features, 2): center, square");
        s.next_square = column(a, n, 2, 1, "next: expected (features, 2): center, square");
    }
    std::vector<double> sums;
    {
        const py::gil_scoped_release nogil;
        sums = points.step(s, wants_sums).all;
    }
    if (next.is_none()) return py::none();
    Doubles out({n, ascent_sum_count});
    std::copy_n(sums.begin(), out.size(), out.mutable_data());
    return out;
}

// A number for each row.
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
        .def(py::init([](const py::array& x, const py::object& weights, bool keeps_log_jacobian) {
                 const bool is_double = py::isinstance<py::array_t<double>>(x);
                 require(is_double || py::isinstance<py::array_t<float>>(x), "x: expected float32 or float64");
                 require(x.ndim() == 2 && x.shape(1) >= 1 && x.shape(1) <= 8192, "x: expected (rows, features)");
                 const ArrayView view{static_cast<const char*>(x.data()), x.strides(0), x.strides(1), is_double,
                                      nullptr};
                 const T* w = nullptr;
                 if (!weights.is_none()) {
                     require(py::isinstance<Array<T>>(weights), "weights: expected contiguous numbers of the dtype");
                     const auto a = py::reinterpret_borrow<Array<T>>(weights);
                     require(a.ndim() == 1 && a.shape(0) == x.shape(0) && is_aligned(a), "weights: expected (rows,)");
                     w = a.data();
                 }
                 const py::gil_scoped_release nogil;
                 return std::make_shared<Points<T>>(view, x.shape(0), int(x.shape(1)), w, keeps_log_jacobian);
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

KinkRule rule_of(double precision, double total, double neighbours, const std::string& rule) {
    require(rule == "newton" || rule == "gradient", "rule: expected newton or gradient");
    return {precision, total, neighbours, rule == "newton"};
}

// Numbers of a call that is made without the interpreter's lock.
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

template <class T>
void bind_ascent_of(py::module_& m, const char* name) {
    using A = HostAscent<T>;
    py::class_<A>(m, name)
        .def(py::init([](std::shared_ptr<Points<T>> points, std::shared_ptr<Points<double>> anchors,
                         std::shared_ptr<Points<T>> held_out, double precision, double neighbours,
                         const std::string& rule, int64_t most) {
                 require(points && anchors, "points, anchors: expected points");
                 const KinkRule of = rule_of(precision, 1.0, neighbours, rule);
                 return std::make_unique<A>(std::move(points), std::move(anchors), std::move(held_out), of, most);
             }),
             py::arg("points"), py::arg("anchors"), py::arg("held_out"), py::arg("precision"), py::arg("neighbours"),
             py::arg("rule"), py::arg("most"))
        .def(
            "kink",
            [](A& ascent, const Doubles& matrix, const std::vector<int>& blocks, const std::vector<int>& order,
               const std::vector<int64_t>& rows, const std::vector<double>& drawn) {
                const std::vector<double> numbers(matrix.data(), matrix.data() + matrix.size());
                const py::gil_scoped_release nogil;
                ascent.kink(numbers, blocks, order, rows, drawn);
            },
            py::arg("matrix"), py::arg("blocks"), py::arg("order"), py::arg("rows"), py::arg("drawn"))
        .def("finish", &A::finish, py::call_guard<py::gil_scoped_release>())
        .def(
            "kinks",
            [](const A& ascent) {
                const std::vector<Kink> kinks = ascent.kinks();
                Doubles out(
                    {py::ssize_t(kinks.size()) / ascent.features(), py::ssize_t(ascent.features()), py::ssize_t(5)});
                static_assert(sizeof(Kink) == 5 * sizeof(double));
                if (!kinks.empty()) std::memcpy(out.mutable_data(), kinks.data(), kinks.size() * sizeof(Kink));
                return out;
            },
            "(kinks, features, 5): a, b, c, center, square.")
        .def(
            "log_likelihoods",
            [](const A& ascent) { return found_by([&] { return ascent.log_likelihoods(); }, {A::likelihoods_each}); },
            "(kinks, 4): of the points, of those held out, and of the checked rows of either.")
        .def(
            "terms", [](const A& ascent) { return found_by([&] { return ascent.terms(); }, {ascent.features(), 2}); },
            "(kinks, features, 2): means of log φ' and φ².");
}

// Each coordinate's kink (a, b, c, center, square), and what its log-likelihood gains at least.
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
