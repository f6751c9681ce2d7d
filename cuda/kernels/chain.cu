// The kernel of runs in float32, without function calls, which would spill 300 bytes of registers where two tiles are
// on a multiprocessor.
#define HR_INLINE_FLOAT64
#include "chain_launch.cuh"

namespace headrace {

template void launch_chain(const DeviceChain<float>&, const Call<float>&, const Place&, cudaStream_t);

}  // namespace headrace
