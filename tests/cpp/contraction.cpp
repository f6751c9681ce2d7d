#include "contraction.hpp"

#include "../../cpp/math/activations.hpp"
#include "../../cpp/math/ascent.hpp"
#include "../../cpp/math/base_density.hpp"
#include "../../cpp/math/density.hpp"
#include "../../cpp/math/gate.hpp"
#include "../../cpp/math/log_product.hpp"
#include "../../cpp/math/maps.hpp"
#include "../../cpp/math/pack.hpp"
#include "../../cpp/math/vector_maps.hpp"
#include "sets.hpp"

namespace headrace::tests {
namespace {

using V = Pack<float>;
constexpr int lanes = width<float>, features = 3, bins = 4;

// The inputs of one vector, further inputs for parameters, and the outputs, which are appended to `results`.
struct Inputs {
    const float* from;
    int64_t n, first;
    std::vector<float>& results;

    V operator()(int k) const { return load<float>(from + (first + int64_t(k) * 7 * granule) % n); }
    void put(V v) const {
        results.resize(results.size() + lanes);
        store<float>(results.data() + results.size() - lanes, v);
    }
};

void lane_functions(const Inputs& in) {
    const V x = in(0);
#define HR_PUT(name, expression) in.put(expression);
    HR_TESTED_FUNCTIONS(HR_PUT)
#undef HR_PUT
#define HR_PUT(i, type, name) in.put(type::slope(type::slope_of_value ? type::value(x) : x));
    HR_ACTIVATIONS(HR_PUT)
#undef HR_PUT
    in.put(log_of_one_and_square(x));
    double made[column_ready];
    prepare_student(1.25, made);
    float ready[column_ready];
    for (int i = 0; i < column_ready; ++i) ready[i] = float(made[i]);
    for (const ColumnDensity kind :
         {ColumnDensity::normal, ColumnDensity::logistic, ColumnDensity::uniform, ColumnDensity::student}) {
        in.put(column_log_density(kind, x, ready));
        in.put(column_slope(kind, x, ready));
    }
    in.put(student_by_log_df(x, ready));
    LogProduct<V> product;
    for (int k = 0; k < 4; ++k) {
        product.mantissa *= exp_moderate(in(k));
        product.rescale();
    }
    in.put(product.log());
    V derivative, sums[ascent_sum_count]{};
    in.put(ascent_moved(x, 0.3f, 0.2f, 0.7f, derivative));
    in.put(derivative);
    for (int k = 0; k < 4; ++k) ascent_add(in(k), in(k + 4), 0.2f, 0.7f, sums);
    for (const V& sum : sums) in.put(sum);
}

template <class Map>
void map_functions(const Inputs& in) {
    const MapOptions<float> o{.slope = 0.01f,
                              .inverse_clamp = 0.2171f,
                              .bins = bins,
                              .bound = 2.5f,
                              .low = -2.5f,
                              .min_bin = 0.003f,
                              .ends = ends_of<Map>(),
                              .tails = tails_of<Map>()};
    using Kernel = KernelOf<Map>;
    const auto p = [&](int k) { return in(k + 1); };
    const auto put = [&](int, V v) { in.put(v); };
    V log_det;
    const V x = Kernel::forward(in(0), p, o, log_det);
    in.put(x);
    in.put(log_det);
    const V z = Kernel::inverse(in(0), p, o, log_det);
    in.put(z);
    in.put(log_det);
    in.put(Kernel::forward_vjp(in(0), x, p, o, in(20), in(21), put));
    in.put(Kernel::inverse_vjp(in(0), z, p, o, in(20), in(21), put));
    if constexpr (requires { Kernel::ready_factors; }) {
        float ready[8 * bins + 8];
        Kernel::template prepare<float>([&](int k) { return in(k + 1)[0]; }, o, [&](int k, float v) { ready[k] = v; });
        V factor;
        in.put(Kernel::ready_forward(in(0), ready, o, factor));
        in.put(factor);
        in.put(Kernel::ready_inverse(in(0), ready, o, factor));
        in.put(factor);
    }
}

template <class Map, bool inverse>
void vector_direction(const Inputs& in, const V* ready) {
    MapOptions<float> o{};
    o.slope = 0.01f;
    const auto p = [&](int k, int = 0) { return ready[k]; };
    V sum[1] = {Map::template start<V>(p, features)}, amount[1], factor[1][Map::factors];
    auto reduced = Map::reduced(sum[0]);
    for (int c = 0; c < features; ++c) sum[0] = Map::accumulate(sum[0], in(c), p, c, features);
    if constexpr (inverse) {
        Map::inverse(sum, p, features, o, amount, factor);
    } else {
        Map::forward(sum, p, features, o, amount, factor);
    }
    for (const V& f : factor[0]) in.put(f);
    for (int c = 0; c < features; ++c) {
        const V moved = Map::move(in(c), amount[0], p, c, features);
        in.put(moved);
        Map::reduce(reduced, in(c), inverse ? moved : in(c), in(c + 5), p, c, features);
    }
    const auto put = [&](int, V v) { in.put(v); };
    const auto back = Map::template backward<inverse>(reduced, in(9), p, features, o, put);
    for (int c = 0; c < features; ++c) in.put(Map::spread(back, in(c), in(c + 5), p, c, features, put));
}

template <class Map>
void vector_functions(const Inputs& in) {
    V ready[2 * features + 2];
    const auto raw = [&](int k, int = 0) { return in(k + 1); };
    Map::template prepare<V>(raw, features, [&](int k, V v) {
        ready[k] = v;
        in.put(v);
    });
    Map::template prepare_vjp<V>(raw, [&](int k) { return in(k + 11); }, features, [&](int, V v) { in.put(v); });
    vector_direction<Map, false>(in, ready);
    vector_direction<Map, true>(in, ready);
}

void evaluate(const float* inputs, int64_t n, std::vector<float>& results) {
    for (int64_t i = 0; i < n; i += lanes) {
        const Inputs in{inputs, n, i, results};
        lane_functions(in);
#define HR_RUN(index, type, name, scale) map_functions<type>(in);
        HR_MAPS(HR_RUN)
#undef HR_RUN
#define HR_RUN(index, type, name, variant) vector_functions<type>(in);
        HR_VECTOR_MAPS(HR_RUN)
#undef HR_RUN
    }
}

}  // namespace

#define HR_JOIN_(a, b) a##b
#define HR_JOIN(a, b) HR_JOIN_(a, b)
constinit const Evaluate HR_JOIN(evaluate_, HR_ISA) = evaluate;

}  // namespace headrace::tests
