// The instructions cvt and mov: conversions between types, and registers that the system sets.
#include "decode.hpp"
#include "operations.hpp"

namespace ptx {
namespace {

// Converts to an integer type: values out of range become the nearest value in range, and a NaN becomes zero or, in 64
// bits, the topmost bit.
template <class To, class From>
To whole(From a) {
    if (a != a) return sizeof(To) == 8 ? To(uint64_t(1) << 63) : To(0);
    constexpr int bits = std::numeric_limits<To>::digits;
    const From beyond = std::ldexp(From(1), bits);
    if (a >= beyond) return std::numeric_limits<To>::max();
    if (a < (std::is_signed_v<To> ? -beyond : From(0))) return std::numeric_limits<To>::min();
    return To(a);
}
template <class T>
T rounded(T a, uint8_t how) {  // rounds to an integral value
    switch (how) {
        case 'i': return std::nearbyint(a);
        case 'z': return std::trunc(a);
        case 'm': return std::floor(a);
        case 'p': return std::ceil(a);
        default: return a;
    }
}
template <class To, class From>
To converted(From a, uint8_t how) {
    if constexpr (is_float<From> && is_float<To>) {
        return To(rounded(a, how));
    } else if constexpr (is_float<From>) {
        return whole<To>(rounded(a, how));
    } else {
        return To(a);
    }
}
// Runs a conversion. The lower part of a register that is wider than the type is used.
template <class To, class From>
void run_conversion(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char* const a = w.operand(i.a[0]);
    if constexpr (!is_float<From> && sizeof(From) < 8) {
        if (i.wide) {
            for_lanes(lanes, [&](int l) { put<To>(d, l, converted<To>(From(get<uint64_t>(a, l)), i.how)); });
            return;
        }
    }
    for_lanes(lanes, [&](int l) { put<To>(d, l, converted<To>(get<From>(a, l), i.how)); });
}

using Table = std::map<std::string, Run>;
template <class To>
const Table& into() {
    static const Table table = {{"u8", &run_conversion<To, uint8_t>},   {"s8", &run_conversion<To, int8_t>},
                                {"u16", &run_conversion<To, uint16_t>}, {"s16", &run_conversion<To, int16_t>},
                                {"u32", &run_conversion<To, uint32_t>}, {"s32", &run_conversion<To, int32_t>},
                                {"u64", &run_conversion<To, uint64_t>}, {"s64", &run_conversion<To, int64_t>},
                                {"f32", &run_conversion<To, float>},    {"f64", &run_conversion<To, double>}};
    return table;
}
const std::map<std::string, const Table& (*)()> targets = {
    {"u16", &into<uint16_t>}, {"s16", &into<int16_t>}, {"u32", &into<uint32_t>}, {"s32", &into<int32_t>},
    {"u64", &into<uint64_t>}, {"s64", &into<int64_t>}, {"f32", &into<float>},    {"f64", &into<double>}};

bool is_real(const std::string& type) {
    return type == "f32" || type == "f64";
}

void decode_conversion(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    i.kind = Class::convert;
    if (opcode.take("tf32")) {
        if (opcode.type != "f32" || !opcode.take("rna")) opcode.unknown();
        i.d[0] = names.operand(only_word(o, 0), false);
        i.a[0] = names.operand(only_word(o, 1), false);
        i.run = &run_one<float, ToTf32>;
        return;
    }
    std::vector<std::string> known;
    for (const auto& [name, table] : targets) known.push_back(name);
    const std::string to = opcode.take_one_of(known), from = opcode.type;
    // Rounding to an integral value has the modifier .r?i; rounding to fewer digits has .rn, which is the rounding of
    // the host.
    const bool is_whole =
        is_real(from) && (!is_real(to) || (!opcode.modifiers.empty() && opcode.modifiers[0].back() == 'i'));
    const bool loses = is_real(to) && !is_whole && (from == "f64" ? to == "f32" : !is_real(from));
    if (is_whole) i.how = uint8_t(opcode.take_one_of({"rni", "rzi", "rmi", "rpi"})[1]);
    if (is_whole && i.how == 'n') i.how = 'i';
    if (loses && !opcode.take("rn")) opcode.unknown();
    if (names.is_register(only_word(o, 0)) && names.is_wide(only_word(o, 0)) != Opcode::is_wide_type(to))
        opcode.unknown();
    const bool wide_source = names.is_register(only_word(o, 1)) && names.is_wide(only_word(o, 1));
    i.wide = wide_source && !Opcode::is_wide_type(from);
    if (i.wide && is_real(from)) opcode.unknown();
    i.d[0] = names.operand(only_word(o, 0), Opcode::is_wide_type(to));
    i.a[0] = i.wide ? names.either_size(only_word(o, 1)) : names.operand(only_word(o, 1), opcode.is_wide());
    i.run = by_type(targets.at(to)(), opcode);
}

// ---- mov ---------------------------------------------------------------------------------------------------------

// Special registers of the thread, the block or the grid; the name of a register ends with its axis, as in %tid.x.
enum Special : uint8_t { thread, threads, block, blocks, lane, warp };
const std::map<std::string, Special> specials = {{"%tid", thread},    {"%ntid", threads}, {"%ctaid", block},
                                                 {"%nctaid", blocks}, {"%laneid", lane},  {"%warpid", warp}};

void run_special(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const Launch& launch = *w.launch;
    const int axis = i.a[1];
    for_lanes(lanes, [&](int l) {
        const uint32_t t = uint32_t(w.index * lanes_of_warp + l);
        const uint32_t of_thread[] = {t % launch.threads[0], t / launch.threads[0] % launch.threads[1],
                                      t / launch.threads[0] / launch.threads[1]};
        uint32_t x = 0;
        switch (Special(i.how)) {
            case thread: x = of_thread[axis]; break;
            case threads: x = launch.threads[axis]; break;
            case block: x = launch.block[axis]; break;
            case blocks: x = launch.grid[axis]; break;
            case lane: x = uint32_t(l); break;
            case warp: x = uint32_t(w.index); break;
        }
        put<uint32_t>(d, l, x);
    });
}
void run_split(Warp& w, const Instruction& i, uint32_t lanes) {
    const char* const a = w.operand(i.a[0]);
    char *const low = w.operand(i.d[0]), *const high = w.operand(i.d[1]);
    for_lanes(lanes, [&](int l) {
        const auto both = get<uint64_t>(a, l);
        put<uint32_t>(low, l, uint32_t(both));
        put<uint32_t>(high, l, uint32_t(both >> 32));
    });
}
void run_join(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char *const low = w.operand(i.a[0]), *const high = w.operand(i.a[1]);
    for_lanes(lanes, [&](int l) {
        put<uint64_t>(d, l, uint64_t(get<uint32_t>(low, l)) | uint64_t(get<uint32_t>(high, l)) << 32);
    });
}

void decode_move(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    i.kind = Class::move;
    const std::string& first = o.at(0).at(0);
    const std::string& source = o.back().back();
    if (first == "{" || o.back().back() == "}") {
        if (opcode.type != "b64") opcode.unknown();
        if (first == "{") {
            i.d[0] = o[0].at(1) == "_" ? names.unused(false) : names.operand(o[0].at(1), false);
            i.d[1] = o[0].at(3) == "_" ? names.unused(false) : names.operand(o[0].at(3), false);
            i.a[0] = names.operand(only_word(o, 1), true);
            i.run = &run_split;
        } else {
            i.d[0] = names.operand(first, true);
            i.a[0] = names.operand(o[1].at(1), false);
            i.a[1] = names.operand(o[1].at(3), false);
            i.run = &run_join;
        }
        return;
    }
    const std::string name = source.substr(0, source.find('.'));
    if (const auto found = specials.find(name); found != specials.end()) {
        i.how = found->second;
        i.a[1] = name == source ? 0 : source.back() - 'x';
        if (i.a[1] < 0 || i.a[1] > 2) opcode.unknown();
        i.d[0] = names.operand(first, false);
        i.run = &run_special;
        return;
    }
    i.d[0] = names.operand(first, opcode.is_wide());
    i.a[0] = names.operand(only_word(o, 1), opcode.is_wide());
    i.run = opcode.is_wide() ? &run_one<uint64_t, Move> : &run_one<uint32_t, Move>;
}

}  // namespace

void add_conversions(std::map<std::string, Decode>& decoders) {
    decoders["cvt"] = &decode_conversion;
    decoders["mov"] = &decode_move;
}

}  // namespace ptx
