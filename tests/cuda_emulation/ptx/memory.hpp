// Watched memory: the owner of each byte, which words were written, and the last writers and readers of a word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace ptx {

constexpr uint64_t word_bytes = 4;

// Thread and time of an access to a word. Threads of a block are ordered by its barriers, those of a warp by either
// kind.
struct Access {
    uint32_t stamp;  // of the launch; in shared memory, of the block
    uint32_t block, phase, step;
    uint16_t thread;
    uint8_t bytes;  // of the word, a bit each
    bool writes, changes;
};

// The last writer of a word and those who read it since. Of several readers those of the last phase count: a thread
// ordered after these is ordered after the earlier ones.
struct Word {
    static constexpr uint16_t nobody = 0xffff, several = 0xfffe;
    static constexpr uint32_t several_blocks = ~0u;

    uint32_t stamp = 0;
    uint32_t w_block = 0, w_phase = 0, w_step = 0, r_block = 0, r_phase = 0, r_step = 0;
    uint16_t writer = nobody, reader = nobody, reader_warp = nobody;
    uint8_t written = 0, read = 0;  // bytes
    bool has = false;               // of shared memory: it was written

    // Null, or how this access races with an earlier one. A write that changes nothing races with none.
    const char* touch(const Access& now);
};

// The device memory that a lane's access reaches.
enum class Reached { own, array, across, nothing };

class Memory {
  public:
    Memory();
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    std::mutex mutex;  // held by a launch for as long as it runs

    // Device memory of the project: nothing is written yet.
    void taken(const void* p, size_t bytes);
    void freed(const void* p);
    void written(const void* p, size_t bytes);
    // An array of the caller's, written; the last ones are remembered.
    void seen(const void* p, size_t bytes);
    void forget_arrays();

    Reached reached(uint64_t address, uint64_t bytes);
    // Of the project's memory, which `reached` has found: whether its words were written; writes make them so.
    bool mark(uint64_t address, uint64_t bytes, bool writes);
    Word& word(uint64_t address);
    // Words of earlier launches may go.
    void begin_launch();

    // Of a block's shared memory, whose first bytes belong to the system; the rest is aligned to 16 bytes and no more.
    static constexpr uint64_t window_bytes = 1 << 20, shared_begin = 1024 + 16;
    char* shared() { return shared_; }
    uint64_t local() const { return uint64_t(local_); }  // only addresses: lanes have memory of their own
    // Of a generic address.
    bool is_shared(uint64_t address) const { return address - uint64_t(shared_) < window_bytes; }
    bool is_local(uint64_t address) const { return address - local() < window_bytes; }
    std::vector<Word> shared_words = std::vector<Word>(window_bytes / word_bytes);

  private:
    struct Piece {
        uint64_t bytes;
        std::vector<bool> written;  // by word
    };
    struct Array {
        uint64_t begin, end;
    };
    static constexpr uint64_t page_bytes = 4096;
    static constexpr size_t most_arrays = 32, most_pages = 16384, kept_pages = 4096;  // 640 MB of words, 160 MB

    bool find(uint64_t address);

    std::map<uint64_t, Piece> pieces_;
    Piece* piece_ = nullptr;  // the last one found
    uint64_t begin_ = 0, end_ = 0;
    std::vector<Array> arrays_;
    std::unordered_map<uint64_t, std::vector<Word>> pages_;
    uint64_t page_number_ = ~uint64_t(0);
    Word* page_ = nullptr;
    char* shared_ = nullptr;
    char* local_ = nullptr;
};

}  // namespace ptx
