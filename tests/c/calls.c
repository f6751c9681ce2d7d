/* calls DENSITY.safetensors: every function of headrace.h in C11, and in C++; two threads on one handle; what is
 * refused. The density is of 3 features and 2 columns of context, in float. Prints each check that failed. */
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
    char* number = bytes; /* of the format, behind its name */
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

int main(int n, char** arguments) {
    if (n != 2) return 2;
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
    headrace_close(flow);
    printf("%d failed\n", failed);
    return failed != 0;
}
