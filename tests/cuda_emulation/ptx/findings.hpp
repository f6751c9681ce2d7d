// What a kernel did that it must not: collected over a launch, and known ones over a process.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ptx {

// Each kind at each line of a launch once, with who did it first.
struct Finding {
    std::string who;
    uint64_t times = 0;
};
using FindingsOfLaunch = std::map<std::pair<std::string, int>, Finding>;  // by kind and line

// A finding that has a reason (tests/support/ptx_known.py): part of a kernel's name, and the kind.
using Known = std::pair<std::string, std::string>;

}  // namespace ptx
