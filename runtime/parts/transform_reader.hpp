// THE list of the kinds of transforms in files, and the reading of one of them.
#pragma once

#include "descriptions.hpp"

namespace headrace {
namespace detail {

template <class T>
TransformDescription<T> read_transform(Stored& stored) {
    enum {
        masked,
        coupling,
        elementwise,
        linear,
        act_norm,
        planar,
        radial,
        rotation,
        permutation,
        standardize,
        support,
        gaussianize,
        on_columns
    };
    const int kind = stored.choice(
        "kind", {"MaskedAutoregressive", "Coupling", "Elementwise", "Linear", "ActNorm", "Planar", "Radial", "Rotation",
                 "Permutation", "Standardize", "Support", "Gaussianize", "OnColumns", "Inverse"});
    TransformDescription<T> d;
    d.place = stored.place();
    const auto read_inner = [&] {
        Stored inner = stored.part(stored.take("transform"), "transform");
        return read_transform<T>(inner);
    };
    if (kind <= on_columns) d.features = stored.size("features", 1);
    if (kind == masked || kind == coupling || kind == planar || kind == radial) d.context = stored.size("context");
    const std::size_t n = static_cast<std::size_t>(d.features);
    switch (kind) {
        case masked:
        case coupling: d.kind = MaskedReader<T>(stored, d.features, d.context, kind == coupling).read(); break;
        case elementwise: {
            ElementwiseDescription<T> own;
            own.map = MapSettings(stored);
            own.map.formula_to_data = is_formula_to_data(stored);
            own.params = params_by_coordinate<T>(own.map, n, [&](const std::string& name, std::uint64_t size) {
                return stored.template array<T>(name, {n, size});
            });
            d.kind = std::move(own);
            break;
        }
        case linear: d.kind = read_linear<T>(stored, d.features); break;
        case act_norm: {
            stored.truth("started");  // has an effect only in fits
            ActNormDescription<T> own;
            own.shift = stored.template array<T>("shift", {n});
            own.log_scale = stored.template array<T>("log_scale", {n});
            d.kind = std::move(own);
            break;
        }
        case planar:
        case radial: d.kind = read_vector<T>(stored, d.features, d.context, kind == planar); break;
        case rotation: d.kind = RotationReader(stored, d.features).read(); break;
        case permutation: d.kind = PermutationDescription{stored.permutation("order", d.features)}; break;
        case standardize: {
            StandardizeDescription own;
            own.mean = stored.numbers("mean", n);
            own.std = stored.numbers("std", n, true);
            d.kind = std::move(own);
            break;
        }
        case support: d.kind = read_support(stored, d.features); break;
        case gaussianize: d.kind = read_gaussianize<T>(stored, d.features); break;
        case on_columns: {
            std::vector<int> columns = stored.integers("columns", 0, d.features - 1);
            TransformDescription<T> inner = read_inner();
            d.context = inner.context;
            d.kind = checked_columns<T>(stored, d.features, std::move(columns), std::move(inner));
            break;
        }
        default: {
            TransformDescription<T> inner = read_inner();
            d.features = inner.features;
            d.context = inner.context;
            d.kind = InverseDescription<T>{std::make_unique<TransformDescription<T>>(std::move(inner))};
        }
    }
    stored.close();
    return d;
}

}  // namespace detail
}  // namespace headrace
