// The instructions ld, st, cvta and prefetch: addresses, and checks of the accessed memory.
#include <algorithm>
#include <cstring>

#include "decode.hpp"
#include "warp.hpp"

namespace ptx {
namespace {

uint64_t address_of(Warp& w, const Instruction& i, int lane) {
    const uint64_t base = !i.has_base   ? 0
                          : i.wide_base ? get<uint64_t>(w.operand(i.a[0]), lane)
                                        : get<uint32_t>(w.operand(i.a[0]), lane);
    return base + uint64_t(i.offset);
}

// Visits the words of an access, each with its accessed bytes.
template <bool writes, class F>
void touch(Warp& w, const Instruction& i, int lane, uint64_t address, uint64_t bytes, const char* at, const char* value,
           uint32_t stamp, F&& word_at) {
    const Launch& launch = *w.launch;
    Access now{stamp, launch.block_number, launch.phase, w.step, uint16_t(w.index * lanes_of_warp + lane), 0, writes,
               false};
    for (uint64_t k = 0; k < bytes; k += word_bytes) {
        const uint64_t n = std::min(bytes, word_bytes), first = address % word_bytes;
        now.bytes = uint8_t(((1u << n) - 1) << first);
        now.changes = writes && std::memcmp(at + k, value + k, n) != 0;
        if (const char* race = word_at(address + k).touch(now)) found(w, i, lane, race);
    }
}

template <bool writes>
char* in_shared(Warp& w, const Instruction& i, int lane, uint64_t address, uint64_t bytes, const char* value) {
    Launch& launch = *w.launch;
    Memory& memory = *launch.memory;
    if (address < Memory::shared_begin || address + bytes > Memory::shared_begin + launch.shared_bytes) {
        found(w, i, lane, "out of bounds of shared memory");
        return nullptr;
    }
    char* const at = memory.shared() + address;
    const auto word = [&](uint64_t a) -> Word& { return memory.shared_words[a / word_bytes]; };
    if (!writes)
        for (uint64_t k = 0; k < bytes; k += word_bytes) {
            const Word& x = word(address + k);
            if (x.stamp != launch.block_stamp || !x.has) found(w, i, lane, "unwritten shared memory is read");
        }
    touch<writes>(w, i, lane, address, bytes, at, value, launch.block_stamp, word);
    if (writes)
        for (uint64_t k = 0; k < bytes; k += word_bytes) word(address + k).has = true;
    return at;
}

template <bool writes>
char* on_device(Warp& w, const Instruction& i, int lane, uint64_t address, uint64_t bytes, const char* value) {
    Launch& launch = *w.launch;
    Memory& memory = *launch.memory;
    const uint64_t parameters = uint64_t(launch.parameters.data());
    char* const at = reinterpret_cast<char*>(address);
    if (address >= parameters && address + bytes <= parameters + launch.parameters.size()) {
        if (writes) found(w, i, lane, "a parameter is written");
        return writes ? nullptr : at;
    }
    switch (memory.reached(address, bytes)) {
        case Reached::own:
            if (!memory.mark(address, bytes, writes)) found(w, i, lane, "unwritten device memory is read");
            break;
        case Reached::array: break;
        case Reached::across: found(w, i, lane, "out of bounds of device memory: across an end"); return nullptr;
        case Reached::nothing:
            found(w, i, lane, "out of bounds of device memory: an address of nothing");
            return nullptr;
    }
    touch<writes>(w, i, lane, address, bytes, at, value, launch.stamp,
                  [&](uint64_t a) -> Word& { return memory.word(a); });
    return at;
}

// The host address of a lane's accessed bytes, or null.
template <bool writes>
char* place(Warp& w, const Instruction& i, uint64_t address, int lane, const char* value) {
    const uint64_t bytes = uint64_t(i.bytes) * i.elements;
    Space space = i.space;
    if (space == Space::generic) {
        Memory& memory = *w.launch->memory;
        space = Space::global;
        if (memory.is_shared(address)) {
            space = Space::shared, address -= uint64_t(memory.shared());
        } else if (memory.is_local(address)) {
            space = Space::local, address -= memory.local();
        }
    }
    if (address % bytes != 0) {
        found(w, i, lane, "misaligned access");
        return nullptr;
    }
    if (space == Space::shared) return in_shared<writes>(w, i, lane, address, bytes, value);
    if (space != Space::local) return on_device<writes>(w, i, lane, address, bytes, value);
    if (address + bytes > uint64_t(w.program->local_bytes)) {
        found(w, i, lane, "out of bounds of local memory");
        return nullptr;
    }
    return w.local.data() + size_t(lane) * size_t(w.program->local_bytes) + address;
}

void put_element(Warp& w, const Instruction& i, int k, int lane, uint64_t x) {
    if (i.is_signed) {
        const int unused = 64 - 8 * i.bytes;
        x = uint64_t(int64_t(x << unused) >> unused);
    }
    if (i.wide >> k & 1) {
        put<uint64_t>(w.operand(i.d[k]), lane, x);
    } else {
        put<uint32_t>(w.operand(i.d[k]), lane, uint32_t(x));
    }
}
uint64_t element(Warp& w, const Instruction& i, int k, int lane) {
    return i.wide >> k & 1 ? get<uint64_t>(w.operand(i.d[k]), lane) : get<uint32_t>(w.operand(i.d[k]), lane);
}
void load_elements(Warp& w, const Instruction& i, int lane, const char* from) {
    for (int k = 0; k < i.elements; ++k) {
        uint64_t x = 0;
        if (from) std::memcpy(&x, from + k * i.bytes, i.bytes);
        put_element(w, i, k, lane, x);
    }
}
void store_elements(Warp& w, const Instruction& i, int lane, char* to) {
    for (int k = 0; k < i.elements; ++k) {
        const uint64_t x = element(w, i, k, lane);
        std::memcpy(to + k * i.bytes, &x, i.bytes);
    }
}

// The number of passes through the banks of shared memory, of four bytes each: in one pass, lanes access different
// banks or the same word. Lanes that access more than four bytes form groups of 128 bytes.
uint64_t passes_through_banks(const Instruction& i, uint32_t lanes, const uint64_t (&address)[lanes_of_warp]) {
    constexpr uint64_t banks = 32;
    const int words = std::max(1, int(i.bytes) * i.elements / int(word_bytes)), of_group = lanes_of_warp / words;
    uint64_t passes = 0;
    for (int first = 0; first < lanes_of_warp; first += of_group) {
        std::vector<uint64_t> found[banks];
        uint64_t most = 0;
        for (int l = first; l < first + of_group; ++l)
            for (int k = 0; (lanes >> l & 1) && k < words; ++k) {
                const uint64_t word = address[l] / word_bytes + uint64_t(k);
                std::vector<uint64_t>& bank = found[word % banks];
                if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
                most = std::max<uint64_t>(most, bank.size());
            }
        passes += most;
    }
    return passes;
}
// The number of pieces of `of_piece` bytes that an access reaches.
uint64_t pieces(uint32_t lanes, const uint64_t (&address)[lanes_of_warp], uint64_t of_piece) {
    std::vector<uint64_t> found;
    for_lanes(lanes, [&](int l) { found.push_back(address[l] / of_piece); });
    std::sort(found.begin(), found.end());
    return uint64_t(std::unique(found.begin(), found.end()) - found.begin());
}
// Counts the passes of an access. Every access is aligned to its size, which is less than a piece.
void count_passes(Warp& w, const Instruction& i, uint32_t lanes) {
    uint64_t address[lanes_of_warp];
    for_lanes(lanes, [&](int l) { address[l] = address_of(w, i, l); });
    const uint64_t any = address[std::countr_zero(lanes)];
    const Memory& memory = *w.launch->memory;
    const bool is_generic = i.space == Space::generic;
    if (i.space == Space::shared || (is_generic && memory.is_shared(any))) {
        w.work->shared_passes += passes_through_banks(i, lanes, address);
    } else if (i.space == Space::global || (is_generic && !memory.is_local(any))) {
        const auto registers = uint64_t(std::popcount(lanes) * i.bytes * i.elements);
        w.work->device_passes += std::max(pieces(lanes, address, 128), (registers + 127) / 128);
        w.work->device_sectors += pieces(lanes, address, 32);
    }
}

// Notes the number of lanes that access device memory by an instruction: a launch is ragged if the number varies.
void note_lanes(Warp& w, const Instruction& i, uint32_t lanes) {
    if (i.space != Space::global && i.space != Space::generic) return;
    Launch& launch = *w.launch;
    const size_t at = size_t(&i - w.program->code.data());
    const auto n = uint8_t(std::popcount(lanes));
    uint8_t& first = launch.first_lanes[at];
    if (first == 0) first = n;
    if (first != n) launch.is_ragged = true;
    launch.of_block[at] += n;
}
void run_load(Warp& w, const Instruction& i, uint32_t lanes) {
    note_lanes(w, i, lanes);
    count_passes(w, i, lanes);
    for_lanes(lanes, [&](int l) { load_elements(w, i, l, place<false>(w, i, address_of(w, i, l), l, nullptr)); });
}
void run_store(Warp& w, const Instruction& i, uint32_t lanes) {
    note_lanes(w, i, lanes);
    count_passes(w, i, lanes);
    for_lanes(lanes, [&](int l) {
        char value[32];
        store_elements(w, i, l, value);
        if (char* const to = place<true>(w, i, address_of(w, i, l), l, value))
            std::memcpy(to, value, size_t(i.bytes) * i.elements);
    });
}
void run_load_of_parameter(Warp& w, const Instruction& i, uint32_t lanes) {
    const std::vector<char>& all = w.launch->parameters;
    for_lanes(lanes, [&](int l) {
        const uint64_t at = address_of(w, i, l);
        const bool fits = at + uint64_t(i.bytes) * i.elements <= all.size();
        if (!fits) found(w, i, l, "out of bounds of the parameters");
        load_elements(w, i, l, fits ? all.data() + at : nullptr);
    });
}
void run_load_of_argument(Warp& w, const Instruction& i, uint32_t lanes) {
    for_lanes(lanes, [&](int l) { load_elements(w, i, l, w.frame_of(l) + i.offset); });
}
void run_store_of_argument(Warp& w, const Instruction& i, uint32_t lanes) {
    for_lanes(lanes, [&](int l) { store_elements(w, i, l, w.frame_of(l) + i.offset); });
}

// ---- operands of instructions --------------------------------------------------------------------------------------

const std::map<std::string, Space> spaces = {
    {"global", Space::global}, {"shared", Space::shared}, {"local", Space::local}, {"param", Space::parameter}};

Space space_of(Opcode& opcode) {
    for (const auto& [name, space] : spaces)
        if (opcode.take(name)) return space;
    return Space::generic;
}
// Decodes an address, [name] or [name + 8]. The name of a variable also determines the space of the address.
void decode_address(Instruction& i, const Opcode& opcode, const std::vector<std::string>& words, Names& names) {
    if (words.size() < 3 || words.front() != "[" || words.back() != "]") opcode.unknown();
    const std::string& base = words[1];
    i.offset = 0;
    if (!names.is_register(base)) {
        i.has_base = false;
        if (!names.variable(base, i.space, i.offset)) opcode.unknown();
    } else {
        i.wide_base = names.is_wide(base);
        i.a[0] = names.either_size(base);
    }
    if (words.size() == 5 && words[2] == "+") {
        i.offset += std::stoll(words[3]);
    } else if (words.size() != 3) {
        opcode.unknown();
    }
}
void decode_elements(Instruction& i, const Opcode& opcode, const std::vector<std::string>& words, Names& names) {
    std::vector<std::string> elements;
    for (const std::string& word : words)
        if (word != "{" && word != "}" && word != ",") elements.push_back(word);
    if (elements.size() != i.elements) opcode.unknown();
    for (size_t k = 0; k < elements.size(); ++k) {
        const std::string& one = elements[k];
        const bool wide = names.is_register(one) ? names.is_wide(one) : i.bytes == 8;
        i.wide |= uint8_t(wide << k);
        i.d[k] = one == "_" ? names.unused(wide) : names.operand(one, wide);
    }
}
void begin_access(Instruction& i, Opcode& opcode) {
    i.bytes = uint8_t(bytes_of_type(opcode.type));
    i.elements = opcode.take("v2") ? 2 : opcode.take("v4") ? 4 : 1;
    i.space = space_of(opcode);
}
Class class_of(const Instruction& i, bool is_load) {
    switch (i.space) {
        case Space::shared: return is_load ? Class::shared_load : Class::shared_store;
        case Space::local: return Class::local;
        case Space::parameter:
        case Space::argument: return Class::parameter;
        default: return is_load ? Class::device_load : Class::device_store;
    }
}
void decode_load(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    begin_access(i, opcode);
    i.is_signed = opcode.type[0] == 's';
    decode_elements(i, opcode, o.at(0), names);
    decode_address(i, opcode, o.at(1), names);
    i.kind = class_of(i, true);
    i.run = i.space == Space::parameter  ? &run_load_of_parameter
            : i.space == Space::argument ? &run_load_of_argument
                                         : &run_load;
}
void decode_store(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    begin_access(i, opcode);
    decode_address(i, opcode, o.at(0), names);
    decode_elements(i, opcode, o.at(1), names);
    i.kind = class_of(i, false);
    if (i.space == Space::parameter) opcode.unknown();
    i.run = i.space == Space::argument ? &run_store_of_argument : &run_store;
}

// Converts addresses between a space and the generic space, in which addresses of device memory are unchanged.
void run_address(Warp& w, const Instruction& i, uint32_t lanes) {
    const Memory& memory = *w.launch->memory;
    uint64_t begin = 0;
    if (i.space == Space::shared) begin = uint64_t(const_cast<Memory&>(memory).shared());
    if (i.space == Space::local) begin = memory.local();
    if (i.space == Space::parameter) begin = uint64_t(w.launch->parameters.data());
    char* const d = w.operand(i.d[0]);
    const char* const a = w.operand(i.a[0]);
    for_lanes(lanes, [&](int l) {
        const auto x = get<uint64_t>(a, l);
        put<uint64_t>(d, l, i.negated ? x - begin : x + begin);
    });
}
void decode_address_space(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    i.kind = Class::move;
    i.negated = opcode.take("to");
    i.space = space_of(opcode);
    if (opcode.type != "u64" || i.space == Space::generic || (i.negated && i.space == Space::parameter))
        opcode.unknown();
    i.d[0] = names.operand(only_word(o, 0), true);
    i.a[0] = names.operand(only_word(o, 1), true);
    i.run = &run_address;
}

// Decodes a prefetch, which is counted as a load and has no effect.
void decode_prefetch(Instruction& i, Opcode& opcode, const Operands&, Names&) {
    i.kind = Class::device_load;
    opcode.take("global");
    if (opcode.type != "L1" && opcode.type != "L2") opcode.unknown();
    i.run = &do_nothing;
}

}  // namespace

void add_accesses(std::map<std::string, Decode>& decoders) {
    decoders["ld"] = &decode_load;
    decoders["st"] = &decode_store;
    decoders["cvta"] = &decode_address_space;
    decoders["prefetch"] = &decode_prefetch;
}

}  // namespace ptx
