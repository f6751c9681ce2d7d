// Readers and writers of one piece of device memory, on any streams: a reader waits on its stream for the last writer,
// a writer for all readers since. The host never waits.
#pragma once

#include <map>
#include <mutex>

#include "include/memory.cuh"

namespace headrace {

class StreamOrder {
  public:
    StreamOrder() = default;
    StreamOrder(const StreamOrder&) = delete;
    StreamOrder& operator=(const StreamOrder&) = delete;
    ~StreamOrder() {
        for (const auto& [stream, event] : events_) cudaEventDestroy(event);
    }

    // Before and after what is queued on `stream`.
    void begin_read(cudaStream_t stream) {
        if (has_writer_ && writer_ != stream) wait(stream, writer_);
    }
    void end_read(cudaStream_t stream) {
        record(stream);
        readers_[stream] = true;
    }
    void begin_write(cudaStream_t stream) {
        begin_read(stream);
        for (auto& [reader, reads] : readers_) {
            if (reads && reader != stream) wait(stream, reader);
            reads = false;
        }
    }
    void end_write(cudaStream_t stream) {
        record(stream);
        has_writer_ = true;
        writer_ = stream;
    }

  private:
    void wait(cudaStream_t stream, cudaStream_t other) {
        check_cuda(cudaStreamWaitEvent(stream, events_.at(other), 0), "wait for a stream");
    }
    void record(cudaStream_t stream) {
        const auto found = events_.find(stream);
        if (found == events_.end()) {
            cudaEvent_t event;
            check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
            events_.emplace(stream, event);
        }
        check_cuda(cudaEventRecord(events_.at(stream), stream), "event");
    }

    std::map<cudaStream_t, cudaEvent_t> events_;  // the last use on each stream
    std::map<cudaStream_t, bool> readers_;        // those that read since the last write
    bool has_writer_ = false;
    cudaStream_t writer_ = nullptr;
};

}  // namespace headrace
