// Readers and writers of one block of device memory, on any streams: a reader waits on its stream for the last writer,
// a writer for all readers since. The host never waits.
//
//     {
//         const StreamOrder::Writing writing(order, stream);
//         ...  // queue on the stream; work queued so far counts, also if this ends by an exception
//     }
#pragma once

#include <map>
#include <thread>
#include <utility>

#include "../include/memory.cuh"

namespace headrace {

// A call that is recorded in a CUDA graph would be ordered once, while it is recorded, and never when the graph runs: a
// graph cannot wait for the events of uses outside of it.
inline void refuse_capture(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const cudaError_t error = cudaStreamIsCapturing(stream, &status);
    const bool by_another = error == cudaErrorStreamCaptureImplicit;  // of the default stream
    if (by_another) {
        cudaGetLastError();
    } else {
        check_cuda(error, "stream");
    }
    if (by_another || status != cudaStreamCaptureStatusNone)
        throw CudaError(
            "stream: expected one that no CUDA graph is captured from, got one that is being captured; "
            "call headrace before or after the capture");
}

class StreamOrder {
  public:
    StreamOrder() = default;
    StreamOrder(const StreamOrder&) = delete;
    StreamOrder& operator=(const StreamOrder&) = delete;
    ~StreamOrder() {
        for (const auto& [user, use] : uses_) cudaEventDestroy(use.event);
    }

    class Reading {
      public:
        Reading(StreamOrder& order, cudaStream_t stream) : order_(order), stream_(stream) {
            refuse_capture(stream);
            order.wait_for_writer(stream);
        }
        Reading(const Reading&) = delete;
        Reading& operator=(const Reading&) = delete;
        ~Reading() { order_.record(stream_, false); }

      private:
        StreamOrder& order_;
        cudaStream_t stream_;
    };

    class Writing {
      public:
        Writing(StreamOrder& order, cudaStream_t stream) : order_(order), stream_(stream) {
            refuse_capture(stream);
            order.wait_for_all(stream);
        }
        Writing(const Writing&) = delete;
        Writing& operator=(const Writing&) = delete;
        ~Writing() { order_.record(stream_, true); }

      private:
        StreamOrder& order_;
        cudaStream_t stream_;
    };

    // Work queued on `stream` from now on follows every use so far.
    void wait_for_all(cudaStream_t stream) const {
        for (const auto& [user, use] : uses_) wait(stream, use);
    }

  private:
    // A stream; for handles that mean another stream in each thread, with the thread.
    using User = std::pair<cudaStream_t, std::thread::id>;
    struct Use {
        cudaEvent_t event;
        bool wrote;  // last of all
    };

    static User user_of(cudaStream_t stream) {
        return {stream, stream == cudaStreamPerThread ? std::this_thread::get_id() : std::thread::id()};
    }
    // Also for uses by the same handle: a destroyed stream may have left its handle to another.
    static void wait(cudaStream_t stream, const Use& use) {
        check_cuda(cudaStreamWaitEvent(stream, use.event, 0), "wait for a stream");
    }
    void wait_for_writer(cudaStream_t stream) const {
        for (const auto& [user, use] : uses_)
            if (use.wrote) wait(stream, use);
    }
    // All earlier work of the user is waited for here, so that its one event represents all.
    void record(cudaStream_t stream, bool wrote) noexcept {
        try {
            const User user = user_of(stream);
            const auto found = uses_.find(user);
            bool was_writer = false;
            if (found == uses_.end()) {
                cudaEvent_t event;
                check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
                uses_.emplace(user, Use{event, false});
            } else {
                wait(stream, found->second);
                was_writer = found->second.wrote;
            }
            Use& use = uses_.at(user);
            check_cuda(cudaEventRecord(use.event, stream), "event");
            if (wrote)
                for (auto& [other, its] : uses_) its.wrote = false;
            use.wrote = wrote || was_writer;
        } catch (...) {  // a device that is lost: the next calls report it
        }
    }

    std::map<User, Use> uses_;  // the last use of each stream
};

}  // namespace headrace
