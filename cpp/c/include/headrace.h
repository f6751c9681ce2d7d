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
 * process shares; results do not depend on the number of threads. No function throws, prints or ends the process.
 *
 * Every function that returns int returns HEADRACE_OK or one of the other codes below; after an error
 * headrace_message() has the reason. Results are written completely or not at all.
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

/* The ABI of this header. A library whose headrace_abi() differs must not be called. */
#define HEADRACE_ABI 1

enum headrace_code {
    HEADRACE_OK = 0,
    HEADRACE_BAD_ARGUMENT = 1, /* a null pointer, a wrong shape, a stride that leaves memory */
    HEADRACE_BAD_CONTEXT = 2,  /* a context is missing, is not taken, or has a wrong shape */
    HEADRACE_BAD_DTYPE = 3,    /* an unknown dtype, or float for results of a model of double */
    HEADRACE_OVERLAP = 4,      /* two values would be written to the same memory */
    HEADRACE_NO_SUCH_VERB = 5, /* a transform has no density, an ensemble no latent space and no gradient, a flow of
                                * rows no stream, and a flow of sequences only streams */
    HEADRACE_NO_FILE = 6,      /* a file cannot be opened or read */
    HEADRACE_BAD_FILE = 7,     /* a broken file, or not a file of headrace */
    HEADRACE_NEWER_FILE = 8,   /* a file in a format that only a newer version reads */
    HEADRACE_NO_MEMORY = 9,
    HEADRACE_FAILED = 10 /* other errors, such as an instruction set in HEADRACE_ISA that does not exist */
};

enum headrace_dtype {
    HEADRACE_ANY = 0, /* of a transform without parameters, which computes in the dtype of its input */
    HEADRACE_FLOAT32 = 1,
    HEADRACE_FLOAT64 = 2
};

/* An array of rows to read. Strides count values, not bytes, and may be 0 or negative; data are aligned as their type
 * requires. Every model takes arrays of both dtypes, which the core reads without a copy. */
typedef struct headrace_input {
    const void* data;
    int64_t rows, columns;
    int64_t row_stride, column_stride;
    int dtype;
} headrace_input;

/* An array of rows to write, as many as the input has. The dtype is the model's, or double for a model of float: data
 * are then scaled and shifted to their units in double, as by `dtype="float64"` in Python, and other results are floats
 * converted to double. Contiguous memory is written in place; other memory, and memory that the call also reads, is
 * written after the call's last row. */
typedef struct headrace_output {
    void* data;
    int64_t rows, columns;
    int64_t row_stride, column_stride;
    int dtype;
} headrace_output;

typedef struct headrace_flow headrace_flow;
typedef struct headrace_stream headrace_stream;

/* Arrays of contiguous rows. */
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

/* Opens a file: *flow becomes a handle, or NULL where the file was refused. */
HEADRACE_API int headrace_open(const char* path, headrace_flow** flow);
/* Opens a file from its bytes, which may be freed afterwards. */
HEADRACE_API int headrace_open_bytes(const void* bytes, size_t size, headrace_flow** flow);
/* Closes a handle; NULL is allowed. */
HEADRACE_API void headrace_close(headrace_flow* flow);

/* ---- properties of a flow; 0 for NULL ---------------------------------------------------------------------------- */

HEADRACE_API int64_t headrace_features(const headrace_flow* flow);
HEADRACE_API int64_t headrace_context(const headrace_flow* flow); /* columns of a context; 0: none */
HEADRACE_API int headrace_dtype_of(const headrace_flow* flow);    /* a value of enum headrace_dtype */
/* Whether a flow has log_prob and sample: flows and ensembles of flows have both, a single transform neither. */
HEADRACE_API int headrace_has_density(const headrace_flow* flow);
/* Whether a flow is an ensemble, which has log_prob and sample, but no latent space and no gradient. */
HEADRACE_API int headrace_is_ensemble(const headrace_flow* flow);

/* Whether a flow is of sequences, whose steps come one after another: such a flow has streams, below, and none of the
 * calls for rows. Its features are those of a step. */
HEADRACE_API int headrace_is_sequence(const headrace_flow* flow);
HEADRACE_API int64_t headrace_covariates(const headrace_flow* flow); /* columns of covariates over time; 0: none */
HEADRACE_API int64_t headrace_hop(const headrace_flow* flow);        /* steps of a frame of covariates */
/* The number of steps before a step on which the density of this step depends. */
HEADRACE_API int64_t headrace_field(const headrace_flow* flow);

/* ---- calls -------------------------------------------------------------------------------------------------------
 * context: NULL where the flow takes none; otherwise one row for all rows, or one row for each. Results of a row with a
 * NaN or an infinity are NaN, and such a row changes no other row. */

/* Log densities of the rows x, in nats: (rows, 1). */
HEADRACE_API int headrace_log_prob(const headrace_flow* flow, const headrace_input* x, const headrace_input* context,
                                   const headrace_output* log_prob);

/* Rows first_row, first_row + 1, ... of the endless sample of a seed, and their log densities, which may be NULL. The
 * bits are those of Python's sample(rows, seed=seed, first_row=first_row), and with HEADRACE_FROM_START those of
 * sample(rows, seed=seed), where fewer than 8 rows take a faster path that rounds differently. */
#define HEADRACE_FROM_START (-1)
HEADRACE_API int headrace_sample(const headrace_flow* flow, uint64_t seed, int64_t first_row,
                                 const headrace_input* context, const headrace_output* x,
                                 const headrace_output* log_prob);

/* Map data to latent values, with log |det dz/dx|, or latent values to data, with log |det dx/dz|. Either result may be
 * NULL. */
HEADRACE_API int headrace_to_latent(const headrace_flow* flow, const headrace_input* x, const headrace_input* context,
                                    const headrace_output* z, const headrace_output* log_det);
HEADRACE_API int headrace_to_data(const headrace_flow* flow, const headrace_input* z, const headrace_input* context,
                                  const headrace_output* x, const headrace_output* log_det);

/* The log densities, and the gradient of each row's log density by the row, (rows, features), and by its context,
 * (rows, context), also where all rows share one context. Each of the three results may be NULL. */
HEADRACE_API int headrace_gradient(const headrace_flow* flow, const headrace_input* x, const headrace_input* context,
                                   const headrace_output* log_prob, const headrace_output* by_x,
                                   const headrace_output* by_context);

/* ---- streams ----------------------------------------------------------------------------------------------------
 * A stream has `rows` sequences that proceed together, step by step. A push returns the log densities of new steps
 * given all earlier steps, a pull draws new steps, and both append the steps to the past; the bits are those of
 * Python's streams, in calls of any lengths. Memory does not grow. Arrays have one row for each step: all steps of the
 * first sequence, then those of the second, and so on. A stream may outlive its flow. One thread at a time may use a
 * stream. A refused call leaves it unchanged; after HEADRACE_NO_MEMORY in a push or a pull it may refuse all further
 * calls. */

/* Opens a stream: *stream becomes `rows` sequences before their first step, or NULL. context: NULL where the flow takes
 * none; otherwise one row for all sequences, or one for each. */
HEADRACE_API int headrace_stream_open(const headrace_flow* flow, int64_t rows, const headrace_input* context,
                                      headrace_stream** stream);
HEADRACE_API void headrace_stream_close(headrace_stream* stream); /* NULL is allowed */
HEADRACE_API int64_t headrace_stream_rows(const headrace_stream* stream);
HEADRACE_API int64_t headrace_stream_position(const headrace_stream* stream); /* number of past steps */

/* Appends observed steps x, (rows * steps, features), and returns their log densities in nats, (rows * steps, 1), and
 * latent values. Either result may be NULL; a single transform has only latent values. Values that are not finite are
 * refused. */
HEADRACE_API int headrace_stream_push(headrace_stream* stream, const headrace_input* x, const headrace_output* log_prob,
                                      const headrace_output* z);

/* Draws the next steps, (rows * steps, features). With one seed all pulls of a stream are one sample, whose bits are
 * those of Python's pull(steps, seed=seed), and of sample(rows, steps, seed=seed) from the first step on. For a
 * model of float, double results are the floats, converted. */
HEADRACE_API int headrace_stream_pull(headrace_stream* stream, uint64_t seed, const headrace_output* x);

/* Appends the next frames of covariates: (frames, covariates), the same for all sequences, or
 * (rows * frames, covariates). A push or a pull needs a frame for every `hop` steps, and interpolates to the next frame
 * where that is known. */
HEADRACE_API int headrace_stream_extend(headrace_stream* stream, int64_t frames, const headrace_input* covariates);

/* *copies becomes a stream with n copies of each sequence, which share its past and then proceed independently: row
 * j * rows + r is copy j of row r. */
HEADRACE_API int headrace_stream_copies(const headrace_stream* stream, int64_t n, headrace_stream** copies);

/* The state after the past steps, (rows, headrace_stream_numbers). With the position it is all that a stream of the
 * same flow and context needs to proceed. Its values are those of Python's Stream.state(), transform by transform.
 * Setting a state removes frames of covariates: the next frame for headrace_stream_extend is that of the step at
 * `position`. */
HEADRACE_API int64_t headrace_stream_numbers(const headrace_stream* stream);
HEADRACE_API int headrace_stream_state(const headrace_stream* stream, const headrace_output* numbers);
HEADRACE_API int headrace_stream_set_state(headrace_stream* stream, int64_t position, const headrace_input* numbers);

/* ---- the library --------------------------------------------------------------------------------------------------
 */

/* The reason of this thread's last error: a text in UTF-8 for each thread, valid until the thread's next call. It names
 * the argument, the expected value and the received one. */
HEADRACE_API const char* headrace_message(void);
HEADRACE_API const char* headrace_version(void);
HEADRACE_API int headrace_abi(void);
/* The number of threads of a call, the calling thread included; initially the number of cores. */
HEADRACE_API int headrace_get_num_threads(void);
HEADRACE_API void headrace_set_num_threads(int n);

#ifdef __cplusplus
}
#endif

#endif
