// The order in which a masked network is computed while the coordinates that it reads are being built. The degree of a
// unit is the highest level of the coordinates that it reads, and the level of a coordinate is above the degrees of its
// parameters.
#pragma once

#include "network.hpp"

namespace headrace {
namespace detail {

class Plan {
  public:
    struct Step {
        int degree;         // a coordinate follows the units whose degree is just below its level
        int layer;          // -1: the step is a coordinate
        std::size_t index;  // index of the unit in its layer, or of the coordinate
    };

    // The plan of a network. `in_file` is the transform's place in the file, for messages, and `place` has the row of
    // the last layer for each parameter, coordinate by coordinate.
    template <class T>
    Plan(const std::string& in_file, const Network<T>& network, const std::vector<std::size_t>& place,
         std::size_t n_params) {
        const std::vector<Layer<T>>& layers = network.layers();
        const std::size_t n = place.size() / n_params;
        std::vector<std::size_t> coordinate(place.size());
        for (std::size_t i = 0; i < place.size(); ++i) coordinate[place[i]] = i / n_params;
        std::vector<Graph> graphs;
        for (std::size_t l = 0; l < layers.size(); ++l) graphs.emplace_back(layers[l], l ? layers[l - 1].units() : n);
        std::vector<std::vector<std::size_t>> added_by(layers.size());  // for each layer, units of the layer that adds
                                                                        // its sums
        std::vector<int> adds_to(layers.size(), -1);
        for (std::size_t l = 0; l < layers.size(); ++l) {
            if (layers[l].adds < 0) continue;
            adds_to[static_cast<std::size_t>(layers[l].adds)] = static_cast<int>(l);
            for (std::size_t& count : graphs[l].open) ++count;
        }
        std::vector<std::size_t> open(n, n_params);
        std::vector<int> level(n, 1);

        std::vector<Step> ready;  // steps whose degree is known, and whose followers have not been visited
        const auto settle = [&](std::size_t l, std::size_t u, int degree) {
            Graph& graph = graphs[l];
            graph.degree[u] = std::max(graph.degree[u], degree);
            if (--graph.open[u] == 0) ready.push_back({graph.degree[u], static_cast<int>(l), u});
        };
        for (std::size_t l = 0; l < layers.size(); ++l)
            for (std::size_t u = 0; u < layers[l].units(); ++u)
                if (graphs[l].open[u] == 0) ready.push_back({0, static_cast<int>(l), u});
        std::size_t settled = 0;
        while (!ready.empty()) {
            const Step step = ready.back();
            ready.pop_back();
            steps_.push_back(step);
            const std::size_t l = step.layer < 0 ? 0 : static_cast<std::size_t>(step.layer) + 1;
            if (step.layer >= 0 && l == layers.size()) {  // a parameter of a coordinate
                const std::size_t c = coordinate[step.index];
                level[c] = std::max(level[c], step.degree + 1);
                if (--open[c] == 0) ready.push_back({level[c], -1, c});
                continue;
            }
            if (step.layer < 0) ++settled;
            for (std::size_t i = graphs[l].first[step.index]; i < graphs[l].first[step.index + 1]; ++i)
                settle(l, graphs[l].row[i], step.degree);
            if (step.layer >= 0 && adds_to[l - 1] >= 0)
                settle(static_cast<std::size_t>(adds_to[l - 1]), step.index, step.degree);
        }
        if (settled < n) refuse_at(in_file, "masks: expected no coordinate that depends on itself");
        // Steps are in the order of levels: coordinates of a level, then, layer by layer, units that read no higher
        // level.
        std::sort(steps_.begin(), steps_.end(), [](const Step& a, const Step& b) {
            if (a.degree != b.degree) return a.degree < b.degree;
            return a.layer != b.layer ? a.layer < b.layer : a.index < b.index;
        });
    }

    const std::vector<Step>& steps() const { return steps_; }

  private:
    // The rows that read each column of a layer, and the number of columns of each row that are not computed yet.
    struct Graph {
        std::vector<std::size_t> first, open;
        std::vector<std::uint32_t> row;
        std::vector<int> degree;

        template <class T>
        Graph(const Layer<T>& layer, std::size_t columns) : first(columns + 1, 0), open(layer.units(), 0) {
            degree.assign(layer.units(), 0);
            for (const std::uint32_t c : layer.column)
                if (c < columns) ++first[c + 1];  // columns of the context are left out
            for (std::size_t c = 0; c < columns; ++c) first[c + 1] += first[c];
            row.resize(first[columns]);
            std::vector<std::size_t> next(first.begin(), first.end() - 1);
            for (std::size_t u = 0; u < layer.units(); ++u)
                for (std::size_t i = layer.first[u]; i < layer.first[u + 1]; ++i) {
                    const std::uint32_t c = layer.column[i];
                    if (c >= columns) continue;
                    row[next[c]++] = static_cast<std::uint32_t>(u);
                    ++open[u];
                }
        }
    };

    std::vector<Step> steps_;
};

}  // namespace detail
}  // namespace headrace
