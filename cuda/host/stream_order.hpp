// The order of readers and writers of one block of device memory, on any streams: the stream of a reader waits for the
// last writer, and the stream of a writer for all readers since. The host never waits.
//
//     {
//         const StreamOrder::Writing writing(order, stream);
// ... // work that is queued on the stream here counts, also after an exception
//     }
#pragma once

#include <map>
#include <thread>
#include <utility>

#include "../include/memory.cuh"

namespace headrace {

// Refuses calls that are recorded in a CUDA graph. A recorded call would be ordered once, when it is recorded, and
// never when the graph runs, because a graph cannot wait for events of uses outside of it.
inline void refuse_capture(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const cudaError_t error = cudaStreamIsCapturing(stream, &status);
    const bool by_another = error == cudaErrorStreamCaptureImplicit;  // a capture forbids the default stream
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

    // Lets work that is queued on `stream` from now on follow every earlier use.
    void wait_for_all(cudaStream_t stream) const {
        for (const auto& [user, use] : uses_) wait(stream, use);
    }

  private:
    // A stream, and for handles that name a different stream in each thread also the thread.
    using User = std::pair<cudaStream_t, std::thread::id>;
    struct Use {
        cudaEvent_t event;
        bool wrote;  // whether the last use wrote
    };

    static User user_of(cudaStream_t stream) {
        return {stream, stream == cudaStreamPerThread ? std::this_thread::get_id() : std::thread::id()};
    }
    // Lets a stream wait for a use, even if the use has the handle of this stream, because a new stream may have the
    // handle of a destroyed one.
    static void wait(cudaStream_t stream, const Use& use) {
        check_cuda(cudaStreamWaitEvent(stream, use.event, 0), "wait for a stream");
    }
    void wait_for_writer(cudaStream_t stream) const {
        for (const auto& [user, use] : uses_)
            if (use.wrote) wait(stream, use);
    }
    // Records a use, after a wait for all earlier work of the user, so that one event represents all its work.
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
        } catch (...) {  // if the device is lost, the next call reports the loss
        }
    }

    std::map<User, Use> uses_;  // the last use of each stream
};

}  // namespace headrace
