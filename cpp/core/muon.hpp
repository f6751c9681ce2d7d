// Muon on a program's weight vector: orthogonal updates of the matrices of networks with hidden layers, for each block
// of their staircases (MaskedConditioner), and Adam for all other weights.
//
// A block has no masked entries, so that its update is orthogonal and all masked entries stay zero. The products of all
// blocks of a layer cost a fraction of the products of the full matrix.
#pragma once

#include "optimizer.hpp"

namespace headrace {

template <class T>
class Muon final : public Adam<T> {
  public:
    // An optimizer with the given momentum for blocks; `options` are the options of Adam.
    Muon(std::shared_ptr<Program<T>> program, double momentum, const AdamOptions& options);

  private:
    using typename Adam<T>::Stretch;

    // A block of a matrix: the index from which its entries are counted, its view, and the arrays to which the view
    // points.
    struct Block {
        int64_t begin;
        std::vector<uint32_t> row, x_row, side_row;
        MuonBlock view;
    };
    struct Task {
        size_t first, last;  // range of blocks
    };

    void move(const AdamStep<T>& step, double learning_rate, const T* gradient, T* weights) override;

    double momentum_;
    std::vector<Block> blocks_;
    std::vector<Task> tasks_;
    std::vector<Stretch> by_adam_;
    std::vector<uint8_t> is_weight_;
    int64_t scratch_ = 0;
};

// Computes the update of a dense matrix, stored row by row; the singular values of the update are about update_norm.
// The momentum, `mean`, is updated by the gradient.
template <class T>
void muon_update(const T* gradient, int rows, int columns, double momentum, T* mean, T* update);

extern template void muon_update(const float*, int, int, double, float*, float*);
extern template void muon_update(const double*, int, int, double, double*, double*);
extern template class Muon<float>;
extern template class Muon<double>;

}  // namespace headrace
