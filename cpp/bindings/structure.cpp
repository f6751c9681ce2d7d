// Maps, masked transforms and steps for Python: what programs are made of, on every device.
#include "structure.hpp"

#include <map>
#include <type_traits>
#include <variant>

#include "bindings.hpp"
#include "initialised.hpp"

HR_REFUSE_UNINITIALISED(headrace::HiddenOptions);
HR_REFUSE_UNINITIALISED(headrace::MaskedOptions);
HR_REFUSE_UNINITIALISED(headrace::MaskedTransform);

namespace headrace {
namespace {

using OptionField = std::variant<int MaskedOptions::*, double MaskedOptions::*, std::optional<double> MaskedOptions::*,
                                 bool MaskedOptions::*, std::string MaskedOptions::*, std::vector<int> MaskedOptions::*,
                                 std::vector<HiddenOptions> MaskedOptions::*>;

// By the names of Python's keywords.
const std::map<std::string, OptionField>& option_fields() {
    using O = MaskedOptions;
    static const std::map<std::string, OptionField> fields{
        {"features", &O::features},
        {"context", &O::context},
        {"reads", &O::reads},
        {"active", &O::active},
        {"map", &O::map},
        {"variant", &O::variant},
        {"slope", &O::slope},
        {"bins", &O::bins},
        {"bound", &O::bound},
        {"low", &O::low},
        {"min_bin", &O::min_bin},
        {"activation", &O::activation},
        {"hidden", &O::hidden},
        {"reads_data", &O::reads_data},
        {"formula_to_data", &O::formula_to_data},
        {"unbiased", &O::unbiased},
    };
    return fields;
}

// What is not given is as in the struct; MaskedTransform refuses what cannot be left out.
MaskedOptions make_options(const py::kwargs& given) {
    MaskedOptions o;
    for (const auto& [key, value] : given) {
        const auto name = py::cast<std::string>(key);
        const auto found = option_fields().find(name);
        if (found == option_fields().end()) {
            std::string message = name + ": expected one of";
            for (const auto& field : option_fields()) message += " " + field.first;
            throw py::type_error(message);
        }
        std::visit(
            [&, object = value](auto field) {
                py::detail::make_caster<std::decay_t<decltype(o.*field)>> caster;
                if (!caster.load(object, true)) throw py::type_error(name + ": expected a value of another type");
                o.*field = py::detail::cast_op<std::decay_t<decltype(o.*field)>>(std::move(caster));
            },
            found->second);
    }
    require(o.slope > 0 && o.slope < 1, "slope: expected a number between 0 and 1");
    require(is_slope_of(o.map, o.slope), "slope: below the least of this map");
    require(is_interval_of(o.map, o.low.value_or(-o.bound), o.bound), "bound, low: this map has no such interval");
    require(is_min_bin_of(o.map, o.min_bin, o.bins), "min_bin: too small for this map, or too large for so many bins");
    return o;
}

std::shared_ptr<MaskedTransform> from_masks(const MaskedOptions& options, const std::vector<Array<bool>>& masks) {
    std::vector<std::vector<uint8_t>> bytes;
    std::vector<int> sizes{int(options.reads.size()) + options.context};
    for (const Array<bool>& mask : masks) {
        require(mask.ndim() == 2 && mask.shape(1) == sizes.back(), "masks: each must be (out, in), in as the last out");
        sizes.push_back(int(mask.shape(0)));
        bytes.emplace_back(mask.data(), mask.data() + mask.size());
    }
    const py::gil_scoped_release nogil;
    return std::make_shared<MaskedTransform>(MaskedTransform::from_masks(options, bytes, sizes));
}

template <class T>
Array<T> pack(const MaskedTransform& t, const std::vector<Array<T>>& weights, const std::vector<Array<T>>& biases) {
    require(weights.size() == biases.size(), "biases: expected one a layer");
    std::vector<DenseLayer<T>> dense;
    for (size_t l = 0; l < weights.size(); ++l) {
        require(weights[l].ndim() == 2 && biases[l].ndim() == 1 && biases[l].shape(0) == weights[l].shape(0),
                "weights: expected (out, in) and biases (out,)");
        require(is_aligned(weights[l]) && is_aligned(biases[l]), "weights, biases: expected aligned arrays");
        dense.push_back({int(weights[l].shape(0)), int(weights[l].shape(1)), weights[l].data(), biases[l].data()});
    }
    Array<T> packed(py::ssize_t(t.n_weights()));
    t.pack(dense, packed.mutable_data());
    return packed;
}

template <class T>
py::list unpack(const MaskedTransform& t, const Array<T>& packed) {
    require(packed.ndim() == 1 && is_aligned(packed) && packed.shape(0) == py::ssize_t(t.n_weights()),
            "weights: the vector has the wrong size");
    py::list layers;
    for (size_t l = 0; l < t.layers().size(); ++l) {
        const auto& shape = t.layers()[l];
        Array<T> weight({shape.out, shape.in}), bias(shape.out);
        t.unpack(packed.data(), int(l), weight.mutable_data(), bias.mutable_data());
        layers.append(py::make_tuple(weight, bias));
    }
    return layers;
}

py::list masks(const MaskedTransform& t) {
    py::list layers;
    for (size_t l = size_t(t.n_context_layers()); l < t.layers().size(); ++l) {
        Array<bool> mask({t.layers()[l].out, t.layers()[l].in});
        t.mask(int(l), reinterpret_cast<uint8_t*>(mask.mutable_data()));
        layers.append(mask);
    }
    return layers;
}

Support support_of(const std::string& name) {
    static const std::map<std::string, Support> supports{{"any", Support::any},       {"lower", Support::lower},
                                                         {"upper", Support::upper},   {"interval", Support::interval},
                                                         {"linear", Support::linear}, {"circle", Support::circle}};
    const auto found = supports.find(name);
    require(found != supports.end(), "steps: an unknown kind of support");
    return found->second;
}

ColumnDensity density_of(const std::string& name) {
    static const std::map<std::string, ColumnDensity> densities{{"normal", ColumnDensity::normal},
                                                                {"logistic", ColumnDensity::logistic},
                                                                {"uniform", ColumnDensity::uniform},
                                                                {"student", ColumnDensity::student}};
    const auto found = densities.find(name);
    require(found != densities.end(), "steps: an unknown density of a column");
    return found->second;
}

}  // namespace

Base base_of(const std::string& name) {
    if (name == "normal") return Base::normal;
    if (name == "logistic") return Base::logistic;
    if (name == "density") return Base::density;
    require(name.empty(), "base: expected normal, logistic, density or nothing");
    return Base::none;
}

std::vector<StepSpec> steps_of(const py::list& list) {
    std::vector<StepSpec> steps;
    for (const auto& item : list) {
        const auto row = py::cast<py::tuple>(item);
        const auto kind = py::cast<std::string>(row[0]);
        StepSpec s{};
        if (kind == "masked") {
            s.kind = StepSpec::Kind::masked;
            s.inverted = py::cast<bool>(row[1]);
            s.masked = py::cast<std::shared_ptr<MaskedTransform>>(row[2]);
        } else if (kind == "permutation") {
            s.kind = StepSpec::Kind::permutation;
            s.order = py::cast<std::vector<int>>(row[1]);
        } else if (kind == "rotation") {
            s.kind = StepSpec::Kind::rotation;
            s.inverted = py::cast<bool>(row[1]);
            const auto matrix = py::cast<py::array_t<double, py::array::c_style | py::array::forcecast>>(row[2]);
            s.matrix.assign(matrix.data(), matrix.data() + matrix.size());
            s.blocks = py::cast<std::vector<int>>(row[3]);
        } else if (kind == "support") {
            s.kind = StepSpec::Kind::support;
            s.inverted = py::cast<bool>(row[1]);
            for (const auto& name : py::cast<std::vector<std::string>>(row[2])) s.supports.push_back(support_of(name));
            s.low = py::cast<std::vector<double>>(row[3]);
            s.high = py::cast<std::vector<double>>(row[4]);
        } else if (kind == "marginal") {
            s.kind = StepSpec::Kind::marginal;
            s.inverted = py::cast<bool>(row[1]);
            s.masked = py::cast<std::shared_ptr<MaskedTransform>>(row[2]);
            s.fixed = py::cast<std::vector<double>>(row[3]);
        } else if (kind == "density") {
            s.kind = StepSpec::Kind::density;
            s.inverted = py::cast<bool>(row[1]);
            for (const auto& name : py::cast<std::vector<std::string>>(row[2])) s.columns.push_back(density_of(name));
            s.components = py::cast<int>(row[3]);
            s.n_raw = py::cast<int>(row[4]);
            s.fixed = py::cast<std::vector<double>>(row[5]);
        } else {
            require(kind == "standardize", "steps: an unknown kind of step");
            s.kind = StepSpec::Kind::standardize;
            s.inverted = py::cast<bool>(row[1]);
            s.mean = py::cast<std::vector<double>>(row[2]);
            s.std = py::cast<std::vector<double>>(row[3]);
        }
        steps.push_back(std::move(s));
    }
    return steps;
}

void bind_structure(py::module_& m) {
    m.def("maps", [] {
        std::vector<std::pair<std::string, std::string>> rows;
        for (const MapInfo& map : map_list()) rows.emplace_back(map.name, map.scale);
        return rows;
    });
    m.def("map_traits", [] {  // name -> (most bins, 0 if it has none; least slope, 0 if every one above 0 will do)
        std::map<std::string, std::pair<int, double>> traits;
        for (const MapInfo& map : map_list()) traits[map.name] = {map.max_bins, map.least_slope};
        return traits;
    });
    m.def("map_least_bins", [] {  // name -> the smallest `min_bin`, 0 if it has none
        std::map<std::string, double> least;
        for (const MapInfo& map : map_list()) least[map.name] = map.least_bin;
        return least;
    });
    m.def("vector_maps", [] {
        std::vector<std::pair<std::string, std::string>> rows;
        for (const VectorMapInfo& map : vector_map_list()) rows.emplace_back(map.name, map.variant);
        return rows;
    });
    m.def("activations", [] { return activation_list(); });
    py::class_<HiddenOptions>(m, "HiddenOptions", py::module_local())
        .def(py::init<std::string, int, std::string, std::string, double>(), py::arg("activation"), py::arg("adds"),
             py::arg("context"), py::arg("context_activation"), py::arg("dropout"));
    py::class_<MaskedOptions>(m, "MaskedOptions", py::module_local()).def(py::init(&make_options));
    py::class_<MaskedTransform, std::shared_ptr<MaskedTransform>>(m, "MaskedTransform", py::module_local())
        .def(py::init<MaskedOptions, std::vector<int>, std::vector<std::vector<int>>>(), py::arg("options"),
             py::arg("levels"), py::arg("degrees"))
        .def_static("from_masks", &from_masks, py::arg("options"), py::arg("masks"))
        .def("pack", &pack<float>, py::arg("weights"), py::arg("biases"))
        .def("pack", &pack<double>, py::arg("weights"), py::arg("biases"))
        .def("unpack", &unpack<float>, py::arg("packed").noconvert())
        .def("unpack", &unpack<double>, py::arg("packed").noconvert())
        .def("masks", &masks)
        .def_property_readonly("n_weights", &MaskedTransform::n_weights)
        .def_property_readonly("hidden", [](const MaskedTransform& t) {
            std::vector<int> sizes;
            for (size_t l = size_t(t.n_context_layers()); l + 1 < t.layers().size(); ++l)
                sizes.push_back(t.layers()[l].out);
            return sizes;
        });
}

}  // namespace headrace
