// Findings: forbidden actions of a kernel.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ptx {

// One finding for each kind and line of a launch, with the first thread that caused it.
struct Finding {
    std::string who;
    uint64_t times = 0;
};
using FindingsOfLaunch = std::map<std::pair<std::string, int>, Finding>;  // keys: kind and line

}  // namespace ptx
