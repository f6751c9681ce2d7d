// Runs in float32. Calls would spill 300 bytes of the registers that two tiles on a multiprocessor leave.
#define HR_INLINE_FLOAT64
#include "chain_launch.cuh"

namespace headrace {

template void launch_chain(const DeviceChain<float>&, const Call<float>&, const Place&, cudaStream_t);

}  // namespace headrace
