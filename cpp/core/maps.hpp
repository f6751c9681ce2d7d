// The lists of maps, vector maps and activations by name, with the allowed values of their settings.
#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "../math/maps/options.hpp"

namespace headrace {

// A map of the compiled list; maps and activations are in the order of their indices.
struct MapInfo {
    std::string name, scale;
    const char* meaning;
    int (*n_params)(int bins);
    std::vector<MapParameters> (*parameters)(int bins);
    int max_bins;        // largest number of bins; 0: the map has no bins
    double least_slope;  // least option `slope`; 0: every slope above 0
    double least_bin;    // least option `min_bin`; 0: bins have no least share, and the interval is symmetric
    Ends ends;           // ends and tails of a spline
    Tails tails;

    bool has_bins() const { return max_bins > 0; }
};
constexpr int least_bins = 2;
const std::vector<MapInfo>& map_list();
const std::vector<std::string>& activation_list();
int find_activation(const std::string& name);
int find_map(const std::string& name, const std::string& scale);
// The settings of a map, in the dtype of a transform. For a vector map the index `map` has no effect.
template <class T>
MapOptions<T> map_options(int map, double slope, int bins, double low, double bound, double min_bin) {
    const MapInfo& m = map_list()[size_t(map)];
    return {T(slope), T(1 / std::log(1 / slope)), bins, T(bound), T(low), T(min_bin), m.ends, m.tails};
}
int n_params_of(int map, int bins);                      // `bins` has no effect for a map without bins
bool is_slope_of(const std::string& map, double slope);  // whether a map or a vector map may have this slope
// Whether a map or a vector map may have the interval [low, high], and `bins` bins that each take at least the share
// `min_bin`.
bool is_interval_of(const std::string& map, double low, double high);
bool is_min_bin_of(const std::string& map, double min_bin, int bins);

constexpr int max_vector_features = 1 << 24;  // limit far beyond use, and small enough that sizes cannot overflow

struct VectorMapInfo {
    std::string name, variant;
    int (*n_raw)(int features);
};
const std::vector<VectorMapInfo>& vector_map_list();
int find_vector_map(const std::string& name, const std::string& variant);  // -1 if there is no such vector map

// The settings of a transform's map, which is a map of one coordinate or a vector map.
struct MapSettings {
    std::string name, variant;  // for `affine`, the variant is the scale function
    double slope = 1e-3;
    int bins = 8;
    double bound = 5, min_bin = 1e-3;
    std::optional<double> low;    // lower end of the interval; empty: -bound
    bool formula_to_data = true;  // true: the formula of the map gives x from z; false: z from x
};

// A map with checked settings. The constructor throws std::invalid_argument, whose message names the wrong setting.
class TransformMap {
  public:
    explicit TransformMap(MapSettings settings);

    const MapSettings& settings() const { return settings_; }
    int index() const { return index_; }                // index of a map of single coordinates; unused for a vector map
    int vector_index() const { return vector_index_; }  // index of a vector map; -1: the map is of single coordinates
    bool is_vector() const { return vector_index_ >= 0; }
    // The number of raw parameters: of each coordinate, or, for a vector map, of `coordinates` together.
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
