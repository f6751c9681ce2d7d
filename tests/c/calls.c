/* calls DENSITY.safetensors SEQUENCES.safetensors: every function of headrace.h in C11, and in C++; two threads on one
 * handle; calls that are refused. The density is of 3 features and 2 columns of context, in float; the sequences are of
 * 2 features, 2 columns of context and 3 covariates for every 4 steps, in float. Prints each check that failed. */
#include <headrace.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed = 0;

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            printf("line %d: %s; last message: %s\n", __LINE__, #condition, headrace_message()); \
            ++failed;                                                                            \
        }                                                                                        \
    } while (0)

enum { ROWS = 3000, FEATURES = 3, CONTEXT = 2 };

static float x[ROWS * FEATURES], context[ROWS * CONTEXT], want[ROWS];

typedef struct Work {
    const headrace_flow* flow;
    float log_prob[ROWS], again[ROWS * FEATURES];
    int code;
} Work;

static void* work(void* given) {
    Work* const own = (Work*)given;
    const headrace_input rows = headrace_rows_f32(x, ROWS, FEATURES), its = headrace_rows_f32(context, ROWS, CONTEXT);
    const headrace_output log_prob = headrace_into_f32(own->log_prob, ROWS, 1);
    const headrace_output z = headrace_into_f32(own->again, ROWS, FEATURES);
    for (int i = 0; i < 20 && own->code == HEADRACE_OK; ++i) {
        own->code = headrace_log_prob(own->flow, &rows, &its, &log_prob);
        if (own->code == HEADRACE_OK) own->code = headrace_to_latent(own->flow, &rows, &its, &z, NULL);
        if (memcmp(own->log_prob, want, sizeof want) != 0) own->code = -1;
    }
    return NULL;
}

static void two_threads(const headrace_flow* flow) {
    static Work works[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; ++i) {
        works[i].flow = flow;
        CHECK(pthread_create(&threads[i], NULL, work, &works[i]) == 0);
    }
    for (int i = 0; i < 2; ++i) {
        pthread_join(threads[i], NULL);
        CHECK(works[i].code == HEADRACE_OK);
    }
    CHECK(memcmp(works[0].again, works[1].again, sizeof works[0].again) == 0);
}

static void refusals(const headrace_flow* flow, char* bytes, size_t size) {
    const headrace_input rows = headrace_rows_f32(x, ROWS, FEATURES), its = headrace_rows_f32(context, ROWS, CONTEXT);
    const headrace_output out = headrace_into_f32(want, ROWS, 1);
    headrace_output overlaps = out;
    headrace_flow* other = NULL;
    overlaps.row_stride = 0;
    CHECK(headrace_log_prob(NULL, &rows, &its, &out) == HEADRACE_BAD_ARGUMENT);
    CHECK(headrace_log_prob(flow, NULL, &its, &out) == HEADRACE_BAD_ARGUMENT);
    CHECK(headrace_log_prob(flow, &rows, &its, NULL) == HEADRACE_BAD_ARGUMENT);
    CHECK(headrace_log_prob(flow, &rows, NULL, &out) == HEADRACE_BAD_CONTEXT);
    CHECK(strstr(headrace_message(), "context: expected 2 columns") != NULL);
    CHECK(headrace_log_prob(flow, &rows, &its, &overlaps) == HEADRACE_OVERLAP);
    CHECK(headrace_open("no such file", &other) == HEADRACE_NO_FILE && other == NULL);
    for (size_t left = 0; left < size; left += 1 + size / 200)
        CHECK(headrace_open_bytes(bytes, left, &other) == HEADRACE_BAD_FILE && other == NULL);
    bytes[size - 1] ^= 1;
    CHECK(headrace_open_bytes(bytes, size, &other) == HEADRACE_BAD_FILE && other == NULL);
    bytes[size - 1] ^= 1;
    char* number = bytes; /* the digits of the format, behind its name */
    while (memcmp(number, "format", 6) != 0) ++number;
    while (*number < '1' || *number > '9') ++number;
    *number = '9';
    CHECK(headrace_open_bytes(bytes, size, &other) == HEADRACE_NEWER_FILE && other == NULL);
    CHECK(strstr(headrace_message(), "take a newer one") != NULL);
    CHECK(headrace_open_bytes(NULL, 8, &other) == HEADRACE_BAD_ARGUMENT && other == NULL);
    headrace_close(NULL);
}

static char* read_whole(const char* path, size_t* size) {
    FILE* const file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char* const bytes = (char*)malloc(*size);
    if (bytes && fread(bytes, 1, *size, file) != *size) *size = 0;
    fclose(file);
    return bytes;
}

static void from_bytes(const char* bytes, size_t size) {
    headrace_flow* flow = NULL;
    CHECK(headrace_open_bytes(bytes, size, &flow) == HEADRACE_OK);
    static float again[ROWS];
    const headrace_input rows = headrace_rows_f32(x, ROWS, FEATURES), its = headrace_rows_f32(context, ROWS, CONTEXT);
    const headrace_output out = headrace_into_f32(again, ROWS, 1);
    CHECK(headrace_log_prob(flow, &rows, &its, &out) == HEADRACE_OK);
    CHECK(memcmp(again, want, sizeof want) == 0);
    headrace_close(flow);
}

static void streams(const headrace_flow* rows_alone, const char* path) {
    enum { STREAMS = 2, STEPS = 40, VALUES = 2 };
    static float signal[STREAMS * STEPS * VALUES], z[STREAMS * STEPS * VALUES];
    static float whole[STREAMS * STEPS], part[STREAMS * STEPS], frames[STEPS / 4 * 3], drawn[3 * STREAMS * 4 * VALUES];
    const float condition[2] = {0.5f, -0.5f};
    for (int i = 0; i < STREAMS * STEPS * VALUES; ++i) signal[i] = (float)(i * i % 19) / 9.0f - 1.0f;
    for (int i = 0; i < STEPS / 4 * 3; ++i) frames[i] = (float)(i % 5) / 4.0f;
    headrace_flow* flow = NULL;
    headrace_stream *stream = NULL, *other = NULL;
    CHECK(headrace_open(path, &flow) == HEADRACE_OK && headrace_is_sequence(flow) && !headrace_is_sequence(rows_alone));
    CHECK(headrace_covariates(flow) == 3 && headrace_hop(flow) == 4 && headrace_field(flow) > 4);
    const headrace_input c = headrace_rows_f32(condition, 1, 2), f = headrace_rows_f32(frames, STEPS / 4, 3);
    const headrace_input x = headrace_rows_f32(signal, STREAMS * STEPS, VALUES);
    const headrace_output scores = headrace_into_f32(whole, STREAMS * STEPS, 1);
    const headrace_output latent = headrace_into_f32(z, STREAMS * STEPS, VALUES);
    CHECK(headrace_stream_open(rows_alone, 1, NULL, &stream) == HEADRACE_NO_SUCH_VERB && !stream);
    CHECK(headrace_stream_open(flow, STREAMS, NULL, &stream) == HEADRACE_BAD_CONTEXT && !stream);
    CHECK(headrace_log_prob(flow, &x, &c, &scores) == HEADRACE_NO_SUCH_VERB);
    CHECK(headrace_stream_open(flow, STREAMS, &c, &stream) == HEADRACE_OK);
    headrace_close(flow);                                                               /* the stream outlives it */
    CHECK(headrace_stream_push(stream, &x, &scores, &latent) == HEADRACE_BAD_ARGUMENT); /* no frames are known */
    CHECK(headrace_stream_extend(stream, STEPS / 4, &f) == HEADRACE_OK);
    CHECK(headrace_stream_copies(stream, 1, &other) == HEADRACE_OK && headrace_stream_rows(other) == STREAMS);
    CHECK(headrace_stream_push(stream, &x, &scores, &latent) == HEADRACE_OK);
    CHECK(headrace_stream_position(stream) == STEPS && headrace_stream_position(other) == 0);
    for (int t = 0; t < STEPS; ++t) { /* each step of both sequences by itself */
        const headrace_input step = {signal + t * VALUES, STREAMS, VALUES, STEPS * VALUES, 1, HEADRACE_FLOAT32};
        const headrace_output score = {part + t, STREAMS, 1, STEPS, 1, HEADRACE_FLOAT32};
        CHECK(headrace_stream_push(other, &step, &score, NULL) == HEADRACE_OK);
    }
    CHECK(memcmp(part, whole, sizeof whole) == 0);
    headrace_stream_close(other);
    const int64_t numbers = headrace_stream_numbers(stream);
    float* const state = (float*)malloc(sizeof(float) * STREAMS * (size_t)numbers);
    const headrace_output to = headrace_into_f32(state, STREAMS, numbers);
    const headrace_input from = headrace_rows_f32(state, STREAMS, numbers);
    CHECK(headrace_stream_state(stream, &to) == HEADRACE_OK);
    CHECK(headrace_stream_set_state(stream, STEPS, &from) == HEADRACE_OK);
    free(state);
    const headrace_output next = headrace_into_f32(drawn, 3 * STREAMS * 4, VALUES);
    CHECK(headrace_stream_copies(stream, 3, &other) == HEADRACE_OK);
    CHECK(headrace_stream_pull(other, 1, &next) == HEADRACE_BAD_ARGUMENT); /* a state has no frames */
    CHECK(headrace_stream_extend(other, STEPS / 4, &f) == HEADRACE_OK);
    CHECK(headrace_stream_pull(other, 1, &next) == HEADRACE_OK && headrace_stream_position(other) == STEPS + 4);
    headrace_stream_close(other);
    headrace_stream_close(stream);
    headrace_stream_close(NULL);
}

int main(int n, char** arguments) {
    if (n != 3) return 2;
    headrace_flow* flow = NULL;
    CHECK(headrace_abi() == HEADRACE_ABI && strlen(headrace_version()) > 0);
    CHECK(headrace_open(arguments[1], &flow) == HEADRACE_OK);
    CHECK(headrace_features(flow) == FEATURES && headrace_context(flow) == CONTEXT);
    CHECK(headrace_dtype_of(flow) == HEADRACE_FLOAT32 && headrace_has_density(flow) && !headrace_is_ensemble(flow));
    headrace_set_num_threads(2);
    CHECK(headrace_get_num_threads() == 2);
    for (int i = 0; i < ROWS * CONTEXT; ++i) context[i] = (float)(i % 17) / 8.0f - 1.0f;
    const headrace_input its = headrace_rows_f32(context, ROWS, CONTEXT);
    const headrace_output drawn = headrace_into_f32(x, ROWS, FEATURES), density = headrace_into_f32(want, ROWS, 1);
    CHECK(headrace_sample(flow, 7, 0, &its, &drawn, NULL) == HEADRACE_OK);
    const headrace_input rows = headrace_rows_f32(x, ROWS, FEATURES);
    CHECK(headrace_log_prob(flow, &rows, &its, &density) == HEADRACE_OK);
    two_threads(flow);
    size_t size = 0;
    char* const bytes = read_whole(arguments[1], &size);
    from_bytes(bytes, size);
    refusals(flow, bytes, size);
    free(bytes);
    CHECK(headrace_log_prob(flow, &rows, &its, &density) == HEADRACE_OK); /* a refusal wrote nothing that stays */
    static float by_x[ROWS * FEATURES], by_context[ROWS * CONTEXT];
    const headrace_output to_x = headrace_into_f32(by_x, ROWS, FEATURES);
    const headrace_output to_context = headrace_into_f32(by_context, ROWS, CONTEXT);
    CHECK(headrace_gradient(flow, &rows, &its, NULL, &to_x, &to_context) == HEADRACE_OK);
    streams(flow, arguments[2]);
    headrace_close(flow);
    printf("%d failed\n", failed);
    return failed != 0;
}
