#include "memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "error.hpp"

namespace ptx {
namespace {

char* map(int protection) {
    void* p = mmap(nullptr, Memory::window_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return static_cast<char*>(p);
}

constexpr uint16_t warp_of(uint16_t thread) {
    return uint16_t(thread / 32);
}

}  // namespace

const char* Word::touch(const Access& now) {
    if (stamp != now.stamp) {
        *this = Word{};
        stamp = now.stamp;
    }
    const uint16_t warp = warp_of(now.thread);
    const char* race = nullptr;
    if (writer != nobody && (written & now.bytes)) {
        const bool is_own = w_block == now.block && writer == now.thread;
        const bool is_before =
            w_block == now.block && (w_phase < now.phase || (warp_of(writer) == warp && w_step < now.step));
        if (!is_own && !is_before) {
            if (!now.writes)
                race = w_block == now.block ? "race: read of another thread's write"
                                            : "race between blocks: read of a write";
            if (now.writes && now.changes)
                race = w_block == now.block ? "race: two threads write" : "race between blocks: two write";
        }
    }
    if (now.writes) {
        if (reader != nobody && now.changes && (read & now.bytes)) {
            const bool is_other_block = r_block != now.block;
            const bool is_before =
                !is_other_block &&
                (r_phase < now.phase || (reader_warp == warp && (r_step < now.step || reader == now.thread)));
            if (!is_before && !race)
                race = is_other_block ? "race between blocks: write of what another read"
                                      : "race: write of what another thread read";
        }
        written = writer == now.thread && w_block == now.block ? uint8_t(written | now.bytes) : now.bytes;
        writer = now.thread, w_block = now.block, w_phase = now.phase, w_step = now.step;
        reader = reader_warp = nobody, read = 0;
        return race;
    }
    if (reader == nobody) {
        reader = now.thread, reader_warp = warp, r_block = now.block, read = now.bytes;
    } else if (r_block != now.block) {
        r_block = several_blocks;
    } else if (r_phase < now.phase) {
        reader = now.thread, reader_warp = warp, read = now.bytes;
    } else if (reader_warp != warp) {
        reader = reader_warp = several;
    } else if (r_step < now.step) {
        reader = now.thread;
    } else if (reader != now.thread) {
        reader = several;
    }
    read |= now.bytes;
    r_phase = now.phase, r_step = now.step;
    return race;
}

Memory::Memory() : shared_(map(PROT_READ | PROT_WRITE)), local_(map(PROT_NONE)) {}
Memory::~Memory() {
    munmap(shared_, window_bytes);
    munmap(local_, window_bytes);
}

void Memory::taken(const void* p, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    pieces_[uint64_t(p)] = {bytes, std::vector<bool>((bytes + word_bytes - 1) / word_bytes)};
    piece_ = nullptr;
}
void Memory::freed(const void* p) {
    const std::lock_guard<std::mutex> lock(mutex);
    pieces_.erase(uint64_t(p));
    piece_ = nullptr;
}
void Memory::written(const void* p, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (bytes > 0 && find(uint64_t(p))) mark(uint64_t(p), std::min(bytes, end_ - uint64_t(p)), true);
}
void Memory::seen(const void* p, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    const Array one{uint64_t(p), uint64_t(p) + bytes};
    std::erase_if(arrays_, [&](const Array& a) { return a.begin == one.begin && a.end == one.end; });
    if (arrays_.size() == most_arrays) arrays_.erase(arrays_.begin());
    arrays_.push_back(one);
}
void Memory::forget_arrays() {
    const std::lock_guard<std::mutex> lock(mutex);
    arrays_.clear();
}

bool Memory::find(uint64_t address) {
    if (piece_ && address >= begin_ && address < end_) return true;
    auto after = pieces_.upper_bound(address);
    if (after == pieces_.begin()) return false;
    --after;
    if (address >= after->first + after->second.bytes) return false;
    piece_ = &after->second, begin_ = after->first, end_ = begin_ + piece_->bytes;
    return true;
}

Reached Memory::reached(uint64_t address, uint64_t bytes) {
    if (find(address)) return address + bytes <= end_ ? Reached::own : Reached::across;
    bool crosses = false;
    for (size_t k = arrays_.size(); k-- > 0;) {
        const Array& a = arrays_[k];
        if (address < a.begin || address >= a.end) continue;
        if (address + bytes <= a.end) return Reached::array;
        crosses = true;
    }
    return crosses ? Reached::across : Reached::nothing;
}

bool Memory::mark(uint64_t address, uint64_t bytes, bool writes) {
    bool all = true;
    const uint64_t first = (address - begin_) / word_bytes, end = (address - begin_ + bytes - 1) / word_bytes + 1;
    for (uint64_t k = first; k < end; ++k) {
        if (writes) piece_->written[k] = true;
        all = all && piece_->written[k];
    }
    return all;
}

Word& Memory::word(uint64_t address) {
    const uint64_t number = address / page_bytes;
    if (number != page_number_) {
        std::vector<Word>& words = pages_[number];
        if (words.empty()) {
            if (pages_.size() > most_pages) throw Error("a launch reaches more device memory than is watched");
            words.resize(page_bytes / word_bytes);
        }
        page_number_ = number, page_ = words.data();
    }
    return page_[address % page_bytes / word_bytes];
}

void Memory::begin_launch() {
    if (pages_.size() <= kept_pages) return;
    pages_.clear();
    page_number_ = ~uint64_t(0);
}

}  // namespace ptx
