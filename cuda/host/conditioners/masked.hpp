// Copies a masked network to a device.
#pragma once

#include "../placing_site.hpp"

namespace headrace {

template <class T>
void place_conditioner(PlacingSite<T>& site, PlacedStep<NetworkStep<T>>& d, MaskedNetwork<T>& c,
                       const Conditioner& host, int64_t inputs);

}  // namespace headrace
