// The kernel that runs rows forward and backward in float64, which is used for checks.
#define HR_NARROW_TILES true
#define HR_SMALL_CODE
#include "gradient.cuh"

namespace headrace {

template void launch_gradient(const DeviceChain<double>&, const SumTasks<double>&, const Call<double>&,
                              const Back<double>&, const uint8_t*, size_t, cudaStream_t);

}  // namespace headrace
