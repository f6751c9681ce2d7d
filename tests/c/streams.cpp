// streams FLOW.safetensors: prints log densities of 24 steps, and 4 steps each of two continuations, one value a line.
#include <cmath>
#include <cstdio>
#include <headrace_library.hpp>

int main(int n, char** arguments) {
    using headrace::library::Flow;
    if (n != 2) return 2;
    try {
        const std::vector<float> condition{0.5f}, frames{1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1};
        std::vector<float> x;
        for (int t = 0; t < 24; ++t) x.push_back(static_cast<float>(std::sin(t / 3.0)));
        const Flow<float> flow(arguments[1]);
        auto stream = flow.stream(1, condition);
        stream.extend(8, frames);
        const std::span<const float> all(x);
        for (const float score : stream.push(all.first(10))) std::printf("%.9g\n", double(score));
        auto again = flow.stream(1, condition);  // a stream that continues from a state
        again.set_state(stream.position(), stream.state());
        again.extend(6, std::span<const float>(frames).subspan(4));
        for (const float score : again.push(all.subspan(10))) std::printf("%.9g\n", double(score));
        for (const float value : again.copies(2).pull(4, 7)) std::printf("%.9g\n", double(value));
        if (!flow.is_sequence() || again.rows() != 1 || again.position() != 24) return 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "streams: error: %s\n", error.what());
        return 1;
    }
    return 0;
}
