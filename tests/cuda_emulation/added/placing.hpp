// Places the conditioner `echo` on a device.
#pragma once

#include "../../../cuda/host/placing_site.hpp"

namespace headrace {

template <class T>
void place_conditioner(PlacingSite<T>& site, PlacedStep<NetworkStep<T>>& d, Echo<T>& c, const Conditioner&, int64_t) {
    NetworkStep<T>& s = d.step;
    const int n = positions(c, s.map.n);
    s.tape = site.lines(tape_lines(c, n));
    d.part.grads = site.lines(tape_lines(c, n));
    site.bare_weights(d.part.grads + echo_gradients(c, n), s.weights, echo_weights(c));
    site.chain.units = std::max(site.chain.units, state_lines(c) + scratch_lines(c, span_of(s, n)));
}

}  // namespace headrace
