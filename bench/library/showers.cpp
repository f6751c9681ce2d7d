// Samples of the C library, one for each row of contexts, in a loop, with the seconds of their thread.
#include <headrace.h>

#include "timed.hpp"

extern "C" {

void* open_showers(const char* path) {
    headrace_flow* flow = nullptr;
    headrace_set_num_threads(1);
    return headrace_open(path, &flow) == HEADRACE_OK ? flow : nullptr;
}
double time_showers(const void* flow, bool, long rows, long count, float* contexts, float* out) {
    const auto* const own = static_cast<const headrace_flow*>(flow);
    const headrace_input given = headrace_rows_f32(contexts, rows, headrace_context(own));
    const headrace_output to = headrace_into_f32(out, rows, headrace_features(own));
    return timed(count,
                 [&] { return headrace_sample(own, 1, HEADRACE_FROM_START, &given, &to, nullptr) == HEADRACE_OK; });
}
void close_showers(void* flow) {
    headrace_close(static_cast<headrace_flow*>(flow));
}
}
