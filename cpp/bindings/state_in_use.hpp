// States that only one call at a time may use.
#pragma once

#include "arrays.hpp"

namespace headrace {

// Marks a state as in use for the duration of a call. The state, which may be null, has the flags `is_in_use` (atomic)
// and `is_broken`. A call that may be interrupted marks the state as broken while the call runs.
template <class Held>
class StateInUse {
  public:
    explicit StateInUse(Held* state) : state_(state) {
        if (!state_) return;
        require(!state_->is_in_use.exchange(true), "state: another call has it at this moment");
        if (state_->is_broken) {
            state_->is_in_use = false;
            require(false, "state: a call that was interrupted left it between two steps");
        }
    }
    ~StateInUse() {
        if (state_) state_->is_in_use = false;
    }
    StateInUse(const StateInUse&) = delete;
    StateInUse& operator=(const StateInUse&) = delete;

  private:
    Held* state_;
};

}  // namespace headrace
