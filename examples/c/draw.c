/* draw DENSITY.safetensors ROWS SEED: rows drawn from a density, one a line, each with its log density in nats.
 *
 *     cc -std=c11 draw.c $(python -m headrace.config --cflags --libs) -o draw
 */
#include <headrace.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char* reason) {
    fprintf(stderr, "draw: error: %s\n", reason);
    return 1;
}

static int draw(const headrace_flow* flow, int64_t rows, uint64_t seed) {
    const int64_t features = headrace_features(flow);
    double* const values = malloc(sizeof(double) * (size_t)(rows * (features + 1)) + 1);
    if (!values) return fail("expected more memory than there is");
    /* A table of doubles, whatever the file's dtype is, whose last column is the log density. */
    const headrace_output x = {values, rows, features, features + 1, 1, HEADRACE_FLOAT64};
    const headrace_output log_prob = {values + features, rows, 1, features + 1, 1, HEADRACE_FLOAT64};
    const int code = headrace_sample(flow, seed, HEADRACE_FROM_START, NULL, &x, &log_prob);
    for (int64_t r = 0; code == HEADRACE_OK && r < rows; ++r)
        for (int64_t c = 0; c <= features; ++c)
            printf("%.17g%c", values[r * (features + 1) + c], c < features ? ',' : '\n');
    free(values);
    return code == HEADRACE_OK ? 0 : fail(headrace_message());
}

int main(int n, char** arguments) {
    if (n != 4) {
        fprintf(stderr, "usage: draw DENSITY.safetensors ROWS SEED\n");
        return 2;
    }
    if (headrace_abi() != HEADRACE_ABI) return fail("headrace.h and libheadrace are of different versions");
    headrace_flow* flow = NULL;
    if (headrace_open(arguments[1], &flow) != HEADRACE_OK) return fail(headrace_message());
    const int code = draw(flow, strtoll(arguments[2], NULL, 10), strtoull(arguments[3], NULL, 10));
    headrace_close(flow);
    return code;
}
