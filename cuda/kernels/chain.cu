// Runs in float32.
#include "chain_launch.cuh"

namespace headrace {

template void launch_chain(const DeviceChain<float>&, const Call<float>&, const Place&, cudaStream_t);

}  // namespace headrace
