// Calls of the C library, and of headrace.hpp, in a loop, with the seconds of their thread for each call.
#include <headrace.h>

#include "headrace.hpp"
#include "timed.hpp"

extern "C" {

void* open_library(const char* path) {
    headrace_flow* flow = nullptr;
    headrace_set_num_threads(1);
    return headrace_open(path, &flow) == HEADRACE_OK ? flow : nullptr;
}
double time_library(const void* flow, bool samples, long rows, long count, float* x, float* out) {
    const auto* const own = static_cast<const headrace_flow*>(flow);
    const int64_t n = headrace_features(own);
    const headrace_input in = headrace_rows_f32(x, rows, n);
    const headrace_output to = headrace_into_f32(out, rows, samples ? n : 1);
    return timed(count, [&] {
        return (samples ? headrace_sample(own, 1, HEADRACE_FROM_START, nullptr, &to, nullptr)
                        : headrace_log_prob(own, &in, nullptr, &to)) == HEADRACE_OK;
    });
}
void close_library(void* flow) {
    headrace_close(static_cast<headrace_flow*>(flow));
}

void* open_header(const char* path) {
    return new headrace::Flow<float>(headrace::Flow<float>::load(path));
}
double time_header(const void* flow, bool samples, long rows, long count, float* x, float* out) {
    const auto& own = *static_cast<const headrace::Flow<float>*>(flow);
    return timed(count, [&] {
        if (samples) {
            own.sample(static_cast<std::size_t>(rows), 1, out);
        } else {
            own.log_prob(x, static_cast<std::size_t>(rows), out);
        }
        return true;
    });
}
void close_header(void* flow) {
    delete static_cast<headrace::Flow<float>*>(flow);
}

// One stream of sequences: a push reads the steps x and writes their log densities to out; a pull writes steps to x.
void* open_stream_library(const char* path) {
    headrace_flow* flow = nullptr;
    headrace_stream* stream = nullptr;
    headrace_set_num_threads(1);
    if (headrace_open(path, &flow) == HEADRACE_OK) headrace_stream_open(flow, 1, nullptr, &stream);
    headrace_close(flow);
    return stream;
}
double time_stream_library(void* stream, bool pulls, long steps, long count, float* x, float* out) {
    auto* const own = static_cast<headrace_stream*>(stream);
    const headrace_input in = headrace_rows_f32(x, steps, 1);
    const headrace_output drawn = headrace_into_f32(x, steps, 1), scores = headrace_into_f32(out, steps, 1);
    return timed(count, [&] {
        return (pulls ? headrace_stream_pull(own, 1, &drawn) : headrace_stream_push(own, &in, &scores, nullptr)) ==
               HEADRACE_OK;
    });
}
void close_stream_library(void* stream) {
    headrace_stream_close(static_cast<headrace_stream*>(stream));
}

void* open_stream_header(const char* path) {
    return new headrace::Stream<float>(headrace::SequenceFlow<float>::load(path).stream());
}
double time_stream_header(void* stream, bool pulls, long steps, long count, float* x, float* out) {
    auto& own = *static_cast<headrace::Stream<float>*>(stream);
    return timed(count, [&] {
        if (pulls) {
            own.pull(static_cast<std::size_t>(steps), 1, x);
        } else {
            own.push(x, static_cast<std::size_t>(steps), out);
        }
        return true;
    });
}
void close_stream_header(void* stream) {
    delete static_cast<headrace::Stream<float>*>(stream);
}
}
