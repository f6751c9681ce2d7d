// The list of the kinds of transforms of a program, as descriptions without weights. Lowering (lowering.cpp) converts
// descriptions to the steps of a chain, in either direction; a transform may become several steps, or none.
//
// Each kind has `fits`: whether it may be part of a program with the given numbers of features and of context columns.
// A kind with weights has n_weights and parts, and clears entries of vectors that are no weights (clear_masked) or get
// no gradient (clear_dead). A kind that becomes a step for coordinates in any slots returns the step (`lowered`);
// Lowering makes the steps of other kinds. A kind that Python constructs from its members has `fields`, the members by
// keyword; other kinds have a function in bindings/structure.cpp.
#pragma once

#include <memory>
#include <tuple>
#include <variant>
#include <vector>

#include "../math/density.hpp"
#include "../math/support.hpp"
#include "../steps/marginal.hpp"
#include "conditioner.hpp"
#include "maps.hpp"

namespace headrace {

template <class S, class V>
struct Field {
    using Value = V;
    const char* keyword;
    V S::* member;
};
template <class S, class V>
constexpr Field<S, V> field(const char* keyword, V S::* member) {
    return {keyword, member};
}

// The slots and the direction of a step that changes its coordinates in place.
struct StepSide {
    Kept& kept;              // owner of the memory that the step's pointers refer to
    std::vector<int> slots;  // slot of each coordinate, counted from the slot of the first coordinate
    bool to_data;            // whether the step leads from the transform's latent side to its data side
};

// A map, or vector map, whose parameters a conditioner computes.
struct NetworkSpec {
    bool inverted = false;   // whether the transform is the inverse of the described one
    bool reads_data = true;  // whether the conditioner reads x; otherwise z
    std::shared_ptr<const TransformMap> map;
    std::shared_ptr<const Conditioner> conditioner;

    bool fits(int features, int context) const;
    int64_t n_weights() const { return conditioner->n_weights(); }
    std::vector<WeightRange> parts() const { return conditioner->parts(); }
    template <class T>
    void clear_masked(T* vector) const {
        conditioner->clear_masked(vector);
    }
    template <class T>
    void clear_dead(T* gradient) const {
        conditioner->clear_dead(gradient);
    }
};

struct PermutationSpec {
    std::vector<int> order;  // forward gives x[i] = z[order[i]]

    static auto fields() { return std::tuple{field("order", &PermutationSpec::order)}; }
    bool fits(int features, int context) const;
};

struct RotationSpec {
    bool inverted = false;
    std::vector<double> matrix;     // blocks of an orthogonal, block diagonal matrix, for which x = matrix z
    std::vector<int> blocks;        // block sizes; blocks are stored row by row, one after another
    std::vector<double> inverse{};  // inverse of a matrix that is not orthogonal but has determinant 1; else empty

    bool fits(int features, int context) const;
};

struct StandardizeSpec {
    bool inverted = false;
    std::vector<double> mean, std;  // forward gives x = z std + mean

    static auto fields() {
        return std::tuple{field("inverted", &StandardizeSpec::inverted), field("mean", &StandardizeSpec::mean),
                          field("std", &StandardizeSpec::std)};
    }
    bool fits(int features, int context) const;
};

struct SupportSpec {
    bool inverted = false;
    std::vector<Support> supports;  // support of each column
    std::vector<double> low, high;  // lower and upper bound of each column

    bool fits(int features, int context) const;
};

// A map of each coordinate with fixed raw parameters, which are not weights.
struct MarginalSpec {
    bool inverted = false;
    std::shared_ptr<const TransformMap> map;
    std::vector<double> parameters;

    bool fits(int features, int context) const;
    template <class T>
    MarginalStep<T> lowered(const StepSide& side) const;
};

// The density of the base, which may only be the first step.
struct DensitySpec {
    static constexpr bool is_first = true;

    std::vector<ColumnDensity> columns;  // density of each column, for independent columns
    int components = 0;                  // number of components of a mixture for the whole row, or 0
    int n_raw = 0;                       // number of raw parameters
    std::vector<double> fixed;           // fixed raw parameters; empty: the raw parameters are weights

    bool fits(int features, int context) const;
    bool trains() const { return n_raw > 0 && fixed.empty(); }
    int64_t n_weights() const { return trains() ? padded(n_raw) : 0; }
    std::vector<WeightRange> parts() const;
    template <class T>
    void clear_masked(T* vector) const {
        for (int64_t i = n_raw; i < n_weights(); ++i) vector[i] = T(0);
    }
    template <class T>
    void clear_dead(T*) const {}
};

}  // namespace headrace

// Tests build a module with a further kind: this macro names the header that adds the kind to the list.
#ifdef HEADRACE_MORE_SPECS
#include HEADRACE_MORE_SPECS
#else
#define HR_MORE_SPECS(X)
#endif

namespace headrace {

// X(name in Python, struct) for each kind of transform.
#define HR_SPECS(X)                     \
    X(NetworkStep, NetworkSpec)         \
    X(PermutationStep, PermutationSpec) \
    X(RotationStep, RotationSpec)       \
    X(StandardizeStep, StandardizeSpec) \
    X(SupportStep, SupportSpec)         \
    X(MarginalStep, MarginalSpec)       \
    X(DensityStep, DensitySpec)         \
    HR_MORE_SPECS(X)

template <class, class... Specs>
using OneOf = std::variant<Specs...>;
#define HR_AND(name, type) , type
using StepSpec = OneOf<void HR_SPECS(HR_AND)>;
#undef HR_AND

}  // namespace headrace
