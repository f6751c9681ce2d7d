// The lists of maps, vector maps and activations by name, with the allowed values of their settings.
#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "../math/maps/options.hpp"

namespace headrace {

// The maps and activations compiled in, in the order of their indices.
struct MapInfo {
    std::string name, scale;
    const char* meaning;
    int (*n_params)(int bins);
    std::vector<MapParameters> (*parameters)(int bins);
    int max_bins;        // 0: without bins
    double least_slope;  // 0: every slope above 0
    double least_bin;    // 0: its bins have no least share of the interval, which is symmetric then
    Ends ends;           // of a spline
    Tails tails;

    bool has_bins() const { return max_bins > 0; }
};
constexpr int least_bins = 2;
const std::vector<MapInfo>& map_list();
const std::vector<std::string>& activation_list();
int find_activation(const std::string& name);
int find_map(const std::string& name, const std::string& scale);
// The settings of a map, in the dtype of a transform; of a vector map, any index.
template <class T>
MapOptions<T> map_options(int map, double slope, int bins, double low, double bound, double min_bin) {
    const MapInfo& m = map_list()[size_t(map)];
    return {T(slope), T(1 / std::log(1 / slope)), bins, T(bound), T(low), T(min_bin), m.ends, m.tails};
}
int n_params_of(int map, int bins);                      // maps without bins get some too, which have no effect
bool is_slope_of(const std::string& map, double slope);  // also of a vector map
// Whether a map may have this interval, and this number of bins of at least that share of it; also of a vector map.
bool is_interval_of(const std::string& map, double low, double high);
bool is_min_bin_of(const std::string& map, double min_bin, int bins);

constexpr int max_vector_features = 1 << 24;  // far beyond use, and far from overflow

struct VectorMapInfo {
    std::string name, variant;
    int (*n_raw)(int features);
};
const std::vector<VectorMapInfo>& vector_map_list();
int find_vector_map(const std::string& name, const std::string& variant);  // -1 if there is none

// A transform's choices for a map of either list.
struct MapSettings {
    std::string name, variant;  // variant: of affine, its scale
    double slope = 1e-3;
    int bins = 8;
    double bound = 5, min_bin = 1e-3;
    std::optional<double> low;    // empty: -bound
    bool formula_to_data = true;  // the map's forward direction gives x, or z
};

// A map with checked settings: the message of std::invalid_argument names the setting that does not fit.
class TransformMap {
  public:
    explicit TransformMap(MapSettings settings);

    const MapSettings& settings() const { return settings_; }
    int index() const { return index_; }                // of a map of single coordinates; unused for a vector map
    int vector_index() const { return vector_index_; }  // -1: it is no vector map
    bool is_vector() const { return vector_index_ >= 0; }
    // Raw parameters of each coordinate, or, of a vector map, of all these together.
    int n_params(int coordinates) const;
    template <class T>
    MapOptions<T> options() const {
        const MapSettings& s = settings_;
        return map_options<T>(index_, s.slope, s.bins, s.low.value_or(-s.bound), s.bound, s.min_bin);
    }

  private:
    MapSettings settings_;
    int index_ = 0, vector_index_;
};

}  // namespace headrace
