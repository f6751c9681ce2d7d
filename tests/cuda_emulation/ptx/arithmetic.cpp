// The instructions add, sub, mul, mad, fma, div, rem, min, max, and, or, xor, shl, shr, neg, abs, not, rcp, sqrt,
// rsqrt, mov and bfi.
#include "decode.hpp"
#include "operations.hpp"

namespace ptx {
namespace {

using Table = std::map<std::string, Run>;

template <class Op>
Table of_floats() {
    return {{"f32", &run_two<float, Op>}, {"f64", &run_two<double, Op>}};
}
template <class Op>
Table of_integers() {
    return {{"u16", &run_two<uint16_t, Op>}, {"s16", &run_two<int16_t, Op>},  {"u32", &run_two<uint32_t, Op>},
            {"s32", &run_two<int32_t, Op>},  {"u64", &run_two<uint64_t, Op>}, {"s64", &run_two<int64_t, Op>}};
}
template <class Op>
Table of_numbers() {
    Table all = of_integers<Op>();
    all.merge(of_floats<Op>());
    return all;
}
template <class Op>
Table of_bits() {
    return {{"b16", &run_two<uint16_t, Op>}, {"b32", &run_two<uint32_t, Op>}, {"b64", &run_two<uint64_t, Op>}};
}
template <class Op>
Table shifts_of_bits() {
    return {{"b16", &run_shift<uint16_t, Op>}, {"b32", &run_shift<uint32_t, Op>}, {"b64", &run_shift<uint64_t, Op>}};
}
template <class Op>
Table shifts_of_integers() {
    return {{"u16", &run_shift<uint16_t, Op>}, {"s16", &run_shift<int16_t, Op>},  {"u32", &run_shift<uint32_t, Op>},
            {"s32", &run_shift<int32_t, Op>},  {"u64", &run_shift<uint64_t, Op>}, {"s64", &run_shift<int64_t, Op>},
            {"b16", &run_shift<uint16_t, Op>}, {"b32", &run_shift<uint32_t, Op>}, {"b64", &run_shift<uint64_t, Op>}};
}
template <class Op>
Table of_one_float() {
    return {{"f32", &run_one<float, Op>}, {"f64", &run_one<double, Op>}};
}

const Table sums = of_numbers<Add>(), differences = of_numbers<Sub>(), products = of_numbers<Mul>(),
            high_products = of_integers<MulHigh>(), quotients = of_numbers<Div>(), remainders = of_integers<Rem>(),
            minima = of_numbers<Min>(), maxima = of_numbers<Max>(), ands = of_bits<And>(), ors = of_bits<Or>(),
            xors = of_bits<Xor>(), left_shifts = shifts_of_bits<ShiftLeft>(),
            right_shifts = shifts_of_integers<ShiftRight>(), reciprocals = of_one_float<Reciprocal>(),
            roots = of_one_float<Root>(), reciprocal_roots = of_one_float<ReciprocalRoot>();
const Table fused_sums = {{"f32", &run_three<float, Fma>}, {"f64", &run_three<double, Fma>}};
const Table low_products_and_sums = {{"u32", &run_three<uint32_t, Fma>},
                                     {"s32", &run_three<int32_t, Fma>},
                                     {"u64", &run_three<uint64_t, Fma>},
                                     {"s64", &run_three<int64_t, Fma>}};
const Table negatives = {{"s16", &run_one<int16_t, Neg>},
                         {"s32", &run_one<int32_t, Neg>},
                         {"s64", &run_one<int64_t, Neg>},
                         {"f32", &run_one<float, Neg>},
                         {"f64", &run_one<double, Neg>}};
const Table sizes = {{"s16", &run_one<int16_t, Abs>},
                     {"s32", &run_one<int32_t, Abs>},
                     {"s64", &run_one<int64_t, Abs>},
                     {"f32", &run_one<float, Abs>},
                     {"f64", &run_one<double, Abs>}};
const Table complements = {
    {"b16", &run_one<uint16_t, Not>}, {"b32", &run_one<uint32_t, Not>}, {"b64", &run_one<uint64_t, Not>}};

template <class T, class Wide>
void run_wide_product(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char *const a = w.operand(i.a[0]), *const b = w.operand(i.b[0]);
    for_lanes(lanes, [&](int l) { put<Wide>(d, l, Wide(Wide(get<T>(a, l)) * Wide(get<T>(b, l)))); });
}
template <class T, class Wide>
void run_wide_product_and_sum(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char *const a = w.operand(i.a[0]), *const b = w.operand(i.b[0]), *const c = w.operand(i.c[0]);
    for_lanes(lanes,
              [&](int l) { put<Wide>(d, l, Add::of(Wide(Wide(get<T>(a, l)) * Wide(get<T>(b, l))), get<Wide>(c, l))); });
}
const Table wide_products = {{"u16", &run_wide_product<uint16_t, uint32_t>},
                             {"s16", &run_wide_product<int16_t, int32_t>},
                             {"u32", &run_wide_product<uint32_t, uint64_t>},
                             {"s32", &run_wide_product<int32_t, int64_t>}};
const Table wide_products_and_sums = {{"u16", &run_wide_product_and_sum<uint16_t, uint32_t>},
                                      {"s16", &run_wide_product_and_sum<int16_t, int32_t>},
                                      {"u32", &run_wide_product_and_sum<uint32_t, uint64_t>},
                                      {"s32", &run_wide_product_and_sum<int32_t, int64_t>}};

Class class_of(const Opcode& opcode) {
    return opcode.type == "f32" ? Class::float32 : opcode.type == "f64" ? Class::float64 : Class::integer;
}

// ---- operands of these instructions -------------------------------------------------------------------------------

void one(Instruction& i, Opcode& opcode, const Operands& o, Names& names, const Table& table) {
    i.kind = class_of(opcode);
    i.d[0] = names.operand(only_word(o, 0), opcode.is_wide());
    i.a[0] = names.operand(only_word(o, 1), opcode.is_wide());
    i.run = by_type(table, opcode);
}
void two(Instruction& i, Opcode& opcode, const Operands& o, Names& names, const Table& table) {
    one(i, opcode, o, names, table);
    i.b[0] = names.operand(only_word(o, 2), opcode.is_wide());
}
void three(Instruction& i, Opcode& opcode, const Operands& o, Names& names, const Table& table) {
    two(i, opcode, o, names, table);
    i.c[0] = names.operand(only_word(o, 3), opcode.is_wide());
}

template <const Table& table>
void decode_two(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    two(i, opcode, o, names, table);
}
template <const Table& table>
void decode_one(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    one(i, opcode, o, names, table);
}
// Decodes a sum. Sums without .rn may become part of a fused product and sum (`Contraction`).
template <const Table& table>
void decode_sum(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (opcode.is_float()) opcode.take("rn");
    two(i, opcode, o, names, table);
}
template <const Table& table>
void decode_shift(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    one(i, opcode, o, names, table);
    i.b[0] = names.operand(only_word(o, 2), false);
}
template <const Table& table>
void decode_rounded_one(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (!opcode.take("rn")) opcode.unknown();
    one(i, opcode, o, names, table);
    i.kind = Class::special;
}
void decode_reciprocal_root(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (!opcode.take("approx")) opcode.unknown();
    one(i, opcode, o, names, reciprocal_roots);
    i.kind = Class::special;
}
void decode_quotient(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (opcode.is_float() && !opcode.take("rn")) opcode.unknown();
    two(i, opcode, o, names, quotients);
    i.kind = Class::special;
}
void decode_remainder(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    two(i, opcode, o, names, remainders);
    i.kind = Class::special;
}
// Decodes a product, or a product and sum, of 16 or 32 bits whose result has twice as many bits.
void wide(Instruction& i, Opcode& opcode, const Operands& o, Names& names, bool has_sum) {
    const bool into_64 = opcode.type == "u32" || opcode.type == "s32";
    i.kind = Class::integer;
    i.d[0] = names.operand(only_word(o, 0), into_64);
    i.a[0] = names.operand(only_word(o, 1), false);
    i.b[0] = names.operand(only_word(o, 2), false);
    if (has_sum) i.c[0] = names.operand(only_word(o, 3), into_64);
    i.run = by_type(has_sum ? wide_products_and_sums : wide_products, opcode);
}
void decode_product(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (opcode.is_float()) {
        opcode.take("rn");
        two(i, opcode, o, names, products);
        return;
    }
    const std::string part = opcode.take_one_of({"lo", "hi", "wide"});
    if (part == "wide") {
        wide(i, opcode, o, names, false);
    } else {
        two(i, opcode, o, names, part == "lo" ? products : high_products);
    }
}
void decode_product_and_sum(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (opcode.take_one_of({"lo", "wide"}) == "wide") {
        wide(i, opcode, o, names, true);
    } else {
        three(i, opcode, o, names, low_products_and_sums);
    }
}
void decode_fused(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (!opcode.take("rn")) opcode.unknown();
    three(i, opcode, o, names, fused_sums);
}

// Inserts the lowest e bits of a into b, from bit c on.
template <class T>
void run_insert(Warp& w, const Instruction& i, uint32_t lanes) {
    char* const d = w.operand(i.d[0]);
    const char *const a = w.operand(i.a[0]), *const b = w.operand(i.b[0]), *const c = w.operand(i.c[0]),
                      *const e = w.operand(i.c[1]);
    for_lanes(lanes, [&](int l) {
        const uint32_t from = get<uint32_t>(c, l) & 255, n = get<uint32_t>(e, l) & 255;
        const T ones = ShiftLeft::of(T(~T(0)), n), mask = ShiftLeft::of(T(~ones), from);
        put<T>(d, l, T((get<T>(b, l) & T(~mask)) | (ShiftLeft::of(get<T>(a, l), from) & mask)));
    });
}
void decode_insert(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    two(i, opcode, o, names, {{"b32", &run_insert<uint32_t>}, {"b64", &run_insert<uint64_t>}});
    i.c[0] = names.operand(only_word(o, 3), false);
    i.c[1] = names.operand(only_word(o, 4), false);
}

}  // namespace

Run fused(char how, bool is_double) {
    switch (how) {
        case '+': return is_double ? &run_three<double, Fma> : &run_three<float, Fma>;
        case 'p': return is_double ? &run_three<double, ProductMinus> : &run_three<float, ProductMinus>;
        default: return is_double ? &run_three<double, MinusProduct> : &run_three<float, MinusProduct>;
    }
}
void do_nothing(Warp&, const Instruction&, uint32_t) {}

void add_arithmetic(std::map<std::string, Decode>& decoders) {
    decoders["add"] = &decode_sum<sums>;
    decoders["sub"] = &decode_sum<differences>;
    decoders["mul"] = &decode_product;
    decoders["mad"] = &decode_product_and_sum;
    decoders["fma"] = &decode_fused;
    decoders["div"] = &decode_quotient;
    decoders["rem"] = &decode_remainder;
    decoders["min"] = &decode_two<minima>;
    decoders["max"] = &decode_two<maxima>;
    decoders["shl"] = &decode_shift<left_shifts>;
    decoders["shr"] = &decode_shift<right_shifts>;
    decoders["neg"] = &decode_one<negatives>;
    decoders["abs"] = &decode_one<sizes>;
    decoders["rcp"] = &decode_rounded_one<reciprocals>;
    decoders["sqrt"] = &decode_rounded_one<roots>;
    decoders["rsqrt"] = &decode_reciprocal_root;
    decoders["bfi"] = &decode_insert;
    // Predicates have instructions with the same opcodes (comparisons.cpp).
    decoders["and"] = &decode_two<ands>;
    decoders["or"] = &decode_two<ors>;
    decoders["xor"] = &decode_two<xors>;
    decoders["not"] = &decode_one<complements>;
}

}  // namespace ptx
