// The instructions shfl.sync, mma.sync and bar.warp.sync, in which all lanes of the mask take part together.
#include "decode.hpp"
#include "operations.hpp"

namespace ptx {
namespace {

enum Shuffle : uint8_t { butterfly, down, up, index };
const std::map<std::string, Shuffle> shuffles = {{"bfly", butterfly}, {"down", down}, {"up", up}, {"idx", index}};

// Runs a shuffle by the manual's rule: c has the clamp in its lowest five bits and, from bit 8 on, the mask of the
// warp's parts.
void run_shuffle(Warp& w, const Instruction& i, uint32_t lanes) {
    const char *const a = w.operand(i.a[0]), *const b = w.operand(i.b[0]), *const c = w.operand(i.c[0]);
    uint32_t values[lanes_of_warp];
    for (int l = 0; l < lanes_of_warp; ++l) values[l] = get<uint32_t>(a, l);
    uint32_t inside = 0;
    for_lanes(lanes, [&](int l) {
        const int by = int(get<uint32_t>(b, l) & 31), clamp = int(get<uint32_t>(c, l) & 31),
                  part = int(get<uint32_t>(c, l) >> 8 & 31);
        const int least = l & part, most = least | (clamp & ~part);
        int from = l;
        bool is_inside = true;
        switch (Shuffle(i.how)) {
            case up: from = l - by, is_inside = from >= most; break;
            case down: from = l + by, is_inside = from <= most; break;
            case butterfly: from = l ^ by, is_inside = from <= most; break;
            case index: from = least | (by & ~part), is_inside = from <= most; break;
        }
        if (!is_inside) from = l;
        if (!(lanes >> from & 1)) found(w, i, l, "a shuffle reads a lane that takes no part");
        put<uint32_t>(w.operand(i.d[0]), l, values[from]);
        inside |= uint32_t(is_inside) << l;
    });
    if (i.d[1] >= 0) put_predicate(w, i.d[1], lanes, inside);
}

int member_mask(const Operands& o, size_t n, Names& names) {
    return names.operand(only_word(o, n), false);
}
void decode_shuffle(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (!opcode.take("sync") || opcode.type != "b32") opcode.unknown();
    i.flow = Flow::warp;
    i.kind = Class::shuffle;
    i.how = shuffles.at(opcode.take_one_of({"bfly", "down", "up", "idx"}));
    i.d[0] = names.operand(o.at(0).at(0), false);
    i.d[1] = o[0].size() == 3 && o[0][1] == "|" ? names.predicate(o[0][2]) : -1;
    i.a[0] = names.operand(only_word(o, 1), false);
    i.b[0] = names.operand(only_word(o, 2), false);
    i.c[0] = names.operand(only_word(o, 3), false);
    i.mask = member_mask(o, 4, names);
    i.run = &run_shuffle;
}

// ---- products of 16 x 8 and 8 x 8 matrices --------------------------------------------------------------------------

constexpr int product_rows = 16, product_columns = 8, product_terms = 8;

float toward_zero(double x) {
    const auto nearest = float(x);
    const bool is_beyond = std::isfinite(nearest) && std::fabs(double(nearest)) > std::fabs(x);
    return is_beyond ? std::nextafter(nearest, 0.0f) : nearest;
}
// A factor in TF32, whose lowest 13 bits are not read.
float tf32(const char* p, int lane) {
    return std::bit_cast<float>(get<uint32_t>(p, lane) & ~0x1fffu);
}

// Runs mma.m16n8k8 with .tf32, whose fragments have the manual's layout. With g = l / 4 and t = l % 4, lane l has the
// elements (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4) of a; (t, g), (t + 4, g) of b; (g, 2t), (g, 2t + 1),
// (g + 8, 2t), (g + 8, 2t + 1) of c and d. The manual does not specify the order and rounding of sums. The interpreter
// computes products and sums in float64, and rounds the result toward zero, as in published tests of an A100.
// cuda/include/tensor_cores.cuh has a different rule that the manual also allows, so that tested results depend on
// neither rule.
void run_product(Warp& w, const Instruction& i, uint32_t lanes) {
    if (lanes != all_lanes) {
        found(w, i, std::countr_zero(lanes), "a lane is missing at mma");
        return;
    }
    float a[product_rows][product_terms], b[product_terms][product_columns], c[product_rows][product_columns];
    for (int l = 0; l < lanes_of_warp; ++l) {
        const int g = l / 4, t = l % 4;
        for (int k = 0; k < 4; ++k) a[g + 8 * (k % 2)][t + 4 * (k / 2)] = tf32(w.operand(i.a[k]), l);
        for (int k = 0; k < 2; ++k) b[t + 4 * k][g] = tf32(w.operand(i.b[k]), l);
        for (int k = 0; k < 4; ++k) c[g + 8 * (k / 2)][2 * t + k % 2] = get<float>(w.operand(i.c[k]), l);
    }
    float d[product_rows][product_columns];
    for (int r = 0; r < product_rows; ++r)
        for (int s = 0; s < product_columns; ++s) {
            double sum = c[r][s];
            for (int k = 0; k < product_terms; ++k) sum += double(a[r][k]) * double(b[k][s]);
            d[r][s] = toward_zero(sum);
        }
    for (int l = 0; l < lanes_of_warp; ++l)
        for (int k = 0; k < 4; ++k) put<float>(w.operand(i.d[k]), l, d[l / 4 + 8 * (k / 2)][2 * (l % 4) + k % 2]);
}
void fragment(int* registers, size_t n, const std::vector<std::string>& words, const Opcode& opcode, Names& names) {
    if (words.size() != 2 * n + 1 || words[0] != "{") opcode.unknown();
    for (size_t k = 0; k < n; ++k) registers[k] = names.operand(words[2 * k + 1], false);
}
void decode_product(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    if (opcode.text != "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32" || o.size() != 4) opcode.unknown();
    opcode.modifiers.clear();
    i.flow = Flow::warp;
    i.kind = Class::tensor;
    fragment(i.d, 4, o[0], opcode, names);
    fragment(i.a, 4, o[1], opcode, names);
    fragment(i.b, 2, o[2], opcode, names);
    fragment(i.c, 4, o[3], opcode, names);
    i.mask = names.operand("-1", false);
    i.run = &run_product;
}

// Decodes bar.sync 0, for all threads of the block or for a number of threads, and bar.warp.sync.
void decode_barrier(Instruction& i, Opcode& opcode, const Operands& o, Names& names) {
    i.kind = Class::barrier;
    if (opcode.type != "sync") opcode.unknown();
    if (opcode.take("warp")) {
        i.flow = Flow::warp_barrier;
        i.mask = member_mask(o, 0, names);
        return;
    }
    if (only_word(o, 0) != "0" || o.size() > 2) opcode.unknown();
    i.flow = Flow::barrier;
    i.a[0] = names.operand(o.size() == 2 ? only_word(o, 1) : "0", false);
}

}  // namespace

void add_warp_operations(std::map<std::string, Decode>& decoders) {
    decoders["shfl"] = &decode_shuffle;
    decoders["mma"] = &decode_product;
    decoders["bar"] = &decode_barrier;
}

}  // namespace ptx
