#include "maps.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "../math/activations.hpp"
#include "../math/maps.hpp"
#include "../math/vector_maps.hpp"

namespace headrace {
namespace {

template <class Map>
std::vector<MapParameters> parameters_of(int bins) {
    const auto own = Map::parameters(bins);
    return {own.begin(), own.end()};
}

}  // namespace

const std::vector<MapInfo>& map_list() {
    static const std::vector<MapInfo> maps = {
#define HR_ROW(index, type, name, scale) \
    {name,                               \
     scale,                              \
     type::meaning,                      \
     &type::n_params,                    \
     &parameters_of<type>,               \
     max_bins_of<type>(),                \
     least_slope_of<type>(),             \
     least_bin_of<type>(),               \
     ends_of<type>(),                    \
     tails_of<type>()},
        HR_MAPS(HR_ROW)
#undef HR_ROW
    };
    return maps;
}

const std::vector<VectorMapInfo>& vector_map_list() {
    static const std::vector<VectorMapInfo> maps = {
#define HR_ROW(index, type, name, variant) {name, variant, &type::n_raw},
        HR_VECTOR_MAPS(HR_ROW)
#undef HR_ROW
    };
    return maps;
}

const std::vector<std::string>& activation_list() {
    static const std::vector<std::string> activations = {
#define HR_ROW(index, type, name) name,
        HR_ACTIVATIONS(HR_ROW)
#undef HR_ROW
    };
    return activations;
}

int find_map(const std::string& name, const std::string& scale) {
    const auto& maps = map_list();
    for (size_t i = 0; i < maps.size(); ++i)
        if (maps[i].name == name && (maps[i].scale.empty() || maps[i].scale == scale)) return int(i);
    throw std::invalid_argument("map: there is no map '" + name + "' with scale '" + scale + "'");
}

int n_params_of(int map, int bins) {
    const MapInfo& m = map_list()[size_t(map)];
    if (bins < least_bins) throw std::invalid_argument("bins: expected at least " + std::to_string(least_bins));
    if (m.has_bins() && bins > m.max_bins)
        throw std::invalid_argument("bins: expected at most " + std::to_string(m.max_bins) + " for this map");
    return m.n_params(bins);
}

bool is_slope_of(const std::string& map, double slope) {
    const auto& maps = map_list();
    return slope > 0 && slope < 1 &&
           std::all_of(
               maps.begin(), maps.end(), [&](const MapInfo& m) { return m.name != map || slope >= m.least_slope; });
}

bool is_interval_of(const std::string& map, double low, double high) {
    const auto& maps = map_list();
    return -1e30 < low && low < high && high < 1e30 &&
           std::all_of(
               maps.begin(), maps.end(),
               [&](const MapInfo& m) { return m.name != map || low == -high || m.least_bin > 0; });
}

bool is_min_bin_of(const std::string& map, double min_bin, int bins) {
    const auto& maps = map_list();
    return std::all_of(maps.begin(), maps.end(), [&](const MapInfo& m) {
        return m.name != map || m.least_bin == 0 || (min_bin >= m.least_bin && min_bin * bins < 1);
    });
}

int find_vector_map(const std::string& name, const std::string& variant) {
    const auto& maps = vector_map_list();
    const auto found = std::find_if(maps.begin(), maps.end(), [&](const VectorMapInfo& map) {
        return map.name == name && (map.variant.empty() || map.variant == variant);
    });
    return found == maps.end() ? -1 : int(found - maps.begin());
}

int find_activation(const std::string& name) {
    const auto& activations = activation_list();
    const auto found = std::find(activations.begin(), activations.end(), name);
    if (found == activations.end()) throw std::invalid_argument("activation: there is none called " + name);
    return int(found - activations.begin());
}

TransformMap::TransformMap(MapSettings settings) : settings_(std::move(settings)) {
    const MapSettings& s = settings_;
    const auto require = [](bool is_met, const char* message) {
        if (!is_met) throw std::invalid_argument(message);
    };
    require(s.slope > 0 && s.slope < 1, "slope: expected a number between 0 and 1");
    require(is_slope_of(s.name, s.slope), "slope: below the least of this map");
    require(is_interval_of(s.name, s.low.value_or(-s.bound), s.bound), "bound, low: this map has no such interval");
    require(is_min_bin_of(s.name, s.min_bin, s.bins), "min_bin: too small for this map, or too large for so many bins");
    vector_index_ = find_vector_map(s.name, s.variant);
    if (is_vector()) return;
    index_ = find_map(s.name, s.variant);
    n_params_of(index_, s.bins);
}

int TransformMap::n_params(int coordinates) const {
    return is_vector() ? vector_map_list()[size_t(vector_index_)].n_raw(coordinates)
                       : n_params_of(index_, settings_.bins);
}

}  // namespace headrace
