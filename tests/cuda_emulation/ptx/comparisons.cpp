// The instructions setp and selp, and, for predicates, the instructions `and`, or, xor, not and mov.
#include "decode.hpp"
#include "operations.hpp"

namespace ptx {
namespace {

enum class How : uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };
const std::map<std::string, How> relations = {
    {"eq", How::eq},   {"ne", How::ne},   {"lt", How::lt},   {"le", How::le},   {"gt", How::gt},   {"ge", How::ge},
    {"lo", How::lt},   {"ls", How::le},   {"hi", How::gt},   {"hs", How::ge},   {"equ", How::equ}, {"neu", How::neu},
    {"ltu", How::ltu}, {"leu", How::leu}, {"gtu", How::gtu}, {"geu", How::geu}, {"num", How::num}, {"nan", How::nan}};

template <class T>
bool holds(How how, T a, T b) {
    if constexpr (is_float<T>) {
        const bool is_unordered = a != a || b != b;
        if (how == How::num || how == How::nan) return is_unordered == (how == How::nan);
        if (is_unordered) return how >= How::equ;
    }
    switch (how) {
        case How::eq:
        case How::equ: return a == b;
        case How::ne:
        case How::neu: return a != b;
        case How::lt:
        case How::ltu: return a < b;
        case How::le:
        case How::leu: return a <= b;
        case How::gt:
        case How::gtu: return a > b;
        default: return a >= b;
    }
}

enum Logic : uint8_t { keep, complement, both, either, differ };
uint32_t joined(uint8_t how, uint32_t a, uint32_t b) {
    switch (how) {
        case keep: return a;
        case complement: return ~a;
        case both: return a & b;
        case either: return a | b;
        default: return a ^ b;
    }
}

// Runs a comparison: a[1] is the relation, `how` is the operation that joins the result with the predicate b[1], and
// d[1] is the predicate that receives the complement, or -1.
template <class T>
void run_comparison(Warp& w, const Instruction& i, uint32_t lanes) {
    const char *const a = w.operand(i.a[0]), *const b = w.operand(i.b[0]);
    uint32_t is = 0;
    for_lanes(lanes, [&](int l) { is |= uint32_t(holds(How(i.a[1]), get<T>(a, l), get<T>(b, l))) << l; });
    const uint32_t other = w.predicates[size_t(i.b[1])] ^ (i.negated ? all_lanes : 0);
    put_predicate(w, i.d[0], lanes, joined(i.how, is, other));
    if (i.d[1] >= 0) put_predicate(w, i.d[1], lanes, joined(i.how, ~is, other));
}
template <class T>
void run_choice(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char *const a = w.operand(i.a[0]), *const b = w.operand(i.b[0]);
    const uint32_t p = w.predicates[size_t(i.c[0])];
    for_lanes(lanes, [&](int l) { put<T>(d, l, p >> l & 1 ? get<T>(a, l) : get<T>(b, l)); });
}
void run_logic(Warp& w, const Instruction& i, uint32_t lanes) {
    put_predicate(w, i.d[0], lanes, joined(i.how, w.predicates[size_t(i.a[0])], w.predicates[size_t(i.b[0])]));
}

const std::map<std::string, Run> comparisons = {
    {"b16", &run_comparison<uint16_t>}, {"u16", &run_comparison<uint16_t>}, {"s16", &run_comparison<int16_t>},
    {"b32", &run_comparison<uint32_t>}, {"u32", &run_comparison<uint32_t>}, {"s32", &run_comparison<int32_t>},
    {"b64", &run_comparison<uint64_t>}, {"u64", &run_comparison<uint64_t>}, {"s64", &run_comparison<int64_t>},
    {"f32", &run_comparison<float>},    {"f64", &run_comparison<double>}};
const std::map<std::string, Run> choices = {
    {"b16", &run_choice<uint32_t>}, {"u16", &run_choice<uint32_t>}, {"s16", &run_choice<uint32_t>},
    {"b32", &run_choice<uint32_t>}, {"u32", &run_choice<uint32_t>}, {"s32", &run_choice<uint32_t>},
    {"f32", &run_choice<uint32_t>}, {"b64", &run_choice<uint64_t>}, {"u64", &run_choice<uint64_t>},
    {"s64", &run_choice<uint64_t>}, {"f64", &run_choice<uint64_t>}};

void decode_comparison(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    std::vector<std::string> known;
    for (const auto& [name, how] : relations) known.push_back(name);
    i.kind = Class::predicate;
    i.a[1] = int(relations.at(opcode.take_one_of(known)));
    i.how = opcode.take("and") ? both : opcode.take("or") ? either : opcode.take("xor") ? differ : keep;
    if (o.size() != (i.how == keep ? 3u : 4u)) opcode.unknown();
    i.d[0] = names.predicate(o[0].at(0));
    i.d[1] = o[0].size() == 3 && o[0][1] == "|" ? names.predicate(o[0][2]) : -1;
    i.a[0] = names.operand(only_word(o, 1), opcode.is_wide());
    i.b[0] = names.operand(only_word(o, 2), opcode.is_wide());
    if (i.how != keep) {
        i.negated = o[3].at(0) == "!";
        i.b[1] = names.predicate(o[3].back());
    }
    i.run = by_type(comparisons, opcode);
}
void decode_choice(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    i.kind = Class::move;
    i.d[0] = names.operand(only_word(o, 0), opcode.is_wide());
    i.a[0] = names.operand(only_word(o, 1), opcode.is_wide());
    i.b[0] = names.operand(only_word(o, 2), opcode.is_wide());
    i.c[0] = names.predicate(only_word(o, 3));
    i.run = by_type(choices, opcode);
}

const std::map<std::string, Decode>& of_numbers() {
    static const std::map<std::string, Decode> found = [] {
        std::map<std::string, Decode> all;
        add_arithmetic(all);
        add_conversions(all);
        return all;
    }();
    return found;
}
template <Logic how>
void decode_logic(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (opcode.type != "pred") {
        of_numbers().at(opcode.name)(i, opcode, o, names);
        return;
    }
    i.kind = Class::predicate;
    i.how = how;
    i.d[0] = names.predicate(only_word(o, 0));
    i.a[0] = names.predicate(only_word(o, 1));
    if (how != keep && how != complement) i.b[0] = names.predicate(only_word(o, 2));
    i.run = &run_logic;
}

}  // namespace

void add_comparisons(std::map<std::string, Decode>& decoders) {
    decoders["setp"] = &decode_comparison;
    decoders["selp"] = &decode_choice;
    decoders["and"] = &decode_logic<both>;
    decoders["or"] = &decode_logic<either>;
    decoders["xor"] = &decode_logic<differ>;
    decoders["not"] = &decode_logic<complement>;
    decoders["mov"] = &decode_logic<keep>;
}

}  // namespace ptx
