// A causal network by hand, for comparison: loops for fixed sizes, without layouts, checks, contexts or threads.
//
//   anchor WEIGHTS      each line of the standard input is answered by a line with the seconds of the processor
//     stream T          one stream, one step after another: lanes are units, old taps are computed ahead
//     pairs T           `stream` with weights in bf16, two in a word; the file's weights have to be exact in bf16
//     streams T         48 streams together: lanes are streams
//     density T         log densities of one long sequence: lanes are positions
//     outputs T FILE    writes the parameters of T positions of `density`'s sequence to a file, for a comparison
//
// The file WEIGHTS has int32 values (channels, kernel, layers, dilations), and then float32 tensors in the order of the
// list of names (docs/files.md). Skip sums are as wide as channels; values and parameters are those of an affine map of
// one value.
#include <time.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int lanes = 16;
typedef float V __attribute__((vector_size(4 * lanes)));
typedef int32_t I __attribute__((vector_size(4 * lanes)));

V load(const float* p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}
void store(float* p, V v) {
    memcpy(p, &v, sizeof v);
}
V all(float x) {
    return x - V{};
}
V least(V a, V b) {
    return a < b ? a : b;
}
V most(V a, V b) {
    return a > b ? a : b;
}
V relu(V a) {
    return most(a, V{});
}

V exponential(V x) {
    x = most(least(x, all(87.f)), all(-87.f));
    const V shifted = x * 1.44269504f + 12582912.f;  // adding 1.5 2^23 rounds
    const V n = shifted - 12582912.f;
    V r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    V p = all(1.3888889e-3f);
    for (const float c : {8.3333333e-3f, 4.1666667e-2f, 1.6666667e-1f, 0.5f, 1.f, 1.f}) p = p * r + c;
    const I power = (__builtin_convertvector(n, I) + 127) << 23;
    V scale;
    memcpy(&scale, &power, sizeof scale);
    return p * scale;
}

// The gate tanh(a) sigmoid(b), by two exponentials and one division.
V gate(V a, V b) {
    const V e = exponential(most(least(a, all(15.f)), all(-15.f)) * -2.f), f = exponential(-most(b, all(-40.f)));
    return (1.f - e) / ((1.f + e) * (1.f + f));
}

struct Memory {  // zeroed memory that begins on a cache line
    explicit Memory(size_t n = 0) : data(static_cast<float*>(aligned_alloc(64, (4 * n + 127) / 64 * 64)), free) {
        memset(data.get(), 0, 4 * n);
    }
    operator float*() const { return data.get(); }
    std::shared_ptr<float> data;
};

typedef uint32_t U __attribute__((vector_size(4 * lanes)));

struct Pair {  // the weights of an even input and of the next one, in the halves of a word
    uint32_t word;
};

struct Layer {
    int dilation;
    Memory gate, gate_bias, out, out_bias;  // [tap][channel][units]: a line of units for each input
    Memory gate_pairs, out_pairs;           // weights as Pair
};

struct Network {
    int channels, kernel;
    std::vector<Layer> layers;
    Memory input, input_bias, head, head_bias, last, last_bias;
};

// Reads a tensor (units, inputs, taps) into lines of `stride` units, from the unit `first` on.
void lines(FILE* file, float* to, int units, int inputs, int taps, int stride, int first = 0) {
    std::vector<float> w(size_t(units) * inputs * taps);
    if (fread(w.data(), 4, w.size(), file) != w.size()) exit(2);
    for (int u = 0; u < units; ++u)
        for (int i = 0; i < inputs; ++i)
            for (int k = 0; k < taps; ++k)
                to[(size_t(k) * inputs + i) * stride + first + u] = w[(size_t(u) * inputs + i) * taps + k];
}

Memory pairs(const float* w, int inputs, int stride) {
    Memory made(size_t(inputs / 2) * stride);
    for (int i = 0; i < inputs; i += 2)
        for (int u = 0; u < stride; ++u) {
            uint32_t even, odd;
            memcpy(&even, w + size_t(i) * stride + u, 4);
            memcpy(&odd, w + size_t(i + 1) * stride + u, 4);
            const uint32_t word = even >> 16 | (odd & 0xffff0000u);
            memcpy(made + size_t(i / 2) * stride + u, &word, 4);
        }
    return made;
}

// Reads the weights. Residual and skip units are one product; the last layer has only skip units, and zeros for
// residual units.
Network read(FILE* file) {
    int32_t sizes[3];
    if (fread(sizes, 4, 3, file) != 3) exit(2);
    Network n;
    const int R = n.channels = sizes[0], K = n.kernel = sizes[1];
    std::vector<int32_t> dilations(sizes[2]);
    if (fread(dilations.data(), 4, dilations.size(), file) != dilations.size()) exit(2);
    n.input = Memory(K * R), n.input_bias = Memory(R);
    lines(file, n.input, R, 1, K, R);
    lines(file, n.input_bias, R, 1, 1, R);
    for (const int d : dilations) {
        const bool is_last = n.layers.size() + 1 == dilations.size();
        Layer l{
            d,       Memory(size_t(K) * R * 2 * R), Memory(2 * R), Memory(size_t(R) * 2 * R), Memory(2 * R), Memory(),
            Memory()};
        lines(file, l.gate, 2 * R, R, K, 2 * R);
        lines(file, l.gate_bias, 2 * R, 1, 1, 2 * R);
        lines(file, l.out, is_last ? R : 2 * R, R, 1, 2 * R, is_last ? R : 0);
        lines(file, l.out_bias, is_last ? R : 2 * R, 1, 1, 2 * R, is_last ? R : 0);
        l.gate_pairs = pairs(l.gate, K * R, 2 * R);
        l.out_pairs = pairs(l.out, R, 2 * R);
        n.layers.push_back(l);
    }
    n.head = Memory(size_t(R) * R), n.head_bias = Memory(R), n.last = Memory(R * lanes), n.last_bias = Memory(lanes);
    lines(file, n.head, R, R, 1, R);
    lines(file, n.head_bias, R, 1, 1, R);
    lines(file, n.last, 2, R, 1, lanes);
    lines(file, n.last_bias, 2, 1, 1, lanes);
    return n;
}

float log_scale(float raw) {
    return raw / (1.f + std::fabs(raw) / 6.9077553f);
}  // the soft clamp of slope 1e-3

// ---- one stream: lanes are units
// -------------------------------------------------------------------------------------

constexpr int ahead = 8;

template <int N>
void add(V* sum, const float* w, const float* x, int inputs, int stride) {
    for (int i = 0; i < inputs; ++i)
        for (int v = 0; v < N; ++v) sum[v] += x[i] * load(w + size_t(i) * stride + lanes * v);
}

V as_floats(U bits) {
    V v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

template <int N>
void add(V* sum, const Pair* w, const float* x, int inputs, int stride) {
    for (int i = 0; i < inputs; i += 2)
        for (int v = 0; v < N; ++v) {
            U pair;
            memcpy(&pair, w + size_t(i / 2) * stride + lanes * v, sizeof pair);
            sum[v] += x[i] * as_floats(pair << 16);
            sum[v] += x[i + 1] * as_floats(pair & 0xffff0000u);
        }
}

const float* gate_of(const Layer& layer, const float*, size_t i, int stride) {
    return layer.gate + i * stride;
}
const Pair* gate_of(const Layer& layer, const Pair*, size_t i, int stride) {
    return reinterpret_cast<const Pair*>(layer.gate_pairs + i / 2 * stride);
}
const float* out_of(const Layer& layer, const float*) {
    return layer.out;
}
const Pair* out_of(const Layer& layer, const Pair*) {
    return reinterpret_cast<const Pair*>(static_cast<float*>(layer.out_pairs));
}

// One stream; the type Weight is float or Pair.
template <int R, int K, class Weight>
class Stream {
  public:
    explicit Stream(const Network& n) : n_(n), past_(K) {
        for (const Layer& l : n.layers) {
            rings_.emplace_back(size_t(K - 1) * l.dilation * R);
            known_.emplace_back(size_t(ahead) * 2 * R);
        }
    }

    void draw(const float* noise, float* x, int steps) {
        for (int t = 0; t < steps; ++t) {
            float raw[2];
            outputs(raw);
            x[t] = raw[0] + std::exp(log_scale(raw[1])) * noise[t];
            for (int k = 0; k + 1 < K; ++k) past_[k] = past_[k + 1];
            past_[K - 1] = x[t];
        }
    }

  private:
    static constexpr int units = 2 * R / lanes, half = R / lanes;

    static const Weight* gate_line(const Layer& layer, int i) {
        return gate_of(layer, static_cast<const Weight*>(nullptr), size_t(i), 2 * R);
    }

    void outputs(float* raw) {
        alignas(64) float h[R], z[R];
        V sum[units], skip[half] = {};
        for (int v = 0; v < half; ++v) sum[v] = load(n_.input_bias + lanes * v);
        add<half>(sum, n_.input, past_.data(), K, R);
        for (int v = 0; v < half; ++v) store(h + lanes * v, sum[v]);
        for (size_t l = 0; l < n_.layers.size(); ++l) {
            const Layer& layer = n_.layers[l];
            const int64_t slots = int64_t(K - 1) * layer.dilation, at = step_ % slots;
            start(l, sum);
            add<units>(sum, gate_line(layer, (K - 1) * R), h, R, 2 * R);
            memcpy(rings_[l] + at * R, h, sizeof h);
            for (int v = 0; v < half; ++v) store(z + lanes * v, gate(sum[v], sum[v + half]));
            for (int v = 0; v < units; ++v) sum[v] = load(layer.out_bias + lanes * v);
            add<units>(sum, out_of(layer, static_cast<const Weight*>(nullptr)), z, R, 2 * R);
            for (int v = 0; v < half; ++v) {
                store(h + lanes * v, load(h + lanes * v) + sum[v]);
                skip[v] += sum[v + half];
            }
        }
        for (int v = 0; v < half; ++v) {
            store(h + lanes * v, relu(skip[v]));
            sum[v] = load(n_.head_bias + lanes * v);
        }
        add<half>(sum, n_.head, h, R, R);
        for (int v = 0; v < half; ++v) store(z + lanes * v, relu(sum[v]));
        V last = load(n_.last_bias);
        add<1>(&last, n_.last, z, R, lanes);
        raw[0] = last[0], raw[1] = last[1];
        ++step_;
    }

    // Sums biases and old taps, for several steps at once in layers whose dilation is large enough.
    void start(size_t l, V* sum) {
        const Layer& layer = n_.layers[l];
        const int64_t slots = int64_t(K - 1) * layer.dilation;
        if (layer.dilation < ahead) {
            for (int v = 0; v < units; ++v) sum[v] = load(layer.gate_bias + lanes * v);
            for (int k = 0; k + 1 < K; ++k)
                add<units>(sum, gate_line(layer, k * R), rings_[l] + (step_ + k * layer.dilation) % slots * R, R,
                           2 * R);
            return;
        }
        if (step_ % ahead == 0)
            for (int s = 0; s < ahead; s += 4)
                for (int v = 0; v < units; v += 4) several(l, s, v);
        for (int v = 0; v < units; ++v) sum[v] = load(known_[l] + step_ % ahead * 2 * R + lanes * v);
    }

    void several(size_t l, int s, int v) {
        const Layer& layer = n_.layers[l];
        const int64_t slots = int64_t(K - 1) * layer.dilation;
        V sum[4][4];
        for (int q = 0; q < 4; ++q)
            for (int j = 0; j < 4; ++j) sum[q][j] = load(layer.gate_bias + lanes * (v + j));
        for (int k = 0; k + 1 < K; ++k) {
            const float* x[4];
            for (int q = 0; q < 4; ++q) x[q] = rings_[l] + (step_ + s + q + k * layer.dilation) % slots * R;
            for (int i = 0; i < R; i += 2) several_inputs(sum, gate_line(layer, k * R + i) + lanes * v, x, i);
        }
        for (int q = 0; q < 4; ++q)
            for (int j = 0; j < 4; ++j) store(known_[l] + (s + q) * 2 * R + lanes * (v + j), sum[q][j]);
    }

    // Adds the products of two inputs for four steps and four vectors.
    static void several_inputs(V (&sum)[4][4], const float* w, const float* const* x, int i) {
        for (int odd = 0; odd < 2; ++odd, w += 2 * R)
            for (int j = 0; j < 4; ++j) {
                const V weight = load(w + lanes * j);
                for (int q = 0; q < 4; ++q) sum[q][j] += x[q][i + odd] * weight;
            }
    }

    static void several_inputs(V (&sum)[4][4], const Pair* w, const float* const* x, int i) {
        for (int j = 0; j < 4; ++j) {
            U pair;
            memcpy(&pair, w + lanes * j, sizeof pair);
            const V even = as_floats(pair << 16), odd = as_floats(pair & 0xffff0000u);
            for (int q = 0; q < 4; ++q) sum[q][j] += x[q][i] * even;
            for (int q = 0; q < 4; ++q) sum[q][j] += x[q][i + 1] * odd;
        }
    }

    const Network& n_;
    std::vector<Memory> rings_, known_;
    std::vector<float> past_;
    int64_t step_ = 0;
};

// ---- products whose lanes are streams or positions
// -------------------------------------------------------------------

constexpr int block = 8, vectors = 3;

// Computes to[unit][lane] = bias + sum over taps and inputs; a tap's lines are `row` apart and begin at x[tap].
template <int U, class After>
void product(const float* bias, const float* w, int stride, const float* const* x, int taps, int inputs, size_t row,
             After after) {
    V sum[U][vectors];
    for (int u = 0; u < U; ++u)
        for (int j = 0; j < vectors; ++j) sum[u][j] = all(bias[u]);
    for (int k = 0; k < taps; ++k)
        for (int i = 0; i < inputs; ++i) {
            V v[vectors];
            for (int j = 0; j < vectors; ++j) v[j] = load(x[k] + i * row + lanes * j);
            for (int u = 0; u < U; ++u)
                for (int j = 0; j < vectors; ++j) sum[u][j] += w[(size_t(k) * inputs + i) * stride + u] * v[j];
        }
    for (int u = 0; u < U; ++u)
        for (int j = 0; j < vectors; ++j) after(u, j, sum[u][j]);
}

// One layer for 3 vectors of lanes: `x` points to its taps; lines of `h` and `skip` are `row` values apart.
template <int R, int K>
void layer_of(const Layer& layer, const float* const* x, size_t from_row, float* h, float* skip, size_t row) {
    constexpr int width = lanes * vectors;
    alignas(64) static float a[2 * R * width], z[R * width];
    for (int u = 0; u < 2 * R; u += block)
        product<block>(layer.gate_bias + u, layer.gate + u, 2 * R, x, K, R, from_row,
                       [&](int q, int j, V v) { store(a + (u + q) * width + lanes * j, v); });
    for (int i = 0; i < R * width; i += lanes) store(z + i, gate(load(a + i), load(a + R * width + i)));
    const float* const taps[] = {z};
    for (int u = 0; u < 2 * R; u += block) {
        float* const to = u < R ? h + u * row : skip + (u - R) * row;
        product<block>(layer.out_bias + u, layer.out + u, 2 * R, taps, 1, R, width, [&](int q, int j, V v) {
            float* const at = to + q * row + lanes * j;
            store(at, load(at) + v);
        });
    }
}

// Computes raw[2][3 vectors] from skip sums.
template <int R>
void head_of(const Network& n, const float* skip, size_t row, float* raw) {
    constexpr int width = lanes * vectors;
    alignas(64) static float a[R * width], b[R * width];
    for (int u = 0; u < R; ++u)
        for (int j = 0; j < vectors; ++j) store(a + u * width + lanes * j, relu(load(skip + u * row + lanes * j)));
    const float *const first[] = {a}, *const second[] = {b};
    for (int u = 0; u < R; u += block)
        product<block>(n.head_bias + u, n.head + u, R, first, 1, R, width,
                       [&](int q, int j, V v) { store(b + (u + q) * width + lanes * j, relu(v)); });
    product<2>(n.last_bias, n.last, lanes, second, 1, R, width,
               [&](int q, int j, V v) { store(raw + q * width + lanes * j, v); });
}

template <int R, int K>
class Streams {
  public:
    static constexpr int count = lanes * vectors;

    explicit Streams(const Network& n) : n_(n), past_(K * count), h_(R * count), skip_(R * count) {
        for (const Layer& l : n.layers) rings_.emplace_back(size_t(K - 1) * l.dilation * R * count);
    }

    void draw(const float* noise, float* x, int steps) {
        alignas(64) float raw[2 * count];
        for (int t = 0; t < steps; ++t, ++step_) {
            const float* const taps[] = {past_};
            for (int u = 0; u < R; u += block)
                product<block>(n_.input_bias + u, n_.input + u, R, taps, 1, K, count,
                               [&](int q, int j, V v) { store(h_ + (u + q) * count + lanes * j, v); });
            memset(skip_, 0, 4 * R * count);
            for (size_t l = 0; l < n_.layers.size(); ++l) {
                const Layer& layer = n_.layers[l];
                const int64_t slots = int64_t(K - 1) * layer.dilation;
                const float* x_of[K];
                for (int k = 0; k + 1 < K; ++k) x_of[k] = rings_[l] + (step_ + k * layer.dilation) % slots * R * count;
                x_of[K - 1] = now_;
                memcpy(now_, h_, 4 * R * count);
                layer_of<R, K>(layer, x_of, count, h_, skip_, count);
                memcpy(rings_[l] + step_ % slots * R * count, now_, 4 * R * count);
            }
            head_of<R>(n_, skip_, count, raw);
            memmove(past_, past_ + count, 4 * (K - 1) * count);
            for (int s = 0; s < count; s += lanes) {
                const V a = load(raw + count + s), scale = exponential(a / (1.f + most(a, -a) / 6.9077553f));
                const V value = load(raw + s) + scale * load(noise + s);
                store(past_ + (K - 1) * count + s, value);
                store(x + size_t(t) * count + s, value);
            }
        }
    }

  private:
    const Network& n_;
    std::vector<Memory> rings_;
    Memory past_, h_, skip_, now_ = Memory(R * count);
    int64_t step_ = 0;
};

// ---- one long sequence: lanes are positions
// --------------------------------------------------------------------------

template <int R, int K>
class Windows {
  public:
    static constexpr int window = 10 * lanes * vectors;

    explicit Windows(const Network& n) : n_(n), skip_(size_t(R) * window), h_(size_t(R) * window) {
        for (const Layer& l : n.layers) lines_.emplace_back(size_t(R) * row(l));
    }

    // The sum of log densities; K zeros precede x, which has values for whole windows. raw is [position][2], or null.
    double density(const float* x, int steps, float* raw) {
        for (size_t l = 0; l < lines_.size(); ++l) memset(lines_[l], 0, 4 * R * row(n_.layers[l]));
        double sum = 0;
        for (int t = 0; t < steps; t += window) sum += one(x + t, raw ? raw + 2 * size_t(t) : nullptr);
        return sum;
    }

  private:
    static size_t row(const Layer& l) { return size_t(K - 1) * l.dilation + window; }

    double one(const float* x, float* raw) {
        constexpr int width = lanes * vectors;
        memset(skip_, 0, 4 * size_t(R) * window);
        for (int p = 0; p < window; p += width) {
            const float* taps[K];
            for (int k = 0; k < K; ++k) taps[k] = x + p + k - K;
            for (int u = 0; u < R; u += block)
                product<block>(n_.input_bias + u, n_.input + u, R, taps, K, 1, 0,
                               [&](int q, int j, V v) { store(h_ + size_t(u + q) * window + p + lanes * j, v); });
        }
        for (size_t l = 0; l < lines_.size(); ++l) {
            const Layer& layer = n_.layers[l];
            const size_t own = row(layer), past = own - window;
            for (int r = 0; r < R; ++r) memcpy(lines_[l] + r * own + past, h_ + size_t(r) * window, 4 * window);
            for (int p = 0; p < window; p += width) {
                const float* taps[K];
                for (int k = 0; k < K; ++k) taps[k] = lines_[l] + p + size_t(k) * layer.dilation;
                layer_of<R, K>(layer, taps, own, h_ + p, skip_ + p, window);
            }
            for (int r = 0; r < R; ++r) memmove(lines_[l] + r * own, lines_[l] + r * own + window, 4 * past);
        }
        alignas(64) float made[2 * width];
        V sum = {};
        for (int p = 0; p < window; p += width) {
            head_of<R>(n_, skip_ + p, window, made);
            for (int j = 0; j < width; j += lanes) {
                const V a = load(made + width + j), log = a / (1.f + most(a, -a) / 6.9077553f);
                const V z = (load(x + p + j) - load(made + j)) * exponential(-log);
                sum += -0.5f * z * z - log - 0.9189385f;
            }
            for (int j = 0; raw && j < width; ++j) raw[2 * (p + j)] = made[j], raw[2 * (p + j) + 1] = made[width + j];
        }
        double total = 0;
        for (int j = 0; j < lanes; ++j) total += sum[j];
        return total;
    }

    const Network& n_;
    std::vector<Memory> lines_;
    Memory skip_, h_;
};

double now() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

template <int R, int K>
void serve(const Network& n) {
    std::string verb, file;
    for (int steps; std::cin >> verb >> steps;) {
        std::mt19937 generator(1);
        std::normal_distribution<float> normal;
        constexpr int most_streams = Streams<R, K>::count;
        steps = (steps + Windows<R, K>::window - 1) / Windows<R, K>::window * Windows<R, K>::window;
        std::vector<float> noise(K + size_t(steps) + most_streams), x(size_t(steps) * most_streams);
        for (size_t i = K; i < noise.size(); ++i) noise[i] = normal(generator);
        double check = 0, begin = 0, end = 0;
        const auto draw = [&](auto stream) {
            begin = now(), stream.draw(noise.data() + K, x.data(), steps), end = now();
            check = x[steps - 1];
        };
        if (verb == "stream") {
            draw(Stream<R, K, float>(n));
        } else if (verb == "pairs") {
            draw(Stream<R, K, Pair>(n));
        } else if (verb == "streams") {
            Streams<R, K> streams(n);
            begin = now(), streams.draw(noise.data() + K, x.data(), steps), end = now();
            check = x[size_t(steps) * most_streams - 1];
        } else {
            Windows<R, K> windows(n);
            std::vector<float> raw(verb == "outputs" ? 2 * size_t(steps) : 0);
            begin = now(), check = windows.density(noise.data() + K, steps, raw.empty() ? nullptr : raw.data());
            end = now();
            if (verb == "outputs") {
                std::cin >> file;
                FILE* const to = fopen(file.c_str(), "wb");
                if (!to) exit(2);
                fwrite(noise.data() + K, 4, size_t(steps), to);
                fwrite(raw.data(), 4, raw.size(), to);
                fclose(to);
            }
        }
        printf("%d %.9f %.9g\n", steps, end - begin, check);
        fflush(stdout);
    }
}

}  // namespace

int main(int, char** arguments) {
    FILE* const file = fopen(arguments[1], "rb");
    if (!file) return 2;
    const Network n = read(file);
    fclose(file);
    if (n.channels == 32 && n.kernel == 2)
        serve<32, 2>(n);
    else if (n.channels == 64 && n.kernel == 3)
        serve<64, 3>(n);
    else
        return 2;
}
