// A map of each coordinate with parameters that all rows share, on the lines of a tile, in place.
#pragma once

#include "../core/views.hpp"
#include "../math/log_product.hpp"
#include "../math/maps.hpp"

namespace headrace {
namespace {

template <class Map, bool inverse, int B, class T>
HR_FN void elementwise_block(const MapOptions<T>& options, const T* ready, int n_ready, int features, T* lines,
                             int64_t height, T* log_det) {
    using V = Pack<T>;
    constexpr int W = width<T>;
    LogProduct<V> product[B];
    for (int c = 0; c < features; ++c, ready += n_ready) {
        for (int j = 0; j < B; ++j) {
            T* place = lines + c * height + j * W;
            V factor;
            if constexpr (inverse) {
                store(place, Map::ready_inverse(load(place), ready, options, factor));
            } else {
                store(place, Map::ready_forward(load(place), ready, options, factor));
            }
            product[j].mantissa *= factor;
        }
        if (c % Map::ready_factors == Map::ready_factors - 1)
            for (int j = 0; j < B; ++j) product[j].rescale();
    }
    for (int j = 0; j < B; ++j) {
        product[j].rescale();
        const V total = product[j].log();
        store(log_det + j * W, load(log_det + j * W) + (inverse ? -total : total));
    }
}

template <class T>
HR_FN void elementwise_tile(const MaskedStep<T>& s, const T* ready, int n_ready, int features, T* lines, int64_t height,
                            int vectors, T* log_det) {
    with_map(s.map, [&]<class Map>() {
        if constexpr (requires { Map::ready_factors; }) {
            const auto run = [&]<bool inverse>() {
                int v = 0;
                for (; v + 2 <= vectors; v += 2)
                    elementwise_block<Map, inverse, 2>(s.options, ready, n_ready, features, lines + v * width<T>,
                                                       height, log_det + v * width<T>);
                for (; v < vectors; ++v)
                    elementwise_block<Map, inverse, 1>(s.options, ready, n_ready, features, lines + v * width<T>,
                                                       height, log_det + v * width<T>);
            };
            if (s.map_inverse) {
                run.template operator()<true>();
            } else {
                run.template operator()<false>();
            }
        }
    });
}

}  // namespace
}  // namespace headrace
