// The instructions of AMX for tiles of bf16 in software, under the names of their intrinsics, for tests on processors
// without AMX. TDPBF16PS follows Intel's manual: for each sum it adds the even products from zero and the odd products
// from zero, each by a multiply-add, and adds the total of both to the sum; denormal operands and results are zero. A
// call that a processor would refuse ends the process.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// The intrinsics are macros if a compiler's header has been read.
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps

namespace headrace {
namespace {

struct EmulatedTile {
    int lines = 0, bytes = 0;  // both are 0 for a tile that does not exist
    uint32_t words[16][16] = {};
};

thread_local EmulatedTile emulated_tiles[8];

inline void refuse_tile(const char* what) {
    std::fprintf(stderr, "AMX emulation: %s\n", what);
    std::abort();
}

inline EmulatedTile& emulated_tile(int i) {
    if (i < 0 || i >= 8 || emulated_tiles[i].lines == 0) refuse_tile("a tile that is not configured");
    return emulated_tiles[i];
}

inline void _tile_loadconfig(const void* config) {
    const auto* const bytes = static_cast<const uint8_t*>(config);
    if (bytes[0] != 1 || bytes[1] != 0) refuse_tile("a palette other than 1, or a line to go on from");
    for (int i = 2; i < 16; ++i)
        if (bytes[i] != 0) refuse_tile("reserved bytes that are not 0");
    for (int i = 0; i < 16; ++i) {
        uint16_t columns;
        std::memcpy(&columns, bytes + 16 + 2 * i, sizeof columns);
        const int lines = bytes[48 + i];
        if (lines > 16 || columns > 64 || (lines == 0) != (columns == 0) || (i >= 8 && lines > 0))
            refuse_tile("a shape that there is not");
        if (i >= 8) continue;
        emulated_tiles[i] = {};
        emulated_tiles[i].lines = lines;
        emulated_tiles[i].bytes = columns;
    }
}

inline void _tile_release() {
    for (EmulatedTile& tile : emulated_tiles) tile = {};
}

inline void _tile_zero(int i) {
    std::memset(emulated_tile(i).words, 0, sizeof(EmulatedTile::words));
}

inline void _tile_loadd(int i, const void* base, int64_t stride) {
    EmulatedTile& tile = emulated_tile(i);
    std::memset(tile.words, 0, sizeof tile.words);
    for (int m = 0; m < tile.lines; ++m)
        std::memcpy(tile.words[m], static_cast<const char*>(base) + m * stride, size_t(tile.bytes));
}

inline void _tile_stored(int i, void* base, int64_t stride) {
    const EmulatedTile& tile = emulated_tile(i);
    for (int m = 0; m < tile.lines; ++m)
        std::memcpy(static_cast<char*>(base) + m * stride, tile.words[m], size_t(tile.bytes));
}

// The bits of a value, where a denormal number becomes zero of its sign.
inline uint32_t flushed(uint32_t bits) {
    return (bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits;
}

inline float number_of(uint32_t bits) {
    bits = flushed(bits);
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline float flushed(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return number_of(bits);
}

inline void _tile_dpbf16ps(int c, int a, int b) {
    EmulatedTile& sums = emulated_tile(c);
    const EmulatedTile &left = emulated_tile(a), &right = emulated_tile(b);
    if (sums.lines != left.lines || sums.bytes != right.bytes || left.bytes != 4 * right.lines || c == a || c == b ||
        a == b)
        refuse_tile("tiles that do not fit each other");
    const int columns = sums.bytes / 4;
    for (int m = 0; m < sums.lines; ++m) {
        float even[16] = {}, odd[16] = {};
        for (int k = 0; k < left.bytes / 4; ++k) {
            const float x0 = number_of(left.words[m][k] << 16), x1 = number_of(left.words[m][k] & 0xffff0000u);
            for (int n = 0; n < columns; ++n) {
                const uint32_t w = right.words[k][n];
                even[n] = flushed(__builtin_fmaf(x0, number_of(w << 16), even[n]));
                odd[n] = flushed(__builtin_fmaf(x1, number_of(w & 0xffff0000u), odd[n]));
            }
        }
        for (int n = 0; n < columns; ++n) {
            const float sum = flushed(number_of(sums.words[m][n]) + flushed(even[n] + odd[n]));
            std::memcpy(&sums.words[m][n], &sum, sizeof sum);
        }
    }
}

}  // namespace
}  // namespace headrace
