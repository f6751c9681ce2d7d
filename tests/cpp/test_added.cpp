// Tests of programs on the CPU with a conditioner over time that only tests have: one object for rows of few and of
// many steps, in both directions, and gradients against differences. tests/cuda_emulation/added defines the
// conditioner; tests/core/test_added_kinds.py compares it with a reference.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../../cpp/core/program.hpp"
#include "../cuda_emulation/added/echo_conditioner.hpp"
#include "check.hpp"

namespace headrace {
namespace {

using Numbers = std::vector<double>;

Numbers some_numbers(size_t n, double size, uint32_t seed) {
    Numbers out(n);
    for (double& x : out) {
        seed = seed * 1664525u + 1013904223u;
        x = size * double(int32_t(seed)) * 0x1p-31;
    }
    return out;
}

ArrayView view_of(const Numbers& rows, int columns) {
    return {reinterpret_cast<const char*>(rows.data()), int64_t(columns) * 8, 8, true, nullptr};
}

struct Result {
    Numbers value, log_det;
};

Result run(const Program<double>& program, const Numbers& given, bool inverse) {
    const int64_t rows = int64_t(given.size()) / program.features();
    Result out{Numbers(given.size()), Numbers(size_t(rows))};
    const ArrayView input = view_of(given, program.features());
    Request<double> request;
    request.inverse = inverse;
    request.rows = rows;
    request.input = &input;
    request.value = out.value.data();
    request.log_det = out.log_det.data();
    program.run(request);
    return out;
}

double largest_difference(const Numbers& a, const Numbers& b, double sign = 1) {
    double most = 0;
    for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - sign * b[i]));
    return most;
}

// Compares gradients of a scalar that depends on values and log-determinants with differences of the scalar.
void check_gradients(Program<double>& program, const Numbers& weights, const Numbers& given, bool inverse) {
    const int columns = program.features(), rows = int(given.size()) / columns;
    const Numbers by_value = some_numbers(given.size(), 1, 5), by_row = some_numbers(size_t(rows), 1, 6);
    Numbers by_input(given.size()), by_weights(program.n_weights());
    const ArrayView input = view_of(given, columns);
    Request<double> request;
    request.inverse = inverse;
    request.rows = rows;
    request.input = &input;
    GradientRequest<double> gradient;
    gradient.from = {view_of(by_value, columns), view_of(by_row, 1), 1.0, false};
    gradient.input = by_input.data();
    gradient.weights = by_weights.data();
    program.run_gradient(request, gradient, program.snapshot());
    const auto number = [&](const Numbers& at) {
        const Result out = run(program, at, inverse);
        double sum = 0;
        for (size_t i = 0; i < at.size(); ++i) sum += by_value[i] * out.value[i];
        for (size_t r = 0; r < by_row.size(); ++r) sum += by_row[r] * out.log_det[r];
        return sum;
    };
    constexpr double step = 1e-6, allowed = 1e-6;
    for (size_t i = 0; i < given.size(); ++i) {
        Numbers up = given, down = given;
        up[i] += step;
        down[i] -= step;
        const double want = (number(up) - number(down)) / (2 * step);
        CHECK(std::abs(by_input[i] - want) < allowed, "by input %zu of %d steps: %g, not %g", i, columns, by_input[i],
              want);
    }
    for (size_t i = 0; i < weights.size(); ++i) {
        double numbers[2];
        for (const int side : {0, 1}) {
            Numbers moved = weights;
            moved[i] += side ? step : -step;
            program.set_weights(moved.data());
            numbers[side] = number(given);
        }
        program.set_weights(weights.data());
        const double want = (numbers[1] - numbers[0]) / (2 * step);
        CHECK(std::abs(by_weights[i] - want) < allowed, "by weight %zu, %d steps: %g, not %g", i, columns,
              by_weights[i], want);
    }
}

void test_rows_of_any_number_of_steps() {
    MapSettings affine;
    affine.name = "affine";
    affine.variant = "soft_clamp";
    const auto map = std::make_shared<TransformMap>(affine);
    const auto echo = std::make_shared<EchoConditioner>(4, map->n_params(1));
    const Numbers weights = some_numbers(echo->n_weights(), 0.3, 1);
    for (const bool reads_data : {true, false})
        for (const int steps : {1, 3, 300})
            for (const int rows : {1, 5, 40}) {
                Program<double> program(steps, 0, Base::normal, {NetworkSpec{false, reads_data, map, echo}});
                program.set_weights(weights.data());
                const Numbers z = some_numbers(size_t(steps) * size_t(rows), 1, 2);
                const Result there = run(program, z, false), back = run(program, there.value, true);
                const double value = largest_difference(back.value, z);
                const double log_det = largest_difference(back.log_det, there.log_det, -1);
                CHECK(value < 1e-12 && log_det < 1e-11, "%d rows of %d steps: %g, log-determinant %g", rows, steps,
                      value, log_det);
                CHECK(largest_difference(there.value, z) > 1e-3, "%d rows of %d steps: they did not move", rows, steps);
                if (steps > 3 || rows > 5) continue;
                check_gradients(program, weights, z, false);
                check_gradients(program, weights, z, true);
            }
}

}  // namespace
}  // namespace headrace

int main() {
    headrace::test_rows_of_any_number_of_steps();
    return headrace::tests::finish();
}
