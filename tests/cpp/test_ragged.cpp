// Tests of maps on so few elements that they fill no vector: an element must have the bits that it has among many, and
// no lane may be read that was not written. Before each call the stack is filled with signalling NaNs, for which any
// arithmetic raises FE_INVALID, or with denormal and huge numbers.
#include <algorithm>
#include <cfenv>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../../cpp/core/isa.hpp"
#include "../../cpp/core/maps.hpp"
#include "check.hpp"

using namespace headrace;
using namespace headrace::tests;

namespace {

constexpr int least_elements = 64;  // elements in whole vectors of every set

// Fills more of the stack than the frames of a kernel take.
[[gnu::noinline]] void fill_stack(uint64_t pattern) {
    volatile uint64_t memory[1 << 14];
    for (volatile uint64_t& number : memory) number = pattern;
}

template <class T>
constexpr uint64_t signalling = sizeof(T) == 4 ? 0x7fa000007fa00000 : 0x7ff4000000000000;
// A pattern of bits that is two floats, a denormal number and 1e37, or the double 3e292.
constexpr uint64_t harmful = 0x7cf0bdc200000123;

template <class T>
std::vector<T> some_numbers(size_t n, double size, uint32_t seed) {
    std::vector<T> out(n);
    for (T& x : out) {
        seed = seed * 1664525u + 1013904223u;
        x = T(size * double(int32_t(seed)) * 0x1p-31);
    }
    return out;
}

template <class T>
struct Results {
    std::vector<T> value, log_det, by_value, by_params;
    bool is_invalid;
};

template <class T>
struct Case {
    const KernelsOf<T>& kernels;
    int map;
    bool inverse;
    MapOptions<T> options;
    int n_params;
    std::vector<T> given, params;

    Results<T> run(int n, uint64_t pattern) const {
        const size_t count = size_t(n), numbers = count * size_t(n_params);
        Results<T> r{std::vector<T>(count), std::vector<T>(count), std::vector<T>(count), std::vector<T>(numbers),
                     false};
        std::feclearexcept(FE_ALL_EXCEPT);
        fill_stack(pattern);
        kernels.coupling(map, inverse, options, given.data(), params.data(), r.value.data(), r.log_det.data(), n, 1);
        fill_stack(pattern);
        kernels.coupling_backward(map, inverse, options, given.data(), params.data(), given.data(), params.data(),
                                  r.by_value.data(), r.by_params.data(), n, 1);
        r.is_invalid = std::fetestexcept(FE_INVALID) != 0;
        return r;
    }
};

template <class T>
bool starts_with(const std::vector<T>& all, const std::vector<T>& part) {
    return std::memcmp(all.data(), part.data(), part.size() * sizeof(T)) == 0;
}

template <class T>
void check_case(const Case<T>& c, const std::string& name) {
    const Results<T> all = c.run(least_elements, 0);
    for (int n = 1; n <= 2 * c.kernels.width + 1; ++n) {
        // A single element, with components as lanes, may compute infinities that do not occur among other elements.
        const bool is_invalid = c.run(n, 0).is_invalid;
        for (const uint64_t pattern : {signalling<T>, harmful}) {
            const Results<T> some = c.run(n, pattern);
            CHECK(starts_with(all.value, some.value) && starts_with(all.log_det, some.log_det) &&
                      starts_with(all.by_value, some.by_value) && starts_with(all.by_params, some.by_params),
                  "%s, %d elements have the bits that they have among %d", name.c_str(), n, least_elements);
            CHECK(some.is_invalid == is_invalid, "%s, %d elements: arithmetic with unwritten memory", name.c_str(), n);
        }
    }
}

// A case with the default options of Python.
template <class T>
Case<T> case_of(const InstructionSet& set, int map, bool inverse, int bins) {
    const MapInfo& info = map_list()[size_t(map)];
    const double slope = std::max(1e-3, info.least_slope), least_bin = std::max(1e-3, info.least_bin);
    return {kernels_of<T>(*set.table), map, inverse, map_options<T>(map, slope, bins, -5, 5, least_bin),
            n_params_of(map, bins),    {},  {}};
}

template <class T>
void test_map(const InstructionSet& set, int map, int bins) {
    const MapInfo& info = map_list()[size_t(map)];
    for (const bool inverse : {false, true}) {
        Case<T> c = case_of<T>(set, map, inverse, bins);
        c.given = some_numbers<T>(least_elements, 0.9, 1);
        c.params = some_numbers<T>(size_t(least_elements) * size_t(c.n_params), 1.0, 2);
        // The last element is 0 with the identity as map, for which an unused branch may divide 0 by 0.
        c.given.back() = 0;
        std::fill(c.params.end() - c.n_params, c.params.end(), T(0));
        check_case(c, std::string(set.name) + " " + info.name + " " + info.scale + " of " + std::to_string(bins) +
                          (inverse ? " inverse " : " forward ") + std::to_string(8 * sizeof(T)) + " bits");
    }
}

// Compares single elements, whose components are lanes, with several elements as lanes, also for means that are far
// apart, inputs far outside, and elements that are not finite.
template <class T>
void test_hard_mixtures(const InstructionSet& set) {
    for (const int components : {2, 3, 5, 10, 16, 17, 33, 64}) {
        Case<T> c = case_of<T>(set, find_map("logistic_mixture", ""), false, components);
        const int n_params = c.n_params;
        const T infinite = std::numeric_limits<T>::infinity();
        for (const double size : {0.0, 1.0, 30.0, 1e3, 1e30}) {
            c.given = some_numbers<T>(least_elements, size < 1e3 ? size + 1 : size, 3);
            c.params = some_numbers<T>(size_t(least_elements) * size_t(n_params), size, 4);
            if (size == 1.0)
                for (int i = 0; i < least_elements; i += 8) {
                    T* const p = c.params.data() + i * n_params;
                    p[i / 8 % 3 * components] = i % 16 ? infinite : std::numeric_limits<T>::quiet_NaN();
                    c.given[size_t(i) + 1] = i % 16 ? -infinite : std::numeric_limits<T>::quiet_NaN();
                }
            const Results<T> all = c.run(least_elements, 0);
            for (int i = 0; i < least_elements; ++i) {
                Case<T> one = c;
                one.given.assign(1, c.given[size_t(i)]);
                one.params.assign(c.params.begin() + i * n_params, c.params.begin() + (i + 1) * n_params);
                const Results<T> alone = one.run(1, harmful);
                const auto same = [](T x, T y) { return std::memcmp(&x, &y, sizeof x) == 0 || (x != x && y != y); };
                CHECK(same(alone.value[0], all.value[size_t(i)]) && same(alone.log_det[0], all.log_det[size_t(i)]),
                      "%s, %d components of size %g, element %d: %.9g, %.9g alone, %.9g, %.9g among %d", set.name,
                      components, size, i, double(alone.value[0]), double(alone.log_det[0]),
                      double(all.value[size_t(i)]), double(all.log_det[size_t(i)]), least_elements);
            }
        }
    }
}

template <class T>
void test_set(const InstructionSet& set) {
    for (int map = 0; map < int(map_list().size()); ++map)
        for (const int bins : {2, 10, 64})
            if (bins == 2 || map_list()[size_t(map)].has_bins()) test_map<T>(set, map, bins);
    test_hard_mixtures<T>(set);
}

}  // namespace

int main() {
    for (const InstructionSet& set : instruction_sets())
        if (set.supported) {
            test_set<float>(set);
            test_set<double>(set);
        }
    return finish();
}
