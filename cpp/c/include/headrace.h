/* headrace.h: densities and samples of the files of headrace, in C11, by the compiled core of the Python package.
 *
 *     headrace_flow* flow = NULL;
 *     if (headrace_open("density.safetensors", &flow) != HEADRACE_OK) return fail(headrace_message());
 *     const headrace_input x = headrace_rows_f64(rows, n, headrace_features(flow));
 *     const headrace_output log_prob = headrace_into_f64(out, n, 1);
 *     if (headrace_log_prob(flow, &x, NULL, &log_prob) != HEADRACE_OK) return fail(headrace_message());
 *     headrace_close(flow);
 *
 * A handle never changes after it was opened: any number of threads may use it at once, and one of them closes it when
 * no other uses it any more. Calls divide their rows among the threads of one pool, which a Python module of the same
 * process shares; results do not depend on how many these are. No function throws, prints or ends the process.
 *
 * Every function that returns int returns HEADRACE_OK or one of the other codes below; headrace_message() then has the
 * reason. Results have been written whole or not at all.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 */
#ifndef HEADRACE_H
#define HEADRACE_H

#include <stddef.h>
#include <stdint.h>

#if defined(HEADRACE_STATIC)
#define HEADRACE_API
#elif defined(_WIN32)
#ifdef HEADRACE_BUILDS_LIBRARY
#define HEADRACE_API __declspec(dllexport)
#else
#define HEADRACE_API __declspec(dllimport)
#endif
#else
#define HEADRACE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header. A library whose headrace_abi() is another one must not be called. */
#define HEADRACE_ABI 1

enum headrace_code {
    HEADRACE_OK = 0,
    HEADRACE_BAD_ARGUMENT = 1, /* a null pointer, a wrong shape, a stride that leaves memory */
    HEADRACE_BAD_CONTEXT = 2,  /* one is missing, is not taken, or has another shape */
    HEADRACE_BAD_DTYPE = 3,    /* no dtype, or float for results of a model of double */
    HEADRACE_OVERLAP = 4,      /* two values would be written to one place */
    HEADRACE_NO_SUCH_VERB = 5, /* a transform has no density, an ensemble no latent space and no gradient, a flow of
                                * rows no stream, and one of sequences nothing else */
    HEADRACE_NO_FILE = 6,      /* it cannot be opened or read */
    HEADRACE_BAD_FILE = 7,     /* broken, or none of headrace */
    HEADRACE_NEWER_FILE = 8,   /* of a format that only a newer version reads */
    HEADRACE_NO_MEMORY = 9,
    HEADRACE_FAILED = 10 /* anything else, such as HEADRACE_ISA naming an instruction set that is not here */
};

enum headrace_dtype {
    HEADRACE_ANY = 0, /* of a model: a transform without parameters, which computes in the dtype of its input */
    HEADRACE_FLOAT32 = 1,
    HEADRACE_FLOAT64 = 2
};

/* Rows to read. Strides count values, not bytes, and may be 0 or negative; data are aligned as their type requires.
 * Both dtypes may be given to every model: the core reads each without a copy. */
typedef struct headrace_input {
    const void* data;
    int64_t rows, columns;
    int64_t row_stride, column_stride;
    int dtype;
} headrace_input;

/* Rows to write, whose number is that of the input. The dtype is the model's; or double for a model of float: values of
 * data then are scaled and shifted to the data's units in double, as by `dtype="float64"` in Python, and others are the
 * floats. Contiguous memory is written in place; other memory, and memory that is read in the same call, after the
 * call's last row. */
typedef struct headrace_output {
    void* data;
    int64_t rows, columns;
    int64_t row_stride, column_stride;
    int dtype;
} headrace_output;

typedef struct headrace_flow headrace_flow;
typedef struct headrace_stream headrace_stream;

/* Contiguous rows. */
static inline headrace_input headrace_rows_f32(const float* data, int64_t rows, int64_t columns) {
    const headrace_input array = {data, rows, columns, columns, 1, HEADRACE_FLOAT32};
    return array;
}
static inline headrace_input headrace_rows_f64(const double* data, int64_t rows, int64_t columns) {
    const headrace_input array = {data, rows, columns, columns, 1, HEADRACE_FLOAT64};
    return array;
}
static inline headrace_output headrace_into_f32(float* data, int64_t rows, int64_t columns) {
    const headrace_output array = {data, rows, columns, columns, 1, HEADRACE_FLOAT32};
    return array;
}
static inline headrace_output headrace_into_f64(double* data, int64_t rows, int64_t columns) {
    const headrace_output array = {data, rows, columns, columns, 1, HEADRACE_FLOAT64};
    return array;
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* *flow becomes a handle, or NULL where the file was refused. */
HEADRACE_API int headrace_open(const char* path, headrace_flow** flow);
/* The contents of a file, which may be freed afterwards. */
HEADRACE_API int headrace_open_bytes(const void* bytes, size_t size, headrace_flow** flow);
/* NULL is allowed. */
HEADRACE_API void headrace_close(headrace_flow* flow);

/* ---- facts; 0 for NULL --------------------------------------------------------------------------------------------
 */

HEADRACE_API int64_t headrace_features(const headrace_flow* flow);
HEADRACE_API int64_t headrace_context(const headrace_flow* flow); /* columns; 0: it takes none */
HEADRACE_API int headrace_dtype_of(const headrace_flow* flow);    /* of enum headrace_dtype */
/* Whether it has log_prob and sample: it is a flow or an ensemble of flows, and no transform alone. */
HEADRACE_API int headrace_has_density(const headrace_flow* flow);
/* Whether it is an ensemble: then it has these two, and no latent space and no gradient. */
HEADRACE_API int headrace_is_ensemble(const headrace_flow* flow);

/* Whether it is of sequences, whose steps come one after another: then it has streams, below, and none of the calls
 * here. Its features are those of a step. */
HEADRACE_API int headrace_is_sequence(const headrace_flow* flow);
HEADRACE_API int64_t headrace_covariates(const headrace_flow* flow); /* columns known of time; 0: it takes none */
HEADRACE_API int64_t headrace_hop(const headrace_flow* flow);        /* steps from one frame of these to the next */
/* The most steps before a step on which its density depends. */
HEADRACE_API int64_t headrace_field(const headrace_flow* flow);

/* ---- calls -------------------------------------------------------------------------------------------------------
 * context: NULL where none is taken; else one row for all rows, or as many as there are. A row with a NaN or an
 * infinity becomes NaN and changes no other row. */

/* Log densities, in nats: (rows, 1). */
HEADRACE_API int headrace_log_prob(const headrace_flow* flow, const headrace_input* x, const headrace_input* context,
                                   const headrace_output* log_prob);

/* Rows first_row, first_row + 1, ... of the endless sample of a seed, and their log densities, which may be NULL. The
 * bits are those of Python's sample(rows, seed=seed, first_row=first_row), and with HEADRACE_FROM_START those of
 * sample(rows, seed=seed), where fewer than 8 rows take a faster path that rounds differently. */
#define HEADRACE_FROM_START (-1)
HEADRACE_API int headrace_sample(const headrace_flow* flow, uint64_t seed, int64_t first_row,
                                 const headrace_input* context, const headrace_output* x,
                                 const headrace_output* log_prob);

/* Data to latent and log |det dz/dx|; latent to data and log |det dx/dz|. Either result may be NULL. */
HEADRACE_API int headrace_to_latent(const headrace_flow* flow, const headrace_input* x, const headrace_input* context,
                                    const headrace_output* z, const headrace_output* log_det);
HEADRACE_API int headrace_to_data(const headrace_flow* flow, const headrace_input* z, const headrace_input* context,
                                  const headrace_output* x, const headrace_output* log_det);

/* The gradient of each row's log density by the row, (rows, features), and by its context, (rows, context), also where
 * all rows share one; and the log densities. Each of the three may be NULL. */
HEADRACE_API int headrace_gradient(const headrace_flow* flow, const headrace_input* x, const headrace_input* context,
                                   const headrace_output* log_prob, const headrace_output* by_x,
                                   const headrace_output* by_context);

/* ---- streams ----------------------------------------------------------------------------------------------------
 * Sequences that go on step by step, as many together as there are rows. Pushed steps get their log densities given all
 * before them, pulled ones are drawn, and both become the past of what comes next; the bits are those of Python's
 * streams, in calls of any lengths. Memory does not grow. Arrays have one row for each step, all steps of the first
 * sequence, then those of the second, and so on. A stream may outlive its flow. One thread at a time may use it. A
 * refused call leaves it as it was; after HEADRACE_NO_MEMORY in a push or a pull it may take no more. */

/* *stream becomes sequences before their first step, or NULL. context: NULL where none is taken; else one row for all,
 * or one for each. */
HEADRACE_API int headrace_stream_open(const headrace_flow* flow, int64_t rows, const headrace_input* context,
                                      headrace_stream** stream);
HEADRACE_API void headrace_stream_close(headrace_stream* stream); /* NULL is allowed */
HEADRACE_API int64_t headrace_stream_rows(const headrace_stream* stream);
HEADRACE_API int64_t headrace_stream_position(const headrace_stream* stream); /* steps so far */

/* Steps that came, (rows * steps, features): their log densities in nats, (rows * steps, 1), and their latent values.
 * Either may be NULL; a transform alone has latent values only. Values that are not finite are refused. */
HEADRACE_API int headrace_stream_push(headrace_stream* stream, const headrace_input* x, const headrace_output* log_prob,
                                      const headrace_output* z);

/* Draws the next steps, (rows * steps, features). With one seed all pulls of a stream are one sample, whose bits are
 * those of Python's pull(steps, seed=seed), and of sample(rows, steps, seed=seed) from the first step on. In double the
 * values of a model of float are the floats. */
HEADRACE_API int headrace_stream_pull(headrace_stream* stream, uint64_t seed, const headrace_output* x);

/* The next frames of covariates, behind those that are known: (frames, covariates) for all sequences, or
 * (rows * frames, covariates). A push or a pull needs a frame for every `hop` steps, and interpolates to the next one
 * if it is known. */
HEADRACE_API int headrace_stream_extend(headrace_stream* stream, int64_t frames, const headrace_input* covariates);

/* *copies becomes n streams of the same past for each of these, to go on differently: row j * rows + r is copy j of
 * row r. */
HEADRACE_API int headrace_stream_copies(const headrace_stream* stream, int64_t n, headrace_stream** copies);

/* The past, (rows, headrace_stream_numbers): with the position all that a stream of the same flow and context needs to
 * go on from there. These are the values of Python's Stream.state(), transform by transform. To set it forgets frames
 * of covariates: the next that headrace_stream_extend gets is that of the step at `position`. */
HEADRACE_API int64_t headrace_stream_numbers(const headrace_stream* stream);
HEADRACE_API int headrace_stream_state(const headrace_stream* stream, const headrace_output* numbers);
HEADRACE_API int headrace_stream_set_state(headrace_stream* stream, int64_t position, const headrace_input* numbers);

/* ---- the library --------------------------------------------------------------------------------------------------
 */

/* The reason of this thread's last code that was not HEADRACE_OK: a text of its own for every thread, in UTF-8, valid
 * until the thread's next call. It names the argument, what was expected and what came. */
HEADRACE_API const char* headrace_message(void);
HEADRACE_API const char* headrace_version(void);
HEADRACE_API int headrace_abi(void);
/* Threads of a call, the calling one among them; at first as many as there are cores. */
HEADRACE_API int headrace_get_num_threads(void);
HEADRACE_API void headrace_set_num_threads(int n);

#ifdef __cplusplus
}
#endif

#endif
