// Findings: forbidden actions of a kernel.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ptx {

// Each kind at each line of a launch once, with the first thread that did it.
struct Finding {
    std::string who;
    uint64_t times = 0;
};
using FindingsOfLaunch = std::map<std::pair<std::string, int>, Finding>;  // by kind and line

}  // namespace ptx
