#include "specs.hpp"

#include "blocks.hpp"
#include "shared_maps.hpp"

namespace headrace {

bool NetworkSpec::fits(int features, int context) const {
    if (!conditioner || !map) return false;
    const Conditioner& c = *conditioner;
    return c.fits(features) && (c.context() == 0 || c.context() == context) && c.is_joint() == map->is_vector() &&
           c.outputs() == map->n_params(int(c.active_order(features).size()));
}

bool PermutationSpec::fits(int features, int) const {
    std::vector<bool> seen(size_t(features), false);
    for (int c : order) {
        if (c < 0 || c >= features || seen[size_t(c)]) return false;
        seen[size_t(c)] = true;
    }
    return order.size() == seen.size();
}

bool RotationSpec::fits(int features, int) const {
    return blocks_fit(blocks, size_t(features), matrix.size()) && (inverse.empty() || inverse.size() == matrix.size());
}

bool StandardizeSpec::fits(int features, int) const {
    return mean.size() == size_t(features) && std.size() == size_t(features);
}

bool SupportSpec::fits(int features, int) const {
    const size_t n = size_t(features);
    return supports.size() == n && low.size() == n && high.size() == n;
}

bool MarginalSpec::fits(int features, int) const {
    return map && has_ready_derivative(*map) && parameters.size() == size_t(features) * size_t(map->n_params(features));
}

bool DensitySpec::fits(int features, int) const {
    int n = 0;
    for (const ColumnDensity column : columns) n += column == ColumnDensity::student;
    if (components > 0) n = components * (1 + 2 * features);
    const bool has_all = components > 0 ? columns.empty() : columns.size() == size_t(features);
    return has_all && components >= 0 && n_raw == n && (fixed.empty() || int(fixed.size()) == n);
}

std::vector<WeightRange> DensitySpec::parts() const {
    if (!trains()) return {};
    return {{0, n_weights(), true}};
}

}  // namespace headrace
