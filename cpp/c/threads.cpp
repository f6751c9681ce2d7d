// Plain functions for the number of threads, which threadpoolctl also finds by their names.
#include "../core/threads.hpp"

#include "include/headrace.h"

extern "C" {

int headrace_get_num_threads(void) {
    return headrace::process_threads();
}
void headrace_set_num_threads(int n) {
    headrace::set_num_threads(n < 1 ? 1 : n);
}
}
