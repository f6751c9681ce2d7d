// Muon on a program's weight vector: the matrices of networks with hidden layers by orthogonal updates, block by block
// of their staircases (MaskedConditioner), and everything else by Adam.
//
// A block has no masked entries, so that its update is orthogonal and all masked entries stay zero; and the products of
// a layer's blocks cost a fraction of those of the full matrix.
#pragma once

#include "optimizer.hpp"

namespace headrace {

template <class T>
class Muon final : public Adam<T> {
  public:
    // momentum: of the blocks; the options are those of Adam.
    Muon(std::shared_ptr<Program<T>> program, double momentum, const AdamOptions& options);

  private:
    using typename Adam<T>::Stretch;

    // A block of the matrices: where its entries are counted from, its view, and the arrays to which that points.
    struct Block {
        int64_t begin;
        std::vector<uint32_t> row, x_row, side_row;
        MuonBlock view;
    };
    struct Task {
        size_t first, last;  // blocks
    };

    void move(const AdamStep<T>& step, double learning_rate, const T* gradient, T* weights) override;

    double momentum_;
    std::vector<Block> blocks_;
    std::vector<Task> tasks_;
    std::vector<Stretch> by_adam_;
    std::vector<uint8_t> is_weight_;
    int64_t scratch_ = 0;
};

// The update of a dense matrix, row by row, whose singular values are about update_norm. The momentum, `mean`, takes in
// the gradient.
template <class T>
void muon_update(const T* gradient, int rows, int columns, double momentum, T* mean, T* update);

extern template void muon_update(const float*, int, int, double, float*, float*);
extern template void muon_update(const double*, int, int, double, double*, double*);
extern template class Muon<float>;
extern template class Muon<double>;

}  // namespace headrace
