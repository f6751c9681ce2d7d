// The kernel of runs in float64, which is used for checks.
#define HR_SMALL_CODE
#include "chain_launch.cuh"

namespace headrace {

template void launch_chain(const DeviceChain<double>&, const Call<double>&, const Place&, cudaStream_t);

}  // namespace headrace
