#include "testing.hpp"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include "run.hpp"
#include "sources.inc"  // defines the hash of the sources of this build: constexpr const char* sources

namespace ptx {
namespace {

std::string readable(const std::string& mangled) {
    int status = 0;
    const std::unique_ptr<char, decltype(&std::free)> name(
        abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), &std::free);
    return name ? name.get() : mangled;
}
std::string content(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Error("no file " + path.string());
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

struct Entry {
    const ModuleText* module;
    std::string mangled;
    std::unique_ptr<Program> program;  // assembled at the first launch
    Report::Kernel seen;
};

struct State {
    bool is_ready = false, is_on = false;
    std::string error;  // the reason why the folder's PTX cannot be used
    Contraction contraction = Contraction::none;
    std::optional<int> order;  // order of threads of every launch
    Memory memory;
    std::vector<Warp> warps;
    std::vector<std::unique_ptr<ModuleText>> modules;
    std::map<std::string, Entry> entries;           // kernels by readable name
    bool is_reported = false;                       // whether the folder is that of the environment
    std::map<std::string, Report::Kernel> earlier;  // reports of kernels that were interpreted before the folder was
                                                    // changed
    std::map<const void*, std::string> symbols;     // mangled names of symbols of this module, by address
    std::vector<Known> known;
    std::vector<std::set<int>> seen;  // lines of each known finding
    std::set<std::pair<std::string, std::string>> reported;

    void add(std::unique_ptr<ModuleText> module) {
        for (const auto& [name, function] : module->functions()) {
            if (!function.is_kernel) continue;
            const auto [entry, is_new] = entries.try_emplace(readable(name), Entry{module.get(), name, nullptr, {}});
            if (!is_new) throw Error("two kernels are called " + entry->first);
        }
        modules.push_back(std::move(module));
    }
    Program& program(const std::string& kernel, Entry& entry) {
        if (!entry.program) {
            try {
                entry.program = std::make_unique<Program>(assemble(*entry.module, entry.mangled, kernel, contraction));
            } catch (const Error& error) {
                throw Error(kernel + ": " + error.what());
            }
        }
        return *entry.program;
    }
};
State& state() {
    static State only;
    return only;
}

// Reads the names of this module's functions: the host's compiler gives a kernel the same name as nvcc.
void read_symbols(State& s) {
    Dl_info info;
    if (!dladdr(reinterpret_cast<void*>(&read_symbols), &info)) throw Error("this module has no file");
    const std::unique_ptr<FILE, int (*)(FILE*)> nm(
        popen(("nm --defined-only '" + std::string(info.dli_fname) + "'").c_str(), "r"), &pclose);
    if (!nm) throw Error("nm, which names kernels, cannot be run");
    char* line = nullptr;
    size_t room = 0;
    while (getline(&line, &room, nm.get()) > 0) {
        std::stringstream words(line);
        std::string address, kind, name;
        words >> address >> kind >> name;
        if (kind == "t" || kind == "T" || kind == "w" || kind == "W")
            s.symbols[static_cast<char*>(info.dli_fbase) + std::stoull(address, nullptr, 16)] = name;
    }
    std::free(line);
    if (s.symbols.empty()) throw Error("this module names no functions");
}

// Reads the folder of the environment, once. PTX that cannot be used is an error of every launch.
void start(State& s) {
    s.is_ready = true;
    const char* const contract = std::getenv("HEADRACE_EMU_PTX_CONTRACT");
    if (contract && std::strcmp(contract, "1") == 0) s.contraction = Contraction::as_ptxas;
    if (const char* const order = std::getenv("HEADRACE_EMU_PTX_ORDER")) s.order = std::atoi(order);
    const char* const folder = std::getenv("HEADRACE_EMU_PTX");
    if (!folder) return;
    try {
        use(folder);
    } catch (const std::exception& error) {
        s.error = error.what();
    }
}

void fill(Launch& launch, const Geometry& geometry, const Arguments& arguments) {
    const Program& p = *launch.program;
    const std::vector<Slot>& expected = p.functions[0].parameters;
    if (expected.size() != arguments.size())
        throw Error(p.kernel + ": expected " + std::to_string(expected.size()) + " parameters, as its PTX has, got " +
                    std::to_string(arguments.size()));
    launch.parameters.resize(size_t(p.parameter_bytes));
    for (size_t k = 0; k < arguments.size(); ++k) {
        if (size_t(expected[k].bytes) != arguments[k].second)
            throw Error(p.kernel + ": expected " + std::to_string(expected[k].bytes) + " bytes for parameter " +
                        std::to_string(k) + ", as its PTX has, got " + std::to_string(arguments[k].second));
        std::memcpy(launch.parameters.data() + expected[k].at, arguments[k].first, arguments[k].second);
    }
    std::copy_n(geometry.grid, 3, launch.grid);
    std::copy_n(geometry.threads, 3, launch.threads);
    launch.shared_bytes = uint32_t(geometry.shared_bytes);
    if (Memory::shared_begin + launch.shared_bytes > Memory::window_bytes)
        throw Error(p.kernel + ": too much shared memory");
}

// Whether a finding is among the known findings, whose lines must not exceed their declared number.
bool is_known(State& s, const std::string& kernel, const std::string& kind, int line) {
    for (size_t k = 0; k < s.known.size(); ++k) {
        if (kind != s.known[k].kind || kernel.find(s.known[k].kernel) == std::string::npos) continue;
        s.seen[k].insert(line);
        if (s.is_reported) s.reported.emplace(s.known[k].kernel, s.known[k].kind);
        return s.seen[k].size() <= s.known[k].lines;
    }
    return false;
}
void judge(State& s, const Launch& launch) {
    std::string all;
    size_t n = 0;
    constexpr size_t most = 12;
    for (const auto& [key, finding] : launch.findings) {
        if (is_known(s, launch.program->kernel, key.first, key.second) || ++n > most) continue;
        all += (n > 1 ? "\n" : "") + key.first + ": " + finding.who + " (" + std::to_string(finding.times) + " times)";
    }
    if (n > most) all += "\n... and " + std::to_string(n - most) + " more";
    if (n > 0) throw Error(all);
}

void add(Work& sum, const Work& one) {
    for (size_t k = 0; k < sum.executed.size(); ++k) sum.executed[k] += one.executed[k];
    sum.shared_passes += one.shared_passes;
    sum.device_passes += one.device_passes;
    sum.device_sectors += one.device_sectors;
}

void run_entry(State& s, const std::string& kernel, Entry& entry, const Geometry& geometry,
               const Arguments& arguments) {
    Launch launch;
    launch.program = &s.program(kernel, entry);
    launch.memory = &s.memory;
    fill(launch, geometry, arguments);
    launch.order = s.order.value_or(geometry.order);
    const std::lock_guard<std::mutex> lock(s.memory.mutex);
    run(launch, s.warps);
    const uint64_t blocks = uint64_t(geometry.grid[0]) * geometry.grid[1] * geometry.grid[2];
    ++entry.seen.launches;
    entry.seen.most_blocks = std::max(entry.seen.most_blocks, blocks);
    entry.seen.ragged += blocks > 1 && launch.is_ragged;
    judge(s, launch);
}

}  // namespace

void use(const std::string& folder) {
    State& s = state();
    if (!s.is_ready) start(s);
    if (s.is_reported) s.earlier = report().kernels;
    const char* const own = std::getenv("HEADRACE_EMU_PTX");
    s.is_reported = own && folder == own;
    s.is_on = false;
    s.error.clear();
    s.entries.clear();
    s.modules.clear();
    if (folder.empty()) return;
    if (s.symbols.empty()) read_symbols(s);
    const std::string made = content(std::filesystem::path(folder) / "sources");
    if (made.substr(0, made.find('\n')) != sources)
        throw Error("the PTX in " + folder + " is of other sources than this build: make it again");
    std::set<std::filesystem::path> files;
    for (const auto& file : std::filesystem::directory_iterator(folder))
        if (file.path().extension() == ".ptx") files.insert(file.path());
    if (files.empty()) throw Error("no PTX in " + folder);
    for (const auto& file : files) s.add(std::make_unique<ModuleText>(file.filename().string(), content(file)));
    s.is_on = true;
}

bool interprets(const void* kernel) {
    State& s = state();
    if (!s.is_ready) start(s);
    if (!s.error.empty()) throw Error(s.error);
    if (!s.is_on) return false;
    const auto symbol = s.symbols.find(kernel);
    if (symbol == s.symbols.end()) throw Error("a kernel without a name");
    const std::string name = readable(symbol->second);
    if (s.entries.count(name)) return true;
    if (name.find("headrace::") != std::string::npos) throw Error("no PTX of the kernel " + name);
    return false;
}
void launch(const void* kernel, const Geometry& geometry, const Arguments& arguments) {
    State& s = state();
    const std::string name = readable(s.symbols.at(kernel));
    run_entry(s, name, s.entries.at(name), geometry, arguments);
}

void memory_taken(const void* p, size_t bytes) {
    state().memory.taken(p, bytes);
}
void memory_freed(const void* p) {
    state().memory.freed(p);
}
void memory_written(const void* p, size_t bytes) {
    state().memory.written(p, bytes);
}
void array_seen(const void* p, size_t bytes) {
    state().memory.seen(p, bytes);
}

std::vector<Work> run_text(const std::string& text, const std::string& kernel, const Geometry& geometry,
                           const Arguments& arguments, bool contract) {
    State& s = state();
    const ModuleText module("text", text);
    Entry entry{&module, kernel, nullptr, {}};
    if (!module.functions().count(kernel)) throw Error("no kernel " + kernel);
    entry.program = std::make_unique<Program>(
        assemble(module, kernel, kernel, contract ? Contraction::as_ptxas : Contraction::none));
    run_entry(s, kernel, entry, geometry, arguments);
    return entry.program->work;
}

void forget_arrays() {
    state().memory.forget_arrays();
}

void know(const std::vector<Known>& findings) {
    state().known = findings;
    state().seen.assign(findings.size(), {});
}

Report report() {
    State& s = state();
    Report all;
    all.kernels = s.earlier;
    all.known.assign(s.reported.begin(), s.reported.end());
    if (!s.is_reported) return all;
    for (auto& [name, entry] : s.entries) {
        Report::Kernel& kernel = all.kernels[name];
        kernel.launches += entry.seen.launches;
        kernel.ragged += entry.seen.ragged;
        kernel.most_blocks = std::max(kernel.most_blocks, entry.seen.most_blocks);
        if (!entry.program) continue;
        const std::vector<Work>& work = entry.program->work;
        kernel.warps.resize(std::max(kernel.warps.size(), work.size()));
        for (size_t k = 0; k < work.size(); ++k) add(kernel.warps[k], work[k]);
    }
    return all;
}

}  // namespace ptx
