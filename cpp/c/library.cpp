// The functions of headrace.h, which throw no exceptions.
#include "include/headrace.h"

#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "../core/isa.hpp"
#include "../core/version.hpp"
#include "model.hpp"
#include "sequence_model.hpp"

// The model of a file: `single` for float32, `wide` for float64, both for a transform without parameters, or only
// `sequences` for a flow of sequences.
struct headrace_flow {
    std::unique_ptr<const headrace::Model<float>> single;
    std::unique_ptr<const headrace::Model<double>> wide;
    std::shared_ptr<const headrace::SequenceModel> sequences;

    const headrace::Facts& facts() const {
        return sequences ? sequences->facts() : single ? single->facts() : wide->facts();
    }
};

struct headrace_stream {
    std::unique_ptr<headrace::SequenceStream> own;
};

namespace headrace {
namespace {

// The last message of a thread, an array without a destructor, because threads may end after the library was unloaded.
thread_local char message[1024] = "";

void tell(const char* text) {
    const size_t n = std::min(sizeof message - 1, std::strlen(text));
    std::memcpy(message, text, n);
    message[n] = '\0';
}

template <class F>
int guarded(const F& call) noexcept {
    const auto refused = [](headrace_code code, const char* text) {
        tell(text);
        return int(code);
    };
    try {
        call();
        return HEADRACE_OK;
    } catch (const Failure& error) {
        return refused(error.code(), error.what());
    } catch (const NewerFormatError& error) {
        return refused(HEADRACE_NEWER_FILE, error.what());
    } catch (const FileFormatError& error) {
        return refused(HEADRACE_BAD_FILE, error.what());
    } catch (const std::bad_alloc&) {
        return refused(HEADRACE_NO_MEMORY, "expected more memory than there is");
    } catch (const std::length_error&) {
        return refused(HEADRACE_NO_MEMORY, "expected more memory than there is");
    } catch (const std::exception& error) {
        return refused(HEADRACE_FAILED, error.what());
    } catch (...) {
        return refused(HEADRACE_FAILED, "an exception of another library");
    }
}

// The dtype of a file, known before its tensors are read.
headrace_dtype dtype_of(const detail::Container& file) {
    const detail::Value& value = file.header().entries().at("dtype");
    if (value.is(detail::Value::Kind::null)) return HEADRACE_ANY;
    const bool is_double = value.is(detail::Value::Kind::text) && value.text() == "float64";
    return is_double ? HEADRACE_FLOAT64 : HEADRACE_FLOAT32;  // files with other dtypes are refused when their tensors
                                                             // are read
}

headrace_flow* opened_flow(detail::Container file) {
    active_isa();
    const headrace_dtype dtype = dtype_of(file);
    auto flow = std::make_unique<headrace_flow>();
    if (is_of_sequences(file)) {
        flow->sequences = sequence_model(file, dtype == HEADRACE_FLOAT64);
        return flow.release();
    }
    if (dtype == HEADRACE_ANY) {  // reading moves all tensors out of a container
        detail::Container again = file;
        flow->wide = std::make_unique<const Model<double>>(again);
    }
    if (dtype == HEADRACE_FLOAT64) {
        flow->wide = std::make_unique<const Model<double>>(file);
    } else {
        flow->single = std::make_unique<const Model<float>>(file);
    }
    return flow.release();
}

template <class F>
int opened_by(headrace_flow** flow, const F& container) noexcept {
    return guarded([&] {
        if (!flow) throw Failure(HEADRACE_BAD_ARGUMENT, "flow: expected where to put a handle, got NULL");
        *flow = nullptr;
        *flow = opened_flow(container());
    });
}

// Calls call(model) with the model of the file's dtype, or for a transform without parameters with the model of the
// rows' dtype.
template <class F>
int with_model(const headrace_flow* flow, const headrace_input* rows, const F& call) noexcept {
    return guarded([&] {
        if (!flow) throw Failure(HEADRACE_BAD_ARGUMENT, "flow: expected a handle, got NULL");
        require(!flow->sequences, HEADRACE_NO_SUCH_VERB,
                "flow: expected one of rows, got one of sequences, whose steps go through headrace_stream_open");
        const bool takes_wide = !flow->single || (flow->wide && rows && rows->dtype == HEADRACE_FLOAT64);
        if (takes_wide) {
            call(*flow->wide);
        } else {
            call(*flow->single);
        }
    });
}

// Calls open(), and sets *stream to the result, or to NULL after an error.
template <class F>
int stream_by(headrace_stream** stream, const char* name, const F& open) noexcept {
    return guarded([&] {
        headrace_stream*& to = existing(stream, name, "where to put a stream");
        to = nullptr;
        auto made = std::make_unique<headrace_stream>();
        made->own = open();
        to = made.release();
    });
}

template <class Stream, class F>
int with_stream(Stream* stream, const F& call) noexcept {
    return guarded([&] { call(*existing(stream, "stream", "one").own); });
}

}  // namespace
}  // namespace headrace

using headrace::Arguments;

extern "C" {

int headrace_open(const char* path, headrace_flow** flow) {
    using namespace headrace;
    return opened_by(flow, [&] {
        if (!path) throw Failure(HEADRACE_BAD_ARGUMENT, "path: expected a text, got NULL");
        const std::string place = std::string(path) + ": ";
        try {
            return detail::container_of_file(path);
        } catch (const NewerFormatError& error) {
            throw NewerFormatError(place + error.what());
        } catch (const FileFormatError& error) {
            throw FileFormatError(place + error.what());
        } catch (const std::runtime_error& error) {
            throw Failure(HEADRACE_NO_FILE, place + error.what());
        }
    });
}

int headrace_open_bytes(const void* bytes, size_t size, headrace_flow** flow) {
    using namespace headrace;
    return opened_by(flow, [&] {
        require(bytes != nullptr || size == 0, HEADRACE_BAD_ARGUMENT, "bytes: expected memory, got NULL");
        return detail::container_of_bytes(bytes, size);
    });
}

void headrace_close(headrace_flow* flow) {
    delete flow;
}

int64_t headrace_features(const headrace_flow* flow) {
    return flow ? flow->facts().features : 0;
}
int64_t headrace_context(const headrace_flow* flow) {
    return flow ? flow->facts().context : 0;
}
int headrace_dtype_of(const headrace_flow* flow) {
    if (!flow || (flow->single && flow->wide)) return HEADRACE_ANY;
    if (flow->sequences) return flow->sequences->is_double() ? HEADRACE_FLOAT64 : HEADRACE_FLOAT32;
    return flow->single ? HEADRACE_FLOAT32 : HEADRACE_FLOAT64;
}
int headrace_has_density(const headrace_flow* flow) {
    return flow && flow->facts().has_density;
}
int headrace_is_ensemble(const headrace_flow* flow) {
    return flow && flow->facts().is_ensemble;
}

int headrace_is_sequence(const headrace_flow* flow) {
    return flow && flow->facts().is_sequence;
}
int64_t headrace_covariates(const headrace_flow* flow) {
    return flow ? flow->facts().covariates : 0;
}
int64_t headrace_hop(const headrace_flow* flow) {
    return flow ? flow->facts().hop : 0;
}
int64_t headrace_field(const headrace_flow* flow) {
    return flow ? flow->facts().field : 0;
}

int headrace_log_prob(const headrace_flow* flow, const headrace_input* x, const headrace_input* context,
                      const headrace_output* log_prob) {
    return headrace::with_model(flow, x, [&](const auto& model) {
        Arguments given;
        given.rows = x;
        given.context = context;
        given.per_row = log_prob;
        model.log_prob(given);
    });
}

int headrace_sample(const headrace_flow* flow, uint64_t seed, int64_t first_row, const headrace_input* context,
                    const headrace_output* x, const headrace_output* log_prob) {
    return headrace::with_model(flow, nullptr, [&](const auto& model) {
        Arguments given;
        given.context = context;
        given.value = x;
        given.per_row = log_prob;
        given.seed = seed;
        given.first_row = first_row;
        model.sample(given);
    });
}

int headrace_to_latent(const headrace_flow* flow, const headrace_input* x, const headrace_input* context,
                       const headrace_output* z, const headrace_output* log_det) {
    return headrace::with_model(flow, x, [&](const auto& model) {
        Arguments given;
        given.rows = x;
        given.context = context;
        given.value = z;
        given.per_row = log_det;
        model.transform(true, given);
    });
}

int headrace_to_data(const headrace_flow* flow, const headrace_input* z, const headrace_input* context,
                     const headrace_output* x, const headrace_output* log_det) {
    return headrace::with_model(flow, z, [&](const auto& model) {
        Arguments given;
        given.rows = z;
        given.context = context;
        given.value = x;
        given.per_row = log_det;
        model.transform(false, given);
    });
}

int headrace_gradient(const headrace_flow* flow, const headrace_input* x, const headrace_input* context,
                      const headrace_output* log_prob, const headrace_output* by_x, const headrace_output* by_context) {
    return headrace::with_model(flow, x, [&](const auto& model) {
        Arguments given;
        given.rows = x;
        given.context = context;
        given.value = by_x;
        given.per_row = log_prob;
        given.by_context = by_context;
        model.gradient(given);
    });
}

int headrace_stream_open(const headrace_flow* flow, int64_t rows, const headrace_input* context,
                         headrace_stream** stream) {
    using namespace headrace;
    return stream_by(stream, "stream", [&] {
        const headrace_flow& own = existing(flow, "flow", "a handle");
        require(own.sequences != nullptr, HEADRACE_NO_SUCH_VERB,
                "flow: expected one of sequences, got one of rows, which has no streams");
        return own.sequences->stream(rows, context);
    });
}
void headrace_stream_close(headrace_stream* stream) {
    delete stream;
}
int headrace_stream_copies(const headrace_stream* stream, int64_t n, headrace_stream** copies) {
    using namespace headrace;
    return stream_by(copies, "copies", [&] { return existing(stream, "stream", "one").own->copies(n); });
}
int64_t headrace_stream_rows(const headrace_stream* stream) {
    return stream ? stream->own->rows() : 0;
}
int64_t headrace_stream_position(const headrace_stream* stream) {
    return stream ? stream->own->position() : 0;
}
int64_t headrace_stream_numbers(const headrace_stream* stream) {
    return stream ? stream->own->numbers() : 0;
}
int headrace_stream_push(headrace_stream* stream, const headrace_input* x, const headrace_output* log_prob,
                         const headrace_output* z) {
    return headrace::with_stream(stream, [&](auto& own) { own.push(x, log_prob, z); });
}
int headrace_stream_pull(headrace_stream* stream, uint64_t seed, const headrace_output* x) {
    return headrace::with_stream(stream, [&](auto& own) { own.pull(seed, x); });
}
int headrace_stream_extend(headrace_stream* stream, int64_t frames, const headrace_input* covariates) {
    return headrace::with_stream(stream, [&](auto& own) { own.extend(frames, covariates); });
}
int headrace_stream_state(const headrace_stream* stream, const headrace_output* numbers) {
    return headrace::with_stream(stream, [&](const auto& own) { own.store(numbers); });
}
int headrace_stream_set_state(headrace_stream* stream, int64_t position, const headrace_input* numbers) {
    return headrace::with_stream(stream, [&](auto& own) { own.load(position, numbers); });
}

const char* headrace_message(void) {
    return headrace::message;
}
const char* headrace_version(void) {
    return headrace::version();
}
int headrace_abi(void) {
    return HEADRACE_ABI;
}
}
