// The interface of every transform: a row, in place and in both directions.
#pragma once

#include <memory>

#include "network.hpp"

namespace headrace {
namespace detail {

template <class T>
class Transform {
  public:
    virtual ~Transform() = default;

    // Takes a row of T values to data or to latent, and adds log |det| of that direction.
    virtual void run(bool to_data, T* row, const T* context, Scratch<T>& scratch, double& log_det) const = 0;

    // Whether it can do so in float64 before values are narrowed, like at the ends of a chain.
    virtual bool is_exact() const { return false; }
    virtual void run_exact(bool, std::vector<double>&, double&) const {}

    // Whether it has settings for each column, like those at the data end: then it cannot act on a part of them.
    virtual bool is_of_data() const { return false; }

    int features() const { return features_; }
    int context() const { return context_; }
    bool is_fixed() const { return is_fixed_; }  // without parameters, so a file of only this transform has no dtype

  protected:
    int features_ = 0, context_ = 0;
    bool is_fixed_ = false;
};

template <class T>
using TransformPtr = std::unique_ptr<Transform<T>>;

}  // namespace detail
}  // namespace headrace
