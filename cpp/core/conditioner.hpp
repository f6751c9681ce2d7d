// A conditioner on the host, used when a program is made: the coordinates that it reads, the coordinates for which it
// computes parameters, its weights, and its kernels (steps/conditioners.hpp). Programs, structures and copies to a
// device use only this interface.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../steps/conditioners.hpp"
#include "../steps/summed.hpp"
#include "kept.hpp"
#include "views.hpp"
#include "weights.hpp"

namespace headrace {

// A layer whose weights are rounded, its offset among the conditioner's pairs, and the arrays to which the layer
// points.
struct RoundedLayer {
    Bf16Layer layer;
    std::vector<uint32_t> block;
    std::vector<int64_t> back;
};

// The result of lowering a conditioner to a chain. Offsets of tape lines and of weights are relative to the
// conditioner's first line and first weight.
template <class T>
struct Lowered {
    AnyConditioner<T> kernels{};
    std::vector<Summed> summed;
    // For bf16, numbers of lines that all conditioners share: lines of pairs, and lines of sums for small batches.
    int pairs = 0, sums = 0;
    int panels = 0;           // number of panels of transposed inputs, for the gradient of weights
    bool tiles_only = false;  // the conditioner has no kernel for small batches
};

// The chain in which a conditioner is lowered.
struct ChainSide {
    int features;      // number of coordinates of a row
    bool reads_built;  // whether the direction is sequential: inputs of the conditioner are being built
    Bf16Layout bf16;   // the layout that the conditioner's `bf16` returned
};

class Conditioner : public WeightLayout {
  public:
    // A conditioner with `outputs` parameters for each coordinate that is moved, or, if `joint`, for all coordinates
    // together.
    Conditioner(int context, int outputs, bool joint);

    int context() const { return context_; }
    int outputs() const { return outputs_; }
    bool is_joint() const { return joint_; }

    // ---- coordinates, whose number is an argument because a conditioner over time cannot have a constant number

    virtual bool fits(int features) const = 0;
    // read_order: the coordinates that the conditioner reads, in their order after the context. active_order: the
    // coordinates for which the conditioner computes parameters, position by position.
    virtual std::vector<int> read_order(int features) const = 0;
    virtual std::vector<int> active_order(int features) const = 0;
    // Whether no input of the conditioner is ever moved, so that both directions are parallel.
    virtual bool reads_passive_only() const { return false; }
    // Whether the conditioner has no inputs: its weights are the parameters themselves, coordinate by coordinate.
    virtual bool is_constant() const { return false; }

    // ---- weights

    // Sets the gradients of weights that reach no output to zero.
    virtual void clear_dead(float*) const {}
    virtual void clear_dead(double*) const {}

    // ---- products and folds

    // The layout of a conditioner's values in a program whose products are of values rounded to bf16; with a layout
    // without parts, the conditioner's products stay exact. A kind of conditioner without rounded products throws
    // std::invalid_argument.
    virtual Bf16Layout bf16(const Bf16Layout& of_program) const = 0;
    // The number of pairs of a conditioner's rounded weights, for the run and for the backward pass.
    struct Pairs {
        size_t forth = 0, back = 0;
        size_t tiles = 0;  // start of the layouts for tiles of rows
    };
    virtual Pairs n_pairs(const Bf16Layout&) const { return {}; }
    virtual std::vector<RoundedLayer> rounded(const Bf16Layout&) const { return {}; }
    // The number of values that are computed once a call from a context row that all rows share.
    virtual size_t n_folded() const { return 0; }

    // ---- kernels

    virtual Lowered<float> lower_f32(Kept& kept, const ChainSide& side) const = 0;
    virtual Lowered<double> lower_f64(Kept& kept, const ChainSide& side) const = 0;
    template <class T>
    Lowered<T> lower(Kept& kept, const ChainSide& side) const {
        if constexpr (sizeof(T) == sizeof(float)) {
            return lower_f32(kept, side);
        } else {
            return lower_f64(kept, side);
        }
    }

  private:
    int context_, outputs_;
    bool joint_;
};

// Implements the interface for both floating types by function templates of a kind: pack_as, unpack_as,
// clear_masked_in, clear_dead_in, lower_as.
template <class Kind>
class ConditionerOf : public Conditioner {
    friend Kind;
    ConditionerOf(int context, int outputs, bool joint) : Conditioner(context, outputs, joint) {}

  public:
    void pack(const std::vector<const float*>& tensors, float* to) const final { kind().pack_as(tensors, to); }
    void pack(const std::vector<const double*>& tensors, double* to) const final { kind().pack_as(tensors, to); }
    void unpack(const float* from, const std::vector<float*>& to) const final { kind().unpack_as(from, to); }
    void unpack(const double* from, const std::vector<double*>& to) const final { kind().unpack_as(from, to); }
    void clear_masked(float* weights) const final { kind().clear_masked_in(weights); }
    void clear_masked(double* weights) const final { kind().clear_masked_in(weights); }
    void clear_dead(float* gradient) const final { kind().clear_dead_in(gradient); }
    void clear_dead(double* gradient) const final { kind().clear_dead_in(gradient); }
    Lowered<float> lower_f32(Kept& kept, const ChainSide& side) const final {
        return kind().template lower_as<float>(kept, side);
    }
    Lowered<double> lower_f64(Kept& kept, const ChainSide& side) const final {
        return kind().template lower_as<double>(kept, side);
    }

  private:
    const Kind& kind() const { return static_cast<const Kind&>(*this); }
};

#define HR_CONDITIONER_OF(name, type)              \
    template <class T>                             \
    AnyConditioner<T> any_of(const type<T>& own) { \
        AnyConditioner<T> any{};                   \
        any.kind = ConditionerKind::name;          \
        any.name = own;                            \
        return any;                                \
    }
HR_ROW_CONDITIONERS(HR_CONDITIONER_OF)
#undef HR_CONDITIONER_OF

}  // namespace headrace
