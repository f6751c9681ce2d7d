// The kernel that runs rows forward and backward in float32.
#define HR_NARROW_TILES true
#define HR_SMALL_CODE
#include "gradient.cuh"

namespace headrace {

template void launch_gradient(const DeviceChain<float>&, const SumTasks<float>&, const Call<float>&, const Back<float>&,
                              const uint8_t*, size_t, cudaStream_t);

}  // namespace headrace
