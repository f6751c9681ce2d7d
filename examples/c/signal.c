/* A signal as raw 16-bit samples, little-endian, one channel, on the standard input, and a flow of sequences whose
 * steps are such samples, in units of the integers.
 *
 *     signal score FLOW.safetensors < SIGNAL                     the log density of each sample in nats, one a line
 *     signal continue FLOW.safetensors STEPS SEED < SIGNAL       this number of samples that continue the signal, raw
 *
 *     cc -std=c11 signal.c $(python -m headrace.config --cflags --libs) -o signal
 *
 * sox, ffmpeg and arecord write such signals: ffmpeg -i voice.wav -f s16le -ac 1 - | signal score voice.safetensors
 */
#include <headrace.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512 };

static int fail(const char* reason) {
    fprintf(stderr, "signal: error: %s\n", reason);
    return 1;
}

/* Reads samples as steps of a stream; returns the number of steps, at most BLOCK. */
static int64_t read_steps(float* x) {
    unsigned char bytes[2 * BLOCK];
    const size_t n = fread(bytes, 2, BLOCK, stdin);
    for (size_t i = 0; i < n; ++i) {
        const int word = bytes[2 * i] | bytes[2 * i + 1] << 8;
        x[i] = (float)(word < 32768 ? word : word - 65536);
    }
    return (int64_t)n;
}

static void write_steps(const float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float near = x[i] < 0.0f ? x[i] - 0.5f : x[i] + 0.5f;
        const int sample = near >= 32768.0f ? 32767 : near <= -32769.0f ? -32768 : (int)near;
        putchar(sample & 255);
        putchar(sample >> 8 & 255);
    }
}

/* Pushes the whole input; prints its log densities if `prints`. */
static int push(headrace_stream* stream, int prints) {
    float x[BLOCK], log_prob[BLOCK];
    for (int64_t n = read_steps(x); n > 0; n = read_steps(x)) {
        const headrace_input steps = headrace_rows_f32(x, n, 1);
        const headrace_output scores = headrace_into_f32(log_prob, n, 1);
        const int code = headrace_stream_push(stream, &steps, prints ? &scores : NULL, NULL);
        if (code != HEADRACE_OK) return code;
        for (int64_t t = 0; prints && t < n; ++t) printf("%.9g\n", (double)log_prob[t]);
    }
    return HEADRACE_OK;
}

static int pull(headrace_stream* stream, int64_t steps, uint64_t seed) {
    float x[BLOCK];
    for (int64_t done = 0; done < steps;) {
        const int64_t n = steps - done < BLOCK ? steps - done : BLOCK;
        const headrace_output next = headrace_into_f32(x, n, 1);
        const int code = headrace_stream_pull(stream, seed, &next);
        if (code != HEADRACE_OK) return code;
        write_steps(x, n);
        done += n;
    }
    return HEADRACE_OK;
}

int main(int n, char** arguments) {
    const int scores = n == 3 && strcmp(arguments[1], "score") == 0;
    if (!scores && !(n == 5 && strcmp(arguments[1], "continue") == 0)) {
        fprintf(stderr, "usage: signal score FLOW.safetensors, or signal continue FLOW.safetensors STEPS SEED\n");
        return 2;
    }
    if (headrace_abi() != HEADRACE_ABI) return fail("headrace.h and libheadrace are of different versions");
    headrace_flow* flow = NULL;
    headrace_stream* stream = NULL;
    if (headrace_open(arguments[2], &flow) != HEADRACE_OK) return fail(headrace_message());
    if (headrace_dtype_of(flow) != HEADRACE_FLOAT32) return fail("expected a flow of float32");
    int code = headrace_stream_open(flow, 1, NULL, &stream);
    headrace_close(flow); /* the stream does not need the flow */
    if (code == HEADRACE_OK) code = push(stream, scores);
    if (code == HEADRACE_OK && !scores)
        code = pull(stream, strtoll(arguments[3], NULL, 10), strtoull(arguments[4], NULL, 10));
    headrace_stream_close(stream);
    return code == HEADRACE_OK ? 0 : fail(headrace_message());
}
