// The interface of every transform, which maps a row in place, in both directions.
#pragma once

#include <memory>

#include "descriptions.hpp"
#include "network.hpp"

namespace headrace {
namespace detail {

template <class T>
class Transform {
  public:
    virtual ~Transform() = default;

    // Maps a row of T values to data or to latent, and adds log |det| of that direction.
    virtual void run(bool to_data, T* row, const T* context, Scratch<T>& scratch, double& log_det) const = 0;

    // Whether the transform has run_exact(), which computes in float64 at either end of a chain.
    virtual bool is_exact() const { return false; }
    virtual void run_exact(bool, std::vector<double>&, double&) const {}

    explicit Transform(const TransformDescription<T>& d) : features_(d.features), context_(d.context) {}
    Transform(const Transform&) = delete;
    Transform& operator=(const Transform&) = delete;

  protected:
    int features_, context_;
};

template <class T>
using TransformPtr = std::unique_ptr<Transform<T>>;

}  // namespace detail
}  // namespace headrace
