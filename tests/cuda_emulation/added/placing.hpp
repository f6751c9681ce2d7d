// Takes the conditioner `echo` and the step `bend` to a device.
#pragma once

#include "../../../cuda/host/placing_site.hpp"

namespace headrace {

template <class T>
void place_conditioner(PlacingSite<T>& site, DeviceStep<T>& d, Echo<T>& c, const Conditioner&, int64_t) {
    const NetworkStep<T>& s = d.step.network;
    const int n = positions(c, s.map.n);
    d.values = site.lines(tape_lines(c, n));
    d.grads = site.lines(tape_lines(c, n));
    d.outputs = parameters(c, 0, true);
    site.bare_weights(d.grads + echo_gradients(c, n), s.weights, echo_weights(c));
    site.chain.has_products = true;
    site.chain.units = std::max(site.chain.units, state_lines(c) + scratch_lines(c, span_of(s, n)));
}

template <class T>
void place_step(PlacingSite<T>& site, BendStep<T>& s) {
    s.strength = site.arena.put(s.strength, size_t(site.chain.chain.features));
}

}  // namespace headrace
