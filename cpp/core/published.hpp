// A weight vector shared by readers, and ready parameters that were computed from these weights.
#pragma once

#include <atomic>

#include "scratch.hpp"

namespace headrace {

template <class T>
class Published {
  public:
    explicit Published(Aligned<T> numbers) : numbers_(std::move(numbers)) {}
    Published(const Published&) = delete;
    Published& operator=(const Published&) = delete;
    ~Published() { forget(); }

    T* numbers() { return numbers_.get(); }
    const T* numbers() const { return numbers_.get(); }

    // The ready parameters of one of a program's chains: the cached result of make().
    template <class Make>
    const T* ready(int chain, Make&& make) const {
        return made_once(ready_[chain], make);
    }

    // Weights rounded to bf16, in pairs, for the forward or the backward pass.
    template <class Make>
    const uint32_t* rounded(bool back, Make&& make) const {
        return made_once(rounded_[back], make);
    }

    // Discards computed values; called before the weights change in place, when there is no other holder.
    void forget() {
        for (std::atomic<T*>& slot : ready_) Aligned<T>(slot.exchange(nullptr));
        for (std::atomic<uint32_t*>& slot : rounded_) Aligned<uint32_t>(slot.exchange(nullptr));
    }

    static constexpr int chains = 4;  // two directions, with and without the base

  private:
    // Computes and stores a value once, without a lock, because a forked child might inherit a lock held by a thread
    // that the child lacks.
    template <class N, class Make>
    static const N* made_once(std::atomic<N*>& slot, Make&& make) {
        N* found = slot.load(std::memory_order_acquire);
        if (found) return found;
        Aligned<N> made = make();
        if (slot.compare_exchange_strong(found, made.get(), std::memory_order_acq_rel)) return made.release();
        return found;
    }

    Aligned<T> numbers_;
    mutable std::atomic<T*> ready_[chains] = {};
    mutable std::atomic<uint32_t*> rounded_[2] = {};
};

}  // namespace headrace
