// Values of either floating type, for kernels whose time does not matter: one kernel for both types, because each
// kernel adds to the module's size.
#pragma once

#include <cstdint>

#include "../include/device.cuh"

namespace headrace {

// An object like a pointer to values, which are read as float64 and stored from float64.
class NumbersOfEither {
  public:
    NumbersOfEither(const float* p) : p_(const_cast<float*>(p)), is_double_(false) {}
    NumbersOfEither(const double* p) : p_(const_cast<double*>(p)), is_double_(true) {}

    struct Number {
        void* p;
        bool is_double;

        __device__ operator double() const {
            return is_double ? *static_cast<const double*>(p) : double(*static_cast<const float*>(p));
        }
        __device__ void operator=(double value) const {
            if (is_double) {
                *static_cast<double*>(p) = value;
            } else {
                *static_cast<float*>(p) = float(value);
            }
        }
    };
    __device__ Number operator[](int64_t i) const { return {at(i), is_double_}; }
    __device__ NumbersOfEither operator+(int64_t n) const {
        NumbersOfEither moved = *this;
        moved.p_ = at(n);
        return moved;
    }

  private:
    __device__ void* at(int64_t i) const {
        return is_double_ ? static_cast<void*>(static_cast<double*>(p_) + i) : static_cast<float*>(p_) + i;
    }

    void* p_;
    bool is_double_;
};

}  // namespace headrace
