// containers FLOW.safetensors SEQUENCES.safetensors: calls every function of headrace_library.hpp with const and other
// vectors, arrays and spans as rows, contexts and results. FLOW has 3 columns and 2 columns of context, in double;
// SEQUENCES has one feature and one column of context, in float.
#include <array>
#include <cstdio>
#include <headrace_library.hpp>

namespace {

using headrace::library::Flow;
using headrace::library::Stream;

int failed = 0;

void expect(bool is_right, const char* what) {
    if (is_right) return;
    std::printf("failed: %s\n", what);
    ++failed;
}

template <class A, class B>
bool equal(const A& a, const B& b) {
    return std::size(a) == std::size(b) && std::equal(std::begin(a), std::end(a), std::begin(b));
}

// Calls f with values in each container, the values as they were before each call.
template <class T, std::size_t n, class F>
void with_each(const std::array<T, n>& values, const F& f) {
    std::vector<T> vector(values.begin(), values.end());
    std::array<T, n> array = values;
    const std::vector<T> const_vector = vector;
    f(vector);
    f(const_vector);
    f(array);
    f(values);
    f(std::span<T>(vector));
    f(std::span<const T>(vector));
    f(std::span<T, n>(array));
    expect(equal(vector, values) && equal(array, values), "what is read is not written");
}
template <class T, std::size_t n, class F>
void into_each(const F& f) {
    std::vector<T> vector(n), behind(n);
    std::array<T, n> array{};
    f(vector);
    f(array);
    f(std::span<T>(behind));
    expect(equal(vector, array) && equal(vector, behind), "results are equal");
}

template <class F, class Out>
concept writes_to = requires(const F& flow, Out& out, const std::vector<double>& x) { flow.log_prob_into(out, x, x); };
static_assert(writes_to<Flow<double>, std::vector<double>>);
static_assert(!writes_to<Flow<double>, const std::vector<double>>);
static_assert(!writes_to<Flow<double>, std::span<const double>>);

void rows(const char* path) {
    const Flow<double> flow(path);
    constexpr std::array<double, 6> x{0.1, -0.4, 1.2, 0.7, 0.3, -1.5};
    constexpr std::array<double, 2> one{0.5, -0.25};
    constexpr std::array<double, 4> each{0.5, -0.25, 1.0, 0.75};
    const auto want = flow.log_prob(x, each);
    const auto latent = flow.to_latent(x, each);
    const auto gradient = flow.gradient(x, each);
    const auto drawn = flow.sample_and_log_prob(2, 7, each, 20);
    expect(equal(flow.log_prob(std::span(x).first(3), one), std::span(want).first(1)), "one context for all rows");
    with_each(x, [&](auto&& some) {
        with_each(each, [&](auto&& context) {
            expect(equal(flow.log_prob(some, context), want), "log_prob");
            into_each<double, 2>([&](auto&& out) {
                flow.log_prob_into(out, some, context);
                expect(equal(out, want), "log_prob_into");
            });
            expect(equal(flow.to_latent(some, context).rows, latent.rows), "to_latent");
            expect(equal(flow.to_data(some, context).log_det, flow.to_data(x, each).log_det), "to_data");
            expect(equal(flow.gradient(some, context).by_context, gradient.by_context), "gradient");
        });
    });
    with_each(each, [&](auto&& context) {
        expect(equal(flow.sample(2, 7, context, 20), drawn.rows), "sample");
        expect(equal(flow.sample_and_log_prob(2, 7, context, 20).log_prob, drawn.log_prob), "sample_and_log_prob");
        into_each<double, 6>([&](auto&& to) {
            flow.sample_into(to, 7, context, 20);
            expect(equal(to, drawn.rows), "sample_into");
            into_each<double, 2>([&](auto&& log_prob) {
                flow.sample_and_log_prob_into(to, log_prob, 7, context, 20);
                expect(equal(log_prob, drawn.log_prob), "sample_and_log_prob_into");
            });
        });
    });
    for (const auto& values : {flow.sample(2, 7, one, 20), flow.sample_and_log_prob(2, 7, one, 20).log_prob})
        for (const double value : values) std::printf("%.17g\n", value);
}

void sequences(const char* path) {
    const Flow<float> flow(path);
    constexpr std::array<float, 4> x{0.1f, -0.4f, 1.2f, 0.7f};
    constexpr std::array<float, 1> condition{0.5f};
    const auto want = flow.stream(1, condition).push(x);
    const auto next = flow.stream(1, condition).pull(4, 7);
    with_each(condition, [&](auto&& context) {
        with_each(x, [&](auto&& steps) {
            Stream<float> stream = flow.stream(1, context);
            const std::int64_t begin = stream.position();
            const std::vector<float> before = stream.state();
            expect(equal(stream.push(steps), want), "push");
            stream.set_state(begin, before);
            into_each<float, 4>([&](auto&& out) {
                stream.set_state(begin, std::span(before));
                stream.push_into(out, steps);
                expect(equal(out, want), "push_into");
            });
        });
        into_each<float, 4>([&](auto&& out) {
            flow.stream(1, context).pull_into(out, 7);
            expect(equal(out, next), "pull_into");
        });
    });
}

}  // namespace

int main(int n, char** arguments) {
    if (n != 3) return 2;
    rows(arguments[1]);
    sequences(arguments[2]);
    return failed != 0;
}
