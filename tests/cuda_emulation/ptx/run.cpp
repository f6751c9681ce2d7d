// Lanes of a warp advance together where possible: of several groups, the group that is behind runs, and groups that
// meet are joined. A warp runs until it waits for its block; the order of warps is the emulation's order of threads.
#include "run.hpp"

#include <algorithm>
#include <climits>
#include <cstring>
#include <numeric>
#include <random>

namespace ptx {
namespace {

std::string name_of(const uint32_t (&i)[3]) {
    return "(" + std::to_string(i[0]) + ", " + std::to_string(i[1]) + ", " + std::to_string(i[2]) + ")";
}
std::string place_of(const Program& p, int line) {
    return p.kernel + ", " + p.module->name() + ":" + std::to_string(line) + ": " + p.module->line(line);
}
[[noreturn]] void fail(const Warp& w, int at, uint32_t lanes, const std::string& what) {
    throw Error(what + ": " + place_of(*w.program, w.program->code[size_t(at)].line) + ", block " +
                name_of(w.launch->block) + ", warp " + std::to_string(w.index) + ", lane " +
                std::to_string(lanes ? std::countr_zero(lanes) : 0));
}

// The next action for a group after an instruction.
enum class Then { on, regroup };

class Runner {
  public:
    explicit Runner(Warp& w) : w_(w), p_(*w.launch->program), code_(p_.code.data()) {}

    // Runs the warp. Returns true if the warp waits for its block, and false if the warp has ended.
    bool run() {
        while (!w_.groups.empty()) {
            join();
            const int best = hindmost();
            if (best < 0) return wait_together();
            advance(size_t(best));
        }
        return false;
    }

  private:
    void join() {
        std::vector<Group>& all = w_.groups;
        for (size_t a = 0; a < all.size(); ++a)
            for (size_t b = a + 1; b < all.size();) {
                if (all[a].at != all[b].at) {
                    ++b;
                    continue;
                }
                all[a].lanes |= all[b].lanes;
                all[a].waits = false;
                all.erase(all.begin() + long(b));
            }
    }
    int hindmost() const {
        int best = -1;
        for (size_t a = 0; a < w_.groups.size(); ++a)
            if (!w_.groups[a].waits && (best < 0 || w_.groups[a].at < w_.groups[size_t(best)].at)) best = int(a);
        return best;
    }
    bool wait_together() const {
        const Group& g = w_.groups[0];
        if (w_.groups.size() == 1 && code_[g.at].flow == Flow::barrier) return true;
        const Group& other = w_.groups.back();
        const uint32_t missing = w_.living & ~g.lanes;
        fail(w_, g.at, missing ? missing : g.lanes,
             "a lane is missing at a barrier or a shuffle, where others wait; it waits or ended elsewhere, line " +
                 std::to_string(code_[other.at].line));
    }

    void advance(size_t best) {
        Group g = w_.groups[best];
        int meets = INT_MAX;  // index of the instruction of the nearest group ahead
        for (const Group& other : w_.groups)
            if (other.at > g.at) meets = std::min(meets, other.at);
        for (;;) {
            const Instruction& i = code_[g.at];
            uint32_t lanes = g.lanes;
            if (i.guard >= 0) lanes &= w_.predicates[size_t(i.guard)] ^ (i.guard_negated ? all_lanes : 0);
            ++w_.work->executed[size_t(i.kind)];
            if (i.flow == Flow::next) {
                if (lanes) i.run(w_, i, lanes);
                ++g.at;
            } else if (flow(best, g, i, lanes) == Then::regroup) {
                return;
            }
            if (g.at >= meets) {
                w_.groups[best] = g;
                return;
            }
        }
    }

    Then flow(size_t best, Group& g, const Instruction& i, uint32_t lanes) {
        switch (i.flow) {
            case Flow::branch: return branch(best, g, i, lanes);
            case Flow::call: return call(best, g, i, lanes);
            case Flow::leave: return leave(best, g, i, lanes);
            case Flow::warp:
            case Flow::warp_barrier: return together(best, g, i, lanes);
            default: break;
        }
        if (lanes != g.lanes) fail(w_, g.at, g.lanes & ~lanes, "a lane is missing at a barrier: it has a guard");
        g.waits = true;
        w_.groups[best] = g;
        return Then::regroup;
    }
    Then branch(size_t best, Group& g, const Instruction& i, uint32_t lanes) {
        if (lanes == 0) {
            ++g.at;
            return Then::on;
        }
        const bool all = lanes == g.lanes;
        if (!all) {
            w_.groups[best] = {g.at + 1, g.lanes & ~lanes, false};
            w_.groups.push_back({i.target, lanes, false});
            return Then::regroup;
        }
        const bool is_back = i.target <= g.at;  // after a jump back, other groups may be behind
        g.at = i.target;
        if (!is_back || w_.groups.size() == 1) return Then::on;
        w_.groups[best] = g;
        return Then::regroup;
    }
    Then call(size_t best, Group& g, const Instruction& i, uint32_t lanes) {
        if (lanes == 0) {
            ++g.at;
            return Then::on;
        }
        if (lanes != g.lanes) {  // other lanes of the group continue behind the instruction
            w_.groups.push_back({g.at + 1, g.lanes & ~lanes, false});
            g.lanes = lanes;
        }
        const Function& f = p_.functions[size_t(i.target)];
        const Call& one = p_.calls[size_t(i.call)];
        for_lanes(lanes, [&](int l) {
            char* const frame = w_.frame_of(l);
            for (size_t k = 0; k < one.given.size(); ++k)
                std::memcpy(frame + f.parameters[k].at, frame + one.given[k].at, size_t(one.given[k].bytes));
            int& back = w_.back[size_t(i.target) * lanes_of_warp + size_t(l)];
            if (back >= 0) fail(w_, g.at, lanes, "a function calls itself, which the interpreter does not know");
            back = g.at + 1;
        });
        g.at = f.begin;
        w_.groups[best] = g;
        return Then::regroup;
    }
    Then leave(size_t best, const Group& g, const Instruction& i, uint32_t lanes) {
        const Group rest{g.at + 1, g.lanes & ~lanes, false};
        w_.groups.erase(w_.groups.begin() + long(best));
        if (rest.lanes) w_.groups.push_back(rest);
        if (i.target == 0) {
            w_.living &= ~lanes;
            for (Group& one : w_.groups) one.waits = false;  // other groups may have waited for these lanes alone
            return Then::regroup;
        }
        const Function& f = p_.functions[size_t(i.target)];
        for_lanes(lanes, [&](int l) {
            int& back = w_.back[size_t(i.target) * lanes_of_warp + size_t(l)];
            const Call& one = p_.calls[size_t(code_[back - 1].call)];
            char* const frame = w_.frame_of(l);
            for (size_t k = 0; k < one.results.size(); ++k)
                std::memcpy(frame + one.results[k].at, frame + f.results[k].at, size_t(one.results[k].bytes));
            w_.groups.push_back({back, 1u << l, false});
            back = -1;
        });
        return Then::regroup;
    }
    Then together(size_t best, Group& g, const Instruction& i, uint32_t lanes) {
        if (lanes == 0) {
            ++g.at;
            return Then::on;
        }
        if (lanes != g.lanes)
            fail(w_, g.at, g.lanes & ~lanes, "a lane is missing from an operation of its warp: it has a guard");
        const int first = std::countr_zero(lanes);
        const auto mask = get<uint32_t>(w_.operand(i.mask), first);
        for_lanes(lanes, [&](int l) {
            if (get<uint32_t>(w_.operand(i.mask), l) != mask)
                fail(w_, g.at, 1u << l, "lanes of a warp disagree about the mask");
        });
        if (lanes & ~mask) fail(w_, g.at, lanes & ~mask, "a lane is missing from its own mask");
        const uint32_t needed = mask & w_.living;
        if ((lanes & needed) != needed) {
            g.waits = true;
            w_.groups[best] = g;
            return Then::regroup;
        }
        if (i.flow == Flow::warp) {
            i.run(w_, i, lanes);
        } else if (needed == w_.living) {
            ++w_.step;  // only a barrier of all lanes counts, which is stricter than the manual
        }
        ++g.at;
        return Then::on;
    }

    Warp& w_;
    Program& p_;
    const Instruction* code_;
};

void prepare(Warp& w, Launch& launch, int index, uint32_t threads) {
    const Program& p = *launch.program;
    w.launch = &launch, w.program = &p, w.index = index, w.work = &launch.program->work[size_t(index)];
    if (w.registers.size() < size_t(p.register_bytes)) w.registers.resize(size_t(p.register_bytes), char(0xff));
    w.predicates.assign(size_t(p.predicates), 0x5a5a5a5a);
    w.predicates[0] = 0, w.predicates[1] = all_lanes;
    w.frame.assign(size_t(p.frame_bytes) * lanes_of_warp, char(0xff));
    w.local.assign(size_t(p.local_bytes) * lanes_of_warp, char(0xff));
    w.back.assign(p.functions.size() * lanes_of_warp, -1);
    const uint32_t lanes = std::min(uint32_t(lanes_of_warp), threads - uint32_t(index) * lanes_of_warp);
    w.born = w.living = lanes == lanes_of_warp ? all_lanes : (1u << lanes) - 1;
    w.groups.assign(1, Group{0, w.living, false});
    w.step = 1;
}

// Opens a barrier that all live warps have reached; a barrier with a count of threads must count all threads.
void open_barrier(Launch& launch, std::vector<Warp*>& waiting, bool is_whole) {
    const Program& p = *launch.program;
    const Instruction& first = p.code[size_t(waiting[0]->groups[0].at)];
    for (Warp* w : waiting) {
        Group& g = w->groups[0];
        const Instruction& i = p.code[size_t(g.at)];
        const auto count = get<uint32_t>(w->operand(i.a[0]), std::countr_zero(g.lanes));
        if (count != 0 && (count != launch.threads[0] * launch.threads[1] * launch.threads[2] || !is_whole))
            fail(*w, g.at, g.lanes, "a barrier of " + std::to_string(count) + " threads, which is not the whole block");
        if (i.line != first.line) found(*w, i, std::countr_zero(g.lanes), "warps wait at different barriers");
        ++g.at;
        g.waits = false;
        ++w->step;
    }
    ++launch.phase;
}

void run_block(Launch& launch, std::vector<Warp>& warps, std::minstd_rand& random) {
    const uint32_t threads = launch.threads[0] * launch.threads[1] * launch.threads[2];
    const size_t n = (threads + lanes_of_warp - 1) / lanes_of_warp;
    for (size_t k = 0; k < n; ++k) prepare(warps[k], launch, int(k), threads);
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t(0));
    if (launch.order == 1) std::reverse(order.begin(), order.end());
    while (!order.empty()) {
        if (launch.order > 1) std::shuffle(order.begin(), order.end(), random);
        std::vector<Warp*> waiting;
        std::vector<size_t> left;
        for (const size_t k : order) {
            if (!Runner(warps[k]).run()) continue;
            waiting.push_back(&warps[k]);
            left.push_back(k);
        }
        order = left;
        if (!waiting.empty()) open_barrier(launch, waiting, waiting.size() == n);
    }
}

}  // namespace

void found(Warp& w, const Instruction& i, int lane, const std::string& kind) {
    Finding& one = w.launch->findings[{kind, i.line}];
    if (one.times++ == 0)
        one.who = place_of(*w.program, i.line) + ", block " + name_of(w.launch->block) + ", warp " +
                  std::to_string(w.index) + ", lane " + std::to_string(lane);
}

void run(Launch& launch, std::vector<Warp>& warps) {
    static uint32_t stamps = 0;
    const uint64_t blocks = uint64_t(launch.grid[0]) * launch.grid[1] * launch.grid[2];
    const uint32_t threads = launch.threads[0] * launch.threads[1] * launch.threads[2];
    Memory& memory = *launch.memory;
    memory.begin_launch();
    const size_t of_block = (threads + lanes_of_warp - 1) / lanes_of_warp;
    if (warps.size() < of_block) warps.resize(of_block);
    if (launch.program->work.size() < of_block) launch.program->work.resize(of_block);
    launch.stamp = ++stamps;
    launch.first_lanes.assign(launch.program->code.size(), 0);
    std::minstd_rand random{uint32_t(launch.order)};
    for (uint64_t k = 0; k < blocks; ++k) {
        const uint64_t b = launch.order == 1 ? blocks - 1 - k : k;
        launch.block[0] = uint32_t(b % launch.grid[0]);
        launch.block[1] = uint32_t(b / launch.grid[0] % launch.grid[1]);
        launch.block[2] = uint32_t(b / launch.grid[0] / launch.grid[1]);
        launch.block_number = uint32_t(b);
        launch.block_stamp = ++stamps;
        launch.phase = 1;
        std::memset(memory.shared(), 0xff, Memory::shared_begin + launch.shared_bytes);
        launch.of_block.assign(launch.program->code.size(), 0);
        run_block(launch, warps, random);
        if (k == 0) launch.of_first_block = launch.of_block;
        if (launch.of_block != launch.of_first_block) launch.is_ragged = true;
    }
}

}  // namespace ptx
