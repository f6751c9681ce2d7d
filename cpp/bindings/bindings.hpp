// The bindings to Python. Bindings check every size again, after checks in Python, so that no call can read or write
// out of bounds.
#pragma once

#include <string>
#include <utility>

#include "../core/threads.hpp"
#include "arrays.hpp"

namespace headrace {

void bind_program(py::module_& m);
void bind_ops(py::module_& m);
void bind_points(py::module_& m);
void bind_sequences(py::module_& m);
void bind_chains(py::module_& m);
void bind_xla(py::module_& m);

// Releases the GIL during the lifetime of the object.
class Unlocked {
  public:
    Unlocked() : state_(PyEval_SaveThread()), cancellable_(&ask, this) {}
    ~Unlocked() { lock(); }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;
    void lock() {
        if (state_) PyEval_RestoreThread(std::exchange(state_, nullptr));
    }

  private:
    static bool ask(void* self);  // runs the handlers of pending signals; returns whether one of the handlers raised

    PyThreadState* state_;
    Cancellable cancellable_;
    bool knows_thread_ = false, gets_signals_ = false;
};

// Runs `work` without the GIL. Ctrl-C ends `work` in parallel_for, between two tasks: without_gil then throws the
// exception of the signal's handler, usually KeyboardInterrupt, and the output of `work` is partly written. `work` must
// not change its inputs in place.
template <class F>
void without_gil(F&& work) {
    Unlocked unlocked;
    try {
        work();
    } catch (const Cancelled&) {
        unlocked.lock();
        throw py::error_already_set();
    }
}

}  // namespace headrace
