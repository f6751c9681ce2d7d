// Maps, masked transforms and steps for Python: the parts of programs, on every device.
#include "structure.hpp"

#include "../core/conditioners/masked.hpp"

#include <map>
#include <tuple>
#include <type_traits>
#include <variant>

#include "bindings.hpp"
#include "tensors.hpp"

HR_REFUSE_UNINITIALISED(headrace::HiddenOptions);
namespace headrace {

struct TransformOptions {
    MaskedOptions network;
    MapSettings map;
    bool reads_data = true;
};

struct MaskedTransform : Transform {
    const MaskedConditioner& masked() const { return static_cast<const MaskedConditioner&>(*conditioner); }
};

}  // namespace headrace

HR_REFUSE_UNINITIALISED(headrace::TransformOptions);
HR_REFUSE_UNINITIALISED(headrace::MaskedTransform);
HR_REFUSE_UNINITIALISED(headrace::MapInfo);

namespace headrace {
namespace {

using OptionField = std::variant<int*, double*, std::optional<double>*, bool*, std::string*, std::vector<int>*,
                                 std::vector<HiddenOptions>*>;

// The options of a transform, by Python's keywords.
std::map<std::string, OptionField> fields_of(TransformOptions& o) {
    return {
        {"features", &o.network.features},
        {"context", &o.network.context},
        {"reads", &o.network.reads},
        {"active", &o.network.active},
        {"map", &o.map.name},
        {"variant", &o.map.variant},
        {"slope", &o.map.slope},
        {"bins", &o.map.bins},
        {"bound", &o.map.bound},
        {"low", &o.map.low},
        {"min_bin", &o.map.min_bin},
        {"activation", &o.network.activation},
        {"hidden", &o.network.hidden},
        {"reads_data", &o.reads_data},
        {"formula_to_data", &o.map.formula_to_data},
        {"unbiased", &o.network.unbiased},
    };
}

// Options from keywords. Omitted settings have the struct's defaults; MaskedTransform raises an error where a setting
// without a default is omitted.
TransformOptions make_options(const py::kwargs& given) {
    TransformOptions o;
    const auto fields = fields_of(o);
    for (const auto& [key, value] : given) {
        const auto name = py::cast<std::string>(key);
        const auto found = fields.find(name);
        if (found == fields.end()) {
            std::string message = name + ": expected one of";
            for (const auto& field : fields) message += " " + field.first;
            throw py::type_error(message);
        }
        std::visit(
            [&, object = value](auto* field) {
                py::detail::make_caster<std::decay_t<decltype(*field)>> caster;
                if (!caster.load(object, true)) throw py::type_error(name + ": expected a value of another type");
                *field = py::detail::cast_op<std::decay_t<decltype(*field)>>(std::move(caster));
            },
            found->second);
    }
    require(o.map.slope > 0 && o.map.slope < 1, "slope: expected a number between 0 and 1");
    return o;
}

// Returns the map of the options, and sets in `o` the number of outputs that the map's conditioner must have.
std::shared_ptr<const TransformMap> map_of(TransformOptions& o) {
    const auto map = std::make_shared<TransformMap>(o.map);
    o.network.joint = map->is_vector();
    o.network.outputs = map->n_params(int(o.network.active.size()));
    return map;
}

std::shared_ptr<MaskedTransform> from_levels(TransformOptions options, std::vector<int> levels,
                                             std::vector<std::vector<int>> degrees) {
    const auto map = map_of(options);
    const auto masked = std::make_shared<MaskedConditioner>(options.network, std::move(levels), std::move(degrees));
    return std::make_shared<MaskedTransform>(MaskedTransform{{map, masked, options.reads_data}});
}

std::shared_ptr<MaskedTransform> from_masks(TransformOptions options, const std::vector<Array<bool>>& masks) {
    std::vector<std::vector<uint8_t>> bytes;
    std::vector<int> sizes{int(options.network.reads.size()) + options.network.context};
    for (const Array<bool>& mask : masks) {
        require(mask.ndim() == 2 && mask.shape(1) == sizes.back(), "masks: each must be (out, in), in as the last out");
        sizes.push_back(int(mask.shape(0)));
        bytes.emplace_back(mask.data(), mask.data() + mask.size());
    }
    const py::gil_scoped_release nogil;
    const auto map = map_of(options);
    const auto masked = MaskedConditioner::from_masks(options.network, bytes, sizes);
    return std::make_shared<MaskedTransform>(MaskedTransform{{map, masked, options.reads_data}});
}

// For each parameter of a map, in order: name, number of values, and the kind of raw value at which the map is the
// identity.
std::vector<std::tuple<std::string, int, std::string>> parameters_of_map(const MapInfo& map, int bins) {
    std::vector<std::tuple<std::string, int, std::string>> rows;
    for (const MapParameters& own : map.parameters(bins)) {
        const char* identity = own.identity == IdentityAt::zero       ? "zero"
                               : own.identity == IdentityAt::softplus ? "softplus"
                                                                      : "sigmoid";
        rows.emplace_back(own.name, own.count, identity);
    }
    return rows;
}

py::list masks(const MaskedTransform& t) {
    const MaskedConditioner& c = t.masked();
    py::list layers;
    for (size_t l = size_t(c.n_context_layers()); l < c.layers().size(); ++l) {
        Array<bool> mask({c.layers()[l].out, c.layers()[l].in});
        c.mask(int(l), reinterpret_cast<uint8_t*>(mask.mutable_data()));
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

// ---- steps, by keywords

template <class S>
void bind_step(py::class_<S> step) {
    std::apply(
        [&](const auto&... field) {
            step.def(py::init([field...](typename std::decay_t<decltype(field)>::Value... values) {
                         S made{};
                         ((made.*field.member = std::move(values)), ...);
                         return made;
                     }),
                     py::kw_only(), py::arg(field.keyword)...);
        },
        S::fields());
}

void bind_step(py::class_<NetworkSpec> step) {
    step.def(py::init([](bool inverted, const Transform& t) {
                 return NetworkSpec{inverted, t.reads_data, t.map, t.conditioner};
             }),
             py::kw_only(), py::arg("inverted"), py::arg("transform"));
}

void bind_step(py::class_<RotationSpec> step) {
    using Matrix = py::array_t<double, py::array::c_style | py::array::forcecast>;
    step.def(py::init([](bool inverted, const Matrix& matrix, std::vector<int> blocks, const Matrix& inverse) {
                 return RotationSpec{inverted,
                                     {matrix.data(), matrix.data() + matrix.size()},
                                     std::move(blocks),
                                     {inverse.data(), inverse.data() + inverse.size()}};
             }),
             py::kw_only(), py::arg("inverted"), py::arg("matrix"), py::arg("blocks"), py::arg("inverse") = Matrix(0));
}

void bind_step(py::class_<SupportSpec> step) {
    step.def(py::init([](bool inverted, const std::vector<std::string>& supports, std::vector<double> low,
                         std::vector<double> high) {
                 SupportSpec s{inverted, {}, std::move(low), std::move(high)};
                 for (const std::string& name : supports) s.supports.push_back(support_of(name));
                 return s;
             }),
             py::kw_only(), py::arg("inverted"), py::arg("supports"), py::arg("low"), py::arg("high"));
}

void bind_step(py::class_<MarginalSpec> step) {
    step.def(py::init([](bool inverted, const Transform& t, std::vector<double> parameters) {
                 return MarginalSpec{inverted, t.map, std::move(parameters)};
             }),
             py::kw_only(), py::arg("inverted"), py::arg("transform"), py::arg("parameters"));
}

void bind_step(py::class_<DensitySpec> step) {
    step.def(
        py::init([](const std::vector<std::string>& columns, int components, int n_raw, std::vector<double> fixed) {
            DensitySpec s{{}, components, n_raw, std::move(fixed)};
            for (const std::string& name : columns) s.columns.push_back(density_of(name));
            return s;
        }),
        py::kw_only(), py::arg("columns"), py::arg("components"), py::arg("n_raw"), py::arg("fixed"));
}

#ifdef HEADRACE_MORE_BINDINGS
}  // namespace
}  // namespace headrace
#include HEADRACE_MORE_BINDINGS
namespace headrace {
namespace {
#endif

}  // namespace

Base base_of(const std::string& name) {
    if (name == "normal") return Base::normal;
    if (name == "logistic") return Base::logistic;
    if (name == "density") return Base::density;
    require(name.empty(), "base: expected normal, logistic, density or nothing");
    return Base::none;
}

void bind_structure(py::module_& m) {
    py::class_<MapInfo>(m, "MapInfo", py::module_local())
        .def_readonly("name", &MapInfo::name)
        .def_readonly("scale", &MapInfo::scale)
        .def_readonly("meaning", &MapInfo::meaning)
        .def("parameters", &parameters_of_map, py::arg("bins"))
        .def_readonly("max_bins", &MapInfo::max_bins)
        .def_readonly("least_slope", &MapInfo::least_slope)
        .def_readonly("least_bin", &MapInfo::least_bin);
    m.def("maps", [] { return map_list(); });
    m.def("vector_maps", [] {
        std::vector<std::pair<std::string, std::string>> rows;
        for (const VectorMapInfo& map : vector_map_list()) rows.emplace_back(map.name, map.variant);
        return rows;
    });
    m.def("activations", [] { return activation_list(); });
    py::class_<HiddenOptions>(m, "HiddenOptions", py::module_local())
        .def(py::init<std::string, int, std::string, std::string, double>(), py::arg("activation"), py::arg("adds"),
             py::arg("context"), py::arg("context_activation"), py::arg("dropout"));
    py::class_<TransformOptions>(m, "MaskedOptions", py::module_local()).def(py::init(&make_options));
    py::class_<Transform, std::shared_ptr<Transform>> transform(m, "Transform", py::module_local());
    bind_tensors(transform, [](const Transform& t) -> const WeightLayout& { return *t.conditioner; });
    py::class_<MaskedTransform, Transform, std::shared_ptr<MaskedTransform>>(m, "MaskedTransform", py::module_local())
        .def(py::init(&from_levels), py::arg("options"), py::arg("levels"), py::arg("degrees"))
        .def_static("from_masks", &from_masks, py::arg("options"), py::arg("masks"))
        .def("masks", &masks)
        .def_property_readonly("hidden", [](const MaskedTransform& t) {
            const MaskedConditioner& c = t.masked();
            std::vector<int> sizes;
            for (size_t l = size_t(c.n_context_layers()); l + 1 < c.layers().size(); ++l)
                sizes.push_back(c.layers()[l].out);
            return sizes;
        });
#ifdef HEADRACE_MORE_BINDINGS
    bind_more(m);
#endif
#define HR_BIND(name, type) bind_step(py::class_<type>(m, #name, py::module_local()));
    HR_SPECS(HR_BIND)
#undef HR_BIND
}

}  // namespace headrace
