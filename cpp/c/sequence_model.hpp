// A model of sequences from a file, and its streams, which proceed step by step.
#pragma once

#include <memory>

#include "../../runtime/parts/container.hpp"
#include "arrays.hpp"
#include "facts.hpp"

namespace headrace {

// Sequences that proceed together. Arrays hold sequence after sequence, with all steps of a sequence together. A
// refused call leaves the stream unchanged; after a call that fails for lack of memory, the stream refuses all further
// calls.
class SequenceStream {
  public:
    SequenceStream() = default;
    virtual ~SequenceStream() = default;
    SequenceStream(const SequenceStream&) = delete;
    SequenceStream& operator=(const SequenceStream&) = delete;

    virtual int64_t rows() const = 0;
    virtual int64_t position() const = 0;
    virtual int64_t numbers() const = 0;  // the number of values in the state of one row
    virtual void push(const headrace_input* x, const headrace_output* log_prob, const headrace_output* z) = 0;
    virtual void pull(uint64_t seed, const headrace_output* x) = 0;
    virtual void extend(int64_t frames, const headrace_input* covariates) = 0;
    virtual std::unique_ptr<SequenceStream> copies(int64_t n) const = 0;
    virtual void store(const headrace_output* numbers) const = 0;
    virtual void load(int64_t position, const headrace_input* numbers) = 0;
};

class SequenceModel {
  public:
    SequenceModel() = default;
    virtual ~SequenceModel() = default;
    SequenceModel(const SequenceModel&) = delete;
    SequenceModel& operator=(const SequenceModel&) = delete;

    virtual const Facts& facts() const = 0;
    virtual bool is_double() const = 0;
    // Opens a stream, which keeps the model alive.
    virtual std::unique_ptr<SequenceStream> stream(int64_t rows, const headrace_input* context) const = 0;
};

// Functions that tell a file of sequences from other files, and read such a file; reading throws FileFormatError.
bool is_of_sequences(const detail::Container& file);
std::shared_ptr<const SequenceModel> sequence_model(detail::Container& file, bool is_double);

}  // namespace headrace
