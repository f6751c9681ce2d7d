// posterior DENSITY.safetensors VALUE ...: the mean and the standard deviation of each column of a density that is
// conditional on these values, from 10,000 draws, and the log density at the mean with its gradient.
//
//     c++ -std=c++20 posterior.cpp $(python -m headrace.config --cflags --libs) -o posterior
#include <headrace_library.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace {

void print(const char* path, const std::vector<double>& observed) {
    constexpr std::size_t draws = 10000;
    const headrace::library::Flow<double> flow(path);
    const std::size_t n = flow.features();
    const std::vector<double> rows = flow.sample(draws, 1, observed);
    std::vector<double> mean(n), square(n);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        mean[i % n] += rows[i] / draws;
        square[i % n] += rows[i] * rows[i] / draws;
    }
    const auto at_mean = flow.gradient(mean, observed);
    for (std::size_t c = 0; c < n; ++c)
        std::printf("%.6g,%.6g,%.6g\n", mean[c], std::sqrt(square[c] - mean[c] * mean[c]), at_mean.by_x[c]);
    std::printf("%.17g\n", at_mean.log_prob[0]);
}

}  // namespace

int main(int n, char** arguments) {
    if (n < 2) {
        std::fprintf(stderr, "usage: posterior DENSITY.safetensors VALUE ...\n");
        return 2;
    }
    std::vector<double> observed;
    for (int i = 2; i < n; ++i) observed.push_back(std::strtod(arguments[i], nullptr));
    try {
        print(arguments[1], observed);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "posterior: error: %s\n", error.what());
        return 1;
    }
    return 0;
}
