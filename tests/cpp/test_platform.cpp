// Tests of the instruction sets that follow from results of cpuid.
#include "../../cpp/core/platform.hpp"

#include "../../cpp/core/isa.hpp"

#include <cstdint>
#include <initializer_list>
#include <new>

#include "check.hpp"

using namespace headrace;
using namespace headrace::tests;

namespace {

using Leaf = X86Registers::Leaf;

uint32_t bits(std::initializer_list<int> which) {
    uint32_t word = 0;
    for (const int bit : which) word |= 1u << bit;
    return word;
}

// The registers of a processor of 2023 that has all instruction sets, under a system that saves all registers.
X86Registers everything() {
    X86Registers r;
    r.one.c = bits({0, 9, 12, 13, 19, 20, 22, 23, 27, 28, 29});
    r.seven = {1, bits({3, 5, 8, 16, 17, 28, 30, 31}), 0, bits({22, 24})};
    r.seven_one.a = bits({5});
    r.extended_one.c = bits({0, 5});
    r.enabled_state = bits({0, 1, 2, 5, 6, 7, 17, 18});
    return r;
}

// The index of the best set, plus 10 and 100 for the two sets of bf16.
int sets_of(const X86Registers& r) {
    const X86Sets sets = x86_sets(r);
    CHECK(sets.v2 >= sets.v3 && sets.v3 >= sets.v4 && sets.v4 >= sets.avx512_bf16, "each set contains the one below");
    return (sets.v4 ? 4 : sets.v3 ? 3 : sets.v2 ? 2 : 1) + 10 * sets.avx512_bf16 + 100 * sets.amx_bf16;
}

// Tests that every bit of cpuid is needed: if a bit is missing, only lower instruction sets are left.
void test_each_bit_is_needed() {
    CHECK(sets_of(everything()) == 114, "everything gives %d", sets_of(everything()));
    CHECK(sets_of({}) == 1, "nothing gives %d", sets_of({}));
    struct Case {
        uint32_t Leaf::* word;
        Leaf X86Registers::* leaf;
        std::initializer_list<int> which;
        int left;
    };
    const Case cases[] = {
        {&Leaf::c, &X86Registers::one, {0, 9, 13, 19, 20, 23}, 101},
        {&Leaf::c, &X86Registers::extended_one, {0}, 101},
        {&Leaf::c, &X86Registers::one, {12, 22, 27, 28, 29}, 102},
        {&Leaf::c, &X86Registers::extended_one, {5}, 102},
        {&Leaf::b, &X86Registers::seven, {3, 5, 8}, 102},
        {&Leaf::b, &X86Registers::seven, {16, 17, 28, 30, 31}, 103},
        {&Leaf::a, &X86Registers::seven_one, {5}, 104},
        {&Leaf::d, &X86Registers::seven, {22, 24}, 14},
    };
    for (const Case& c : cases)
        for (const int bit : c.which) {
            X86Registers r = everything();
            (r.*c.leaf).*c.word &= ~(1u << bit);
            CHECK(sets_of(r) == c.left, "without bit %d: %d, not %d", bit, sets_of(r), c.left);
        }
    // Pairs of a bit of the enabled state and the sets that are left without the bit, on a processor with all
    // instructions, under a system that does not save some registers.
    const int left_without_state[][2] = {{1, 102}, {2, 102}, {5, 103}, {6, 103}, {7, 103}, {17, 14}, {18, 14}};
    for (const auto& [bit, left] : left_without_state) {
        X86Registers r = everything();
        r.enabled_state &= ~(uint64_t(1) << bit);
        CHECK(sets_of(r) == left, "registers of bit %d not saved: %d, not %d", bit, sets_of(r), left);
    }
}

void test_the_vendor() {
    X86Registers r = everything();
    r.zero = {16, 0x756e6547, 0x6c65746e, 0x49656e69};
    CHECK(x86_sets(r).intel, "%s", "GenuineIntel");
    r.zero = {16, 0x68747541, 0x444d4163, 0x69746e65};
    CHECK(!x86_sets(r).intel, "%s", "AuthenticAMD");
}

// Compares the sets with those of GCC's library, which reads the same registers by other code.
void test_this_processor() {
    [[maybe_unused]] const X86Sets& sets = x86_sets();
#if defined(__x86_64__) && defined(__GLIBCXX__)
    __builtin_cpu_init();
    CHECK(sets.v2 == bool(__builtin_cpu_supports("x86-64-v2")), "v2: %d", sets.v2);
    CHECK(sets.v3 == bool(__builtin_cpu_supports("x86-64-v3")), "v3: %d", sets.v3);
    CHECK(sets.v4 == bool(__builtin_cpu_supports("x86-64-v4")), "v4: %d", sets.v4);
    CHECK(sets.avx512_bf16 == bool(__builtin_cpu_supports("avx512bf16")), "bf16: %d", sets.avx512_bf16);
#elif !defined(__x86_64__)
    CHECK(!sets.v2 && !sets.amx_bf16, "another processor has no set of x86-64");
#endif
}

int requests = 0;

bool refused() {
    ++requests;
    return false;
}

bool allowed() {
    ++requests;
    return true;
}

// Tests the choice of vectors where tiles are refused. Results have the same bits in all sets, which
// tests/networks/test_bf16_tiles.py compares.
void test_vectors_take_the_place_of_refused_tiles() {
    InstructionSet tiles = active_isa();
    tiles.tiles = true;
    CHECK(!is_granted(tiles, refused), "tiles were %s", "refused");
    CHECK(is_granted(tiles, allowed), "tiles were %s", "granted");
    CHECK(requests == 2, "%d requests, not 2", requests);
    InstructionSet others = tiles;
    others.tiles = false;
    CHECK(is_granted(others, refused), "no tiles are needed, %d requests", requests);
    CHECK(requests == 2, "a set without tiles requests no registers, %d requests", requests);
}

// Tests the set of products in steps, which is chosen once; a processor without tiles has the set of a system that
// refuses tiles.
void test_products_in_steps_without_tiles_are_by_vectors() {
    if (x86_sets().amx_bf16) return;
    CHECK(!request_tiles(), "%s", "registers that do not exist");
    CHECK(!isa_of_steps().tiles, "%s", isa_of_steps().name);
    CHECK(name_of_isa_of_steps() == isa_of_steps().name, "%s", name_of_isa_of_steps());
}

void test_memory_is_aligned_and_its_size_checked() {
    for (const size_t count : {size_t(0), size_t(1), size_t(63), size_t(1000)}) {
        auto* const memory = static_cast<char*>(allocate_aligned(count, 8));
        CHECK(reinterpret_cast<uintptr_t>(memory) % cache_line == 0, "%p for %zu numbers", static_cast<void*>(memory),
              count);
        for (size_t i = 0; i < 8 * count; ++i) memory[i] = char(i);
        free_aligned(memory);
    }
    for (const size_t count : {SIZE_MAX / 8, SIZE_MAX}) {
        bool refused = false;
        try {
            free_aligned(allocate_aligned(count, 8));
        } catch (const std::bad_alloc&) {
            refused = true;
        }
        CHECK(refused, "%zu numbers wrap around", count);
    }
}

}  // namespace

int main() {
    test_each_bit_is_needed();
    test_the_vendor();
    test_this_processor();
    test_vectors_take_the_place_of_refused_tiles();
    test_products_in_steps_without_tiles_are_by_vectors();
    test_memory_is_aligned_and_its_size_checked();
    return finish();
}
