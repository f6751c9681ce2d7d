// Transforms over time, and of the values of a step, as parts of a chain whose streams go on step by step.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>
#include <variant>
#include <vector>

#include "../../runtime/parts/sequence_file.hpp"
#include "../core/sequences/transform.hpp"
#include "compiled_file.hpp"

namespace headrace {

// Arrays of either dtype, of which one is in use.
struct Room {
    std::vector<float> single;
    std::vector<double> wide;

    template <class G>
    G* of(int64_t n) {
        if constexpr (std::is_same_v<G, double>) {
            wide.resize(size_t(n));
            return wide.data();
        } else {
            single.resize(size_t(n));
            return single.data();
        }
    }
};

// Steps (rows, steps, features), contiguous. Transforms without parameters compute in the dtype of their input, so that
// data far from zero lose nothing in a model of float.
struct StepValues {
    const void* data;
    bool is_double;

    template <class G>
    static StepValues of(const G* data) {
        return {data, std::is_same_v<G, double>};
    }
    ArrayView rows(int64_t columns) const {
        const int64_t size = is_double ? sizeof(double) : sizeof(float);
        return {static_cast<const char*>(data), columns * size, size, is_double, nullptr};
    }
};

// A call of a chain on steps of its streams.
template <class T>
struct LinkCall {
    bool inverse;  // from data to latent
    int64_t rows, steps, features;
    const T* context;  // (rows, columns), standardised; null: there is none
    const T* frames;   // (rows, frames, columns) of covariates, or null
    int64_t first_frame, n_frames;

    int64_t values() const { return rows * steps * features; }
};

template <class T>
struct LinkState {
    std::optional<CausalStreams<T>> network;
    std::vector<T> past;  // of a linear prediction: (rows, order, features), from old to new
    std::vector<T> work;  // of one call
};

// A transform of rows. `other` computes it in the other dtype, where it has no parameters.
template <class T>
class StepsLink {
  public:
    using Other = std::conditional_t<std::is_same_v<T, float>, double, float>;

    StepsLink(std::shared_ptr<const Program<T>> own, std::shared_ptr<const Program<Other>> other)
        : own_(std::move(own)), other_(std::move(other)) {}

    LinkState<T> state(int64_t) const { return {}; }
    StepValues run(const LinkCall<T>& call, StepValues given, T* log_det, LinkState<T>& state, Room& room) const;

  private:
    template <class G>
    StepValues run_in(const Program<G>& program, const LinkCall<T>& call, StepValues given, T* log_det,
                      Room& room) const;

    std::shared_ptr<const Program<T>> own_;
    std::shared_ptr<const Program<Other>> other_;
};

template <class T>
class PredictionLink {
  public:
    explicit PredictionLink(const detail::PredictionDescription<T>& d);

    LinkState<T> state(int64_t rows) const {
        return {std::nullopt, std::vector<T>(size_t(rows * order_ * columns_)), {}};
    }
    StepValues run(const LinkCall<T>& call, StepValues given, T* log_det, LinkState<T>& state, Room& room) const;

  private:
    void keep(const LinkCall<T>& call, const T* x, std::vector<T>& past) const;

    int64_t columns_, order_;
    std::vector<T> coefficients_, gain_;
    double log_det_ = 0.0;
};

// A causal network with the map, or the inner flow, whose parameters it computes.
template <class T>
class NetworkLink {
  public:
    using Description = detail::CausalDescription<T, LoweredSteps<T>>;

    NetworkLink(Description d, bool is_rounded);

    LinkState<T> state(int64_t rows) const { return {transform_->streams(rows), {}, {}}; }
    StepValues run(const LinkCall<T>& call, StepValues given, T* log_det, LinkState<T>& state, Room& room) const;

  private:
    std::shared_ptr<const CausalTransform<T>> transform_;
    Aligned<T> weights_;
    const uint32_t* pairs_ = nullptr;
    std::shared_ptr<const Program<T>> inner_;
};

template <class T>
using SequenceLink = std::variant<StepsLink<T>, PredictionLink<T>, NetworkLink<T>>;

// Throws FileFormatError where the core refuses.
template <class T>
SequenceLink<T> link_of(detail::LinkDescription<T, LoweredSteps<T>>& d, int features, bool is_rounded);

#define HR_LINKS_OF(prefix, T)               \
    prefix template class StepsLink<T>;      \
    prefix template class PredictionLink<T>; \
    prefix template class NetworkLink<T>;    \
    prefix template SequenceLink<T> link_of(detail::LinkDescription<T, LoweredSteps<T>>&, int, bool);
HR_LINKS_OF(extern, float)
HR_LINKS_OF(extern, double)

}  // namespace headrace
