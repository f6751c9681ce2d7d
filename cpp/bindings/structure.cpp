// Maps, masked transforms and steps for Python: what programs are made of, on every device.
#include "structure.hpp"

#include <map>

#include "bindings.hpp"
#include "initialised.hpp"

HR_REFUSE_UNINITIALISED(headrace::MaskedOptions);
HR_REFUSE_UNINITIALISED(headrace::MaskedTransform);

namespace headrace {
namespace {

MaskedOptions make_options(int features, int context, std::vector<int> reads, std::vector<int> active, std::string map,
                           std::string variant, double slope, int bins, double bound, std::string activation,
                           bool reads_data, bool formula_to_data) {
    require(slope > 0 && slope < 1, "slope: expected a number between 0 and 1");
    require(bound > 0 && bound < 1e30, "bound: expected a number above 0");
    require(is_slope_of(map, slope), "slope: below the least of this map");
    MaskedOptions o;
    o.features = features;
    o.context = context;
    o.reads = std::move(reads);
    o.active = std::move(active);
    o.map = std::move(map);
    o.variant = std::move(variant);
    o.slope = slope;
    o.bins = bins;
    o.bound = bound;
    o.activation = std::move(activation);
    o.reads_data = reads_data;
    o.formula_to_data = formula_to_data;
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
    for (size_t l = 0; l < t.layers().size(); ++l) {
        Array<bool> mask({t.layers()[l].out, t.layers()[l].in});
        t.mask(int(l), reinterpret_cast<uint8_t*>(mask.mutable_data()));
        layers.append(mask);
    }
    return layers;
}

}  // namespace

Base base_of(const std::string& name) {
    if (name == "normal") return Base::normal;
    if (name == "logistic") return Base::logistic;
    require(name.empty(), "base: expected normal, logistic or nothing");
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
    m.def("vector_maps", [] {
        std::vector<std::pair<std::string, std::string>> rows;
        for (const VectorMapInfo& map : vector_map_list()) rows.emplace_back(map.name, map.variant);
        return rows;
    });
    m.def("activations", [] { return activation_list(); });
    py::class_<MaskedOptions>(m, "MaskedOptions", py::module_local())
        .def(py::init(&make_options), py::kw_only(), py::arg("features"), py::arg("context"), py::arg("reads"),
             py::arg("active"), py::arg("map"), py::arg("variant"), py::arg("slope"), py::arg("bins"), py::arg("bound"),
             py::arg("activation"), py::arg("reads_data"), py::arg("formula_to_data"));
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
            for (size_t l = 0; l + 1 < t.layers().size(); ++l) sizes.push_back(t.layers()[l].out);
            return sizes;
        });
}

}  // namespace headrace
