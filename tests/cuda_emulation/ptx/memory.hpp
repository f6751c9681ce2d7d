// Watched memory: the owner of each byte, the words that were written, and the last writers and readers of a word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace ptx {

constexpr uint64_t word_bytes = 4;

// The thread and the time of an access to a word. Barriers of a block order the accesses of its threads, and barriers
// of a warp order those of the warp's threads.
struct Access {
    uint32_t stamp;  // index of the launch or, in shared memory, of the block
    uint32_t block, phase, step;
    uint16_t thread;
    uint8_t bytes;  // a bit for each accessed byte of the word
    bool writes, changes;
};

// The last writer of a word, and the readers after that write. Only readers of the last phase are kept, because a
// thread that is ordered after readers of the last phase is ordered after all earlier readers.
struct Word {
    static constexpr uint16_t nobody = 0xffff, several = 0xfffe;
    static constexpr uint32_t several_blocks = ~0u;

    uint32_t stamp = 0;
    uint32_t w_block = 0, w_phase = 0, w_step = 0, r_block = 0, r_phase = 0, r_step = 0;
    uint16_t writer = nobody, reader = nobody, reader_warp = nobody;
    uint8_t written = 0, read = 0;  // a bit for each byte
    bool has = false;               // in shared memory: whether the word was written

    // A description of the race of this access with an earlier one, or null. A write that changes nothing races with no
    // other access.
    const char* touch(const Access& now);
};

// The kind of device memory that a lane's access reaches.
enum class Reached { own, array, across, nothing };

class Memory {
  public:
    Memory();
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    std::mutex mutex;  // held by a launch while it runs

    // Notes device memory that the project allocates, of which nothing is written yet.
    void taken(const void* p, size_t bytes);
    void freed(const void* p);
    void written(const void* p, size_t bytes);
    // Notes an array of the caller, which counts as written; only the last most_arrays arrays are remembered.
    void seen(const void* p, size_t bytes);
    void forget_arrays();

    Reached reached(uint64_t address, uint64_t bytes);
    // Whether words of the project's memory, which reached() has found, have been written; with `writes`, marks the
    // words as written.
    bool mark(uint64_t address, uint64_t bytes, bool writes);
    Word& word(uint64_t address);
    // Begins a launch, after which words of earlier launches may be discarded.
    void begin_launch();

    // The window of a block's shared memory, whose first bytes belong to the system; later bytes are aligned to exactly
    // 16 bytes.
    static constexpr uint64_t window_bytes = 1 << 20, shared_begin = 1024 + 16;
    char* shared() { return shared_; }
    uint64_t local() const { return uint64_t(local_); }  // only an address, because each lane has separate local memory
    // Whether a generic address is in shared memory, and whether it is in local memory.
    bool is_shared(uint64_t address) const { return address - uint64_t(shared_) < window_bytes; }
    bool is_local(uint64_t address) const { return address - local() < window_bytes; }
    std::vector<Word> shared_words = std::vector<Word>(window_bytes / word_bytes);

  private:
    struct Piece {
        uint64_t bytes;
        std::vector<bool> written;  // a bit for each word
    };
    struct Array {
        uint64_t begin, end;
    };
    static constexpr uint64_t page_bytes = 4096;
    static constexpr size_t most_arrays = 32, most_pages = 16384, kept_pages = 4096;  // 640 MB, 160 MB of words

    bool find(uint64_t address);

    std::map<uint64_t, Piece> pieces_;
    Piece* piece_ = nullptr;  // the piece that was found last
    uint64_t begin_ = 0, end_ = 0;
    std::vector<Array> arrays_;
    std::unordered_map<uint64_t, std::vector<Word>> pages_;
    uint64_t page_number_ = ~uint64_t(0);
    Word* page_ = nullptr;
    char* shared_ = nullptr;
    char* local_ = nullptr;
};

}  // namespace ptx
