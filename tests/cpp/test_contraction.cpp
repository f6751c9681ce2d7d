// Tests that no bit of cpp/math depends on which products and sums a compiler contracts to multiply-adds, and that none
// are contracted in code beside the kernels.
#include "contraction.hpp"

#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "../../cpp/math/lane.hpp"
#include "check.hpp"
#include "sets.hpp"

using namespace headrace;
using namespace headrace::tests;

namespace {

void test_same_bits(const char* set, Evaluate contracted, Evaluate apart) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0.0f, 1.5f);
    std::vector<float> inputs(64 * granule), results, expected;
    for (float& x : inputs) x = normal(random);
    contracted(inputs.data(), int64_t(inputs.size()), results);
    apart(inputs.data(), int64_t(inputs.size()), expected);
    CHECK(results.size() == expected.size() && !results.empty(), "%s: %zu and %zu results", set, results.size(),
          expected.size());
    size_t differ = 0, first = 0, finite = 0;
    for (size_t i = 0; i < results.size(); ++i) {
        if (std::isfinite(expected[i])) ++finite;
        if (std::isnan(results[i]) && std::isnan(expected[i])) continue;
        if (std::memcmp(&results[i], &expected[i], sizeof(float)) == 0) continue;
        if (differ++ == 0) first = i;
    }
    std::printf("%s: %zu results, %zu of them finite\n", set, results.size(), finite);
    CHECK(finite > results.size() * 9 / 10, "%s: only %zu of %zu results are finite", set, finite, results.size());
    CHECK(differ == 0, "%s: %zu of %zu results differ, the first is %zu: %.9g and %.9g", set, differ, results.size(),
          first, double(results[first]), double(expected[first]));
}

// This file is compiled with the options of code beside kernels, whose results have equal bits on processors with
// multiply-adds.
static_assert(!HR_HAS_FMA);

[[gnu::noinline]] double product_less(double a, double b, double c) {
    return a * b - c;
}

void test_code_beside_kernels_rounds_products() {
    const volatile double a = 1 + 0x1p-30, rounded = a * a;
    CHECK(product_less(a, a, rounded) == 0, "the square of %.17g and its rounding differ", a);
}

}  // namespace

int main() {
    test_code_beside_kernels_rounds_products();
    for (const NamedSet& named : runnable_sets()) {
        const std::string name = named.name;
#define X(set) \
    if (name == #set) test_same_bits(#set, evaluate_##set, evaluate_##set##_apart);
        HR_SETS
#undef X
    }
    return finish();
}
