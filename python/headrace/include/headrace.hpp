// headrace.hpp: densities and samples from the files of headrace, in C++17 and without any other library.
//
//     const auto flow = headrace::Flow<double>::load("density.safetensors");
//     const std::vector<double> log_prob = flow.log_prob(rows);  // one after another
//
// The class Flow, at the end, is all that users need; docs/runtime.md explains it. It is one long file on purpose, to
// be copied into any project. DO NOT EDIT IT: runtime/join.py makes it of runtime/parts, where each idea has a file.
//
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// ---- random.hpp ----

// Random numbers: Philox-4x32-10 (Salmon, Moraes, Dror, Shaw 2011), keyed by a seed, counted by (row, block of four
// columns). A number is a function of (seed, row, column), the same as headrace's own. float64 uses the leading 32 bits
// of float32 and 32 more of a second stream: both see the same sample, the one with more digits.

namespace headrace {
namespace detail {

using Words = std::array<std::uint32_t, 4>;

inline Words philox(std::uint64_t seed, std::uint64_t row, std::uint32_t block, std::uint32_t stream) {
    Words c{static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32), block, stream};
    std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t(c[0]) * 0xD2511F53u, b = std::uint64_t(c[2]) * 0xCD9E8D57u;
        c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(b),
             static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(a)};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// In (0, 1], never 0: of 32 bits for float, 64 for double.
template <class T>
T uniform(std::uint32_t high, std::uint32_t low) {
    if (sizeof(T) == 4) return static_cast<T>(high >> 1) * T(4.656612873077393e-10) + T(1.1641532182693481e-10);
    return static_cast<T>(high) * T(2.3283064365386963e-10) +
           (static_cast<T>(low) * T(5.421010862427522e-20) + T(2.710505431213761e-20));
}

// Cosine and sine of so many turns, reduced to an eighth before anything is rounded.
template <class T>
void cos_sin_of_turns(T turns, T& cosine, T& sine) {
    const T quarters = std::nearbyint(turns * T(4));
    const T angle = (turns - quarters * T(0.25)) * T(6.283185307179586477), c = std::cos(angle), s = std::sin(angle);
    switch (static_cast<int>(quarters) & 3) {
        case 0: cosine = c, sine = s; break;
        case 1: cosine = -s, sine = c; break;
        case 2: cosine = -c, sine = -s; break;
        default: cosine = s, sine = -c;
    }
}

// The words of a block, and those of the stream for the bits that float64 adds.
template <class T>
struct Drawn {
    Words high, low;

    Drawn(std::uint64_t seed, std::uint64_t row, std::uint32_t block, std::uint32_t stream, std::uint32_t more)
        : high(philox(seed, row, block, stream)), low(sizeof(T) == 4 ? high : philox(seed, row, block, more)) {}

    T number(std::size_t i) const { return uniform<T>(high[i], low[i]); }
    // log(u / (1 - u)): the leading bit is the sign, the rest give min(u, 1 - u).
    T logistic(std::size_t i) const {
        const T tail = uniform<T>(high[i] << 1 | low[i] >> 31, low[i] << 1) * T(0.5);
        return (std::log1p(-tail) - std::log(tail)) * (high[i] >> 31 ? T(1) : T(-1));
    }
    // Box-Muller: two words give two numbers.
    T normal(std::size_t i) const {
        const std::size_t first = i & ~std::size_t(1);
        const T radius = std::sqrt(std::log(number(first)) * T(-2));
        T cosine, sine;
        cos_sin_of_turns(number(first + 1), cosine, sine);
        return radius * (i == first ? cosine : sine);
    }
};

// Columns 4 block to 4 block + 3 of a row, for standard normal and standard logistic bases.
template <class T>
Drawn<T> drawn(std::uint64_t seed, std::uint64_t row, std::uint32_t block) {
    return {seed, row, block, 0, 1};
}

// What other densities draw from beside these: streams of their own, so that no word serves two columns.
template <class T>
Drawn<T> drawn_beside(std::uint64_t seed, std::uint64_t row, std::uint32_t block, bool second = false) {
    const std::uint32_t stream = second ? 0xFFFFFFFDu : 0xFFFFFFFFu;
    return {seed, row, block, stream, stream - 1};
}

}  // namespace detail
}  // namespace headrace

// ---- json.hpp ----

// A strict reader of JSON for files that nobody vouches for: no deep nesting, no endless numbers, no NaN, no key twice,
// no comments, no text that is not UTF-8. Lists, objects and texts are limited by the length of what they stand in, so
// that memory is at most some forty times that.

namespace headrace {

// A file that is broken, none of headrace, or from a newer version; the message says why.
class FileFormatError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

namespace detail {

[[noreturn]] inline void refuse(const std::string& message) {
    throw FileFormatError(message);
}

// What a message may quote of a file: short, and without characters that do something to a terminal.
inline std::string shown(const std::string& text) {
    std::string result;
    for (const char c : text.substr(0, 40)) result += c >= ' ' && c <= '~' ? c : '?';
    return "'" + result + (text.size() > 40 ? "...'" : "'");
}

constexpr int most_depth = 64;  // of brackets

struct Content;

struct Value {
    enum class Kind : unsigned char { null, boolean, integer, real, text, list, object };
    Kind kind = Kind::null;
    union {
        bool truth;
        std::int64_t integer = 0;
        double real;
    };
    std::shared_ptr<const Content> content;  // of texts, lists and objects

    bool is(Kind wanted) const { return kind == wanted; }
    bool is_number() const { return is(Kind::integer) || is(Kind::real); }
    double number() const { return is(Kind::integer) ? static_cast<double>(integer) : real; }
    const std::string& text() const;
    const std::vector<Value>& items() const;
    const std::map<std::string, Value>& entries() const;
    const char* name() const {
        static const char* const names[] = {"null", "true or false", "an integer", "a number",
                                            "text", "a list",        "an object"};
        return names[static_cast<int>(kind)];
    }
};

struct Content {
    std::string text;
    std::vector<Value> items;
    std::map<std::string, Value> entries;
};

inline const std::string& Value::text() const {
    return content->text;
}
inline const std::vector<Value>& Value::items() const {
    return content->items;
}
inline const std::map<std::string, Value>& Value::entries() const {
    return content->entries;
}

// Whether text is UTF-8: shortest forms only, no surrogates, nothing above U+10FFFF.
inline bool is_utf8(const std::string& text) {
    const std::size_t n = text.size();
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    for (std::size_t i = 0; i < n;) {
        const unsigned first = byte(i);
        const std::size_t more = first < 0x80 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
        if ((first >= 0x80 && first < 0xC2) || first > 0xF4 || more >= n - i) return false;
        for (std::size_t k = 1; k <= more; ++k)
            if ((byte(i + k) & 0xC0) != 0x80) return false;
        if (first == 0xE0 && byte(i + 1) < 0xA0) return false;
        if (first == 0xED && byte(i + 1) >= 0xA0) return false;
        if (first == 0xF0 && byte(i + 1) < 0x90) return false;
        if (first == 0xF4 && byte(i + 1) >= 0x90) return false;
        i += more + 1;
    }
    return true;
}

class JsonReader {
  public:
    JsonReader(const std::string& text, std::string name, std::size_t most_objects)
        : p_(text.data()),
          end_(text.data() + text.size()),
          name_(std::move(name)),
          most_objects_(most_objects),
          most_others_(64 + text.size() / 8) {
        if (!is_utf8(text)) fail("expected UTF-8");
    }

    Value read() {
        Value value = any(1);
        blank();
        if (p_ != end_) fail("expected an end after the value");
        return value;
    }

  private:
    [[noreturn]] void fail(const std::string& message) const { refuse(name_ + ": " + message); }
    [[noreturn]] void no_json() const { fail("expected JSON"); }

    static void count(std::size_t& counter, std::size_t most, const JsonReader& reader, const char* what) {
        if (++counter > most)
            reader.fail("expected at most " + std::to_string(most) + " " + what + " in a file of this size");
    }

    void blank() {
        while (p_ != end_ && (*p_ == ' ' || *p_ == '\t' || *p_ == '\n' || *p_ == '\r')) ++p_;
    }
    char peek() const { return p_ == end_ ? '\0' : *p_; }
    bool skip(char c) {
        if (peek() != c || p_ == end_) return false;
        ++p_;
        return true;
    }
    void expect(char c) {
        if (!skip(c)) no_json();
    }
    void word(const char* text) {
        for (; *text; ++text) expect(*text);
    }

    Value any(int depth) {
        blank();
        Value value;
        switch (peek()) {
            case '{': return object(depth);
            case '[': return list(depth);
            case '"':
                count(texts_, most_others_, *this, "texts");
                value.kind = Value::Kind::text;
                value.content = std::make_shared<const Content>(Content{text(), {}, {}});
                return value;
            case 't': word("true"); return truth(true);
            case 'f': word("false"); return truth(false);
            case 'n': word("null"); return value;
            default: return number();
        }
    }

    static Value truth(bool is_true) {
        Value value;
        value.kind = Value::Kind::boolean;
        value.truth = is_true;
        return value;
    }

    void enter(int depth) const {
        if (depth > most_depth) fail("expected at most " + std::to_string(most_depth) + " levels of brackets");
    }

    Value object(int depth) {
        enter(depth);
        count(objects_, most_objects_, *this, "objects");
        const auto content = std::make_shared<Content>();
        expect('{');
        blank();
        if (!skip('}')) {
            do {
                blank();
                std::string key = text();
                blank();
                expect(':');
                if (!content->entries.emplace(std::move(key), any(depth + 1)).second) fail("expected each key once");
                blank();
            } while (skip(','));
            expect('}');
        }
        Value value;
        value.kind = Value::Kind::object;
        value.content = content;
        return value;
    }

    Value list(int depth) {
        enter(depth);
        count(lists_, most_others_, *this, "lists");
        const auto content = std::make_shared<Content>();
        expect('[');
        blank();
        if (!skip(']')) {
            do {
                content->items.push_back(any(depth + 1));
                blank();
            } while (skip(','));
            expect(']');
        }
        Value value;
        value.kind = Value::Kind::list;
        value.content = content;
        return value;
    }

    bool digits() {
        const char* const begin = p_;
        while (peek() >= '0' && peek() <= '9') ++p_;
        return p_ != begin;
    }

    Value number() {
        const char* const begin = p_;
        skip('-');
        const char* const first = p_;
        if (!digits()) {
            if (peek() == 'N' || peek() == 'I') fail("expected finite numbers");
            no_json();
        }
        if (*first == '0' && p_ - first > 1) no_json();
        const std::ptrdiff_t length = p_ - first;
        bool is_integer = true;
        if (skip('.')) {
            is_integer = false;
            if (!digits()) no_json();
        }
        if (peek() == 'e' || peek() == 'E') {
            is_integer = false;
            ++p_;
            if (!skip('-')) skip('+');
            if (!digits()) no_json();
        }
        if (is_integer && length > 20) fail("expected integers of at most 20 digits");
        Value value;
        value.kind = Value::Kind::integer;
        if (is_integer && std::from_chars(begin, p_, value.integer).ec == std::errc()) return value;
        // Of any locale. Of integers only those that 64 bits do not hold come here.
        value.kind = Value::Kind::real;
        if (std::from_chars(begin, p_, value.real).ec != std::errc()) fail("expected finite numbers that double holds");
        return value;
    }

    unsigned hex() {
        unsigned code = 0;
        for (int i = 0; i < 4; ++i) {
            const char c = peek();
            const unsigned digit = c >= '0' && c <= '9'   ? unsigned(c - '0')
                                   : c >= 'a' && c <= 'f' ? unsigned(c - 'a' + 10)
                                   : c >= 'A' && c <= 'F' ? unsigned(c - 'A' + 10)
                                                          : 16u;
            if (digit > 15) no_json();
            code = code * 16 + digit;
            ++p_;
        }
        return code;
    }

    static void append(std::string& out, unsigned code) {
        const auto put = [&](unsigned byte) { out += static_cast<char>(byte); };
        if (code < 0x80) {
            put(code);
        } else if (code < 0x800) {
            put(0xC0 | code >> 6);
            put(0x80 | (code & 0x3F));
        } else if (code < 0x10000) {
            put(0xE0 | code >> 12);
            put(0x80 | (code >> 6 & 0x3F));
            put(0x80 | (code & 0x3F));
        } else {
            put(0xF0 | code >> 18);
            put(0x80 | (code >> 12 & 0x3F));
            put(0x80 | (code >> 6 & 0x3F));
            put(0x80 | (code & 0x3F));
        }
    }

    void escape(std::string& out) {
        const char c = peek();
        if (p_ == end_) no_json();
        ++p_;
        switch (c) {
            case '"':
            case '\\':
            case '/': out += c; break;
            case 'b': out += '\b'; break;
            case 'f': out += '\f'; break;
            case 'n': out += '\n'; break;
            case 'r': out += '\r'; break;
            case 't': out += '\t'; break;
            case 'u': {
                unsigned code = hex();
                if (code >= 0xDC00 && code < 0xE000) no_json();
                if (code >= 0xD800 && code < 0xDC00) {  // the first of two that stand for one character
                    expect('\\');
                    expect('u');
                    const unsigned second = hex();
                    if (second < 0xDC00 || second >= 0xE000) no_json();
                    code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
                }
                append(out, code);
                break;
            }
            default: no_json();
        }
    }

    std::string text() {
        expect('"');
        std::string out;
        while (true) {
            const char* const begin = p_;
            while (p_ != end_ && *p_ != '"' && *p_ != '\\' && static_cast<unsigned char>(*p_) >= 0x20) ++p_;
            out.append(begin, p_);
            if (p_ == end_) no_json();
            if (skip('"')) return out;
            if (!skip('\\')) no_json();  // a control character
            escape(out);
        }
    }

    const char* p_;
    const char* const end_;
    const std::string name_;
    const std::size_t most_objects_, most_others_;
    std::size_t objects_ = 0, lists_ = 0, texts_ = 0;
};

}  // namespace detail
}  // namespace headrace

// ---- container.hpp ----

// The container: a safetensors file whose own header is checked before anything beyond it is read, so that its sizes
// are those of the file, and whose bytes are compared with the checksum.

namespace headrace {
namespace detail {

constexpr std::uint64_t most_header = std::uint64_t(1) << 24;  // bytes
constexpr std::int64_t newest_format = 2;

enum class Dtype { f32, f64, boolean };

struct Tensor {
    Dtype dtype = Dtype::f32;
    std::vector<std::uint64_t> shape;   // one or two
    std::uint64_t begin = 0, size = 0;  // bytes
    bool is_taken = false;
};

inline std::uint64_t little_endian(const unsigned char* p, int bytes) {
    std::uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i) value = value << 8 | p[i];
    return value;
}

inline double number_at(const unsigned char* p, Dtype dtype) {
    if (dtype == Dtype::f32) {
        const std::uint32_t bits = static_cast<std::uint32_t>(little_endian(p, 4));
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return static_cast<double>(value);
    }
    const std::uint64_t bits = little_endian(p, 8);
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// CRC-32, as of zlib.
class Crc32 {
  public:
    Crc32() {
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t c = i;
            for (int k = 0; k < 8; ++k) c = c & 1u ? 0xEDB88320u ^ c >> 1 : c >> 1;
            table_[i] = c;
        }
    }
    void add(const unsigned char* p, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) state_ = table_[(state_ ^ p[i]) & 0xFFu] ^ state_ >> 8;
    }
    std::string text() const {
        std::string result;
        const std::uint32_t crc = ~state_;
        for (int shift = 28; shift >= 0; shift -= 4) result += "0123456789abcdef"[crc >> shift & 15u];
        return result;
    }

  private:
    std::array<std::uint32_t, 256> table_{};
    std::uint32_t state_ = 0xFFFFFFFFu;
};

// How many transforms and other parts a file of so many bytes may have.
inline std::size_t most_objects(std::uint64_t size) {
    return 4096 + static_cast<std::size_t>(size / 512);
}

class Container {
  public:
    // Reads by `read(p, n)`, which gives exactly n more bytes or says that it cannot.
    template <class Read>
    Container(std::uint64_t size, const Read& read) : size_(size) {
        unsigned char first[8];
        if (size < 8)
            refuse("truncated, or no safetensors file: expected at least 8 bytes, got " + std::to_string(size));
        read(first, sizeof first);
        const std::uint64_t length = little_endian(first, 8);
        if (length > most_header)
            refuse("no safetensors file, or too large a header: its first 8 bytes claim one of " +
                   std::to_string(length) + " bytes");
        if (length > size - 8)
            refuse("truncated: expected a header of " + std::to_string(length) + " bytes, got " +
                   std::to_string(size - 8) + " bytes");
        std::string text(static_cast<std::size_t>(length), '\0');
        read(reinterpret_cast<unsigned char*>(&text[0]), text.size());
        const std::string checksum = read_entries(text);
        const std::uint64_t rest = size - 8 - length;
        check_places(rest);
        data_.resize(static_cast<std::size_t>(rest));
        read(data_.data(), data_.size());
        check_contents(checksum);
    }

    const Value& header() const { return header_; }
    std::int64_t format() const { return header_.entries().at("format").integer; }
    std::map<std::string, Tensor>& tensors() { return tensors_; }
    const unsigned char* data(const Tensor& t) const { return data_.data() + t.begin; }

  private:
    // The container's own JSON, and headrace's header inside; gives the checksum.
    std::string read_entries(const std::string& text) {
        const Value own = JsonReader(text, "no safetensors file: header", 64 + text.size() / 16).read();
        if (!own.is(Value::Kind::object)) refuse("no safetensors file: expected an object as its header");
        std::string checksum;
        for (const auto& [name, entry] : own.entries()) {
            if (name == "__metadata__") continue;
            tensors_.emplace(name, tensor(name, entry));
        }
        const auto metadata = own.entries().find("__metadata__");
        const bool has = metadata != own.entries().end() && metadata->second.is(Value::Kind::object);
        const auto text_of = [&](const char* key) -> const Value* {
            if (!has) return nullptr;
            const auto found = metadata->second.entries().find(key);
            return found != metadata->second.entries().end() ? &found->second : nullptr;
        };
        const Value* const inner = text_of("headrace");
        if (!inner || !inner->is(Value::Kind::text))
            refuse("a safetensors file, but none of headrace: expected the key 'headrace' in its __metadata__");
        header_text_ = inner->text();
        header_ = JsonReader(header_text_, "__metadata__.headrace", most_objects(size_)).read();
        check_header();
        if (const Value* const sum = text_of("headrace_crc32")) {
            has_checksum_ = true;
            if (sum->is(Value::Kind::text)) checksum = sum->text();
        }
        return checksum;
    }

    void check_header() const {
        if (!header_.is(Value::Kind::object)) refuse("__metadata__.headrace: expected an object");
        for (const char* key : {"format", "version", "dtype"})
            if (!header_.entries().count(key))
                refuse(std::string("__metadata__.headrace: expected the key '") + key + "'");
        const Value& number = header_.entries().at("format");
        const Value& version = header_.entries().at("version");
        if (!number.is(Value::Kind::integer) || number.integer < 1) refuse("format: expected an integer of at least 1");
        if (number.integer > newest_format)
            refuse("file format " + std::to_string(number.integer) + ": this header of headrace reads formats up to " +
                   std::to_string(newest_format) + "; take a newer one");
        if (!version.is(Value::Kind::text)) refuse("version: expected text");
    }

    static std::uint64_t size_of(const Value& value, const std::string& place) {
        if (!value.is(Value::Kind::integer) || value.integer < 0) refuse(place + ": expected sizes");
        return static_cast<std::uint64_t>(value.integer);
    }

    static Tensor tensor(const std::string& full_name, const Value& entry) {
        const std::string name = shown(full_name);
        const auto is_complete = [&] {
            if (!entry.is(Value::Kind::object) || entry.entries().size() != 3) return false;
            for (const char* key : {"dtype", "shape", "data_offsets"})
                if (!entry.entries().count(key)) return false;
            return true;
        };
        if (!is_complete()) refuse(name + ": expected an object of dtype, shape and data_offsets");
        const Value &dtype = entry.entries().at("dtype"), &shape = entry.entries().at("shape"),
                    &offsets = entry.entries().at("data_offsets");
        const std::string kind = dtype.is(Value::Kind::text) ? dtype.text() : "";
        Tensor t;
        if (kind == "F32") {
            t.dtype = Dtype::f32;
        } else if (kind == "F64") {
            t.dtype = Dtype::f64;
        } else if (kind == "BOOL") {
            t.dtype = Dtype::boolean;
        } else {
            refuse(name + ": dtype: expected one of 'F32', 'F64', 'BOOL', got " + shown(kind));
        }
        const std::uint64_t itemsize = t.dtype == Dtype::f32 ? 4 : t.dtype == Dtype::f64 ? 8 : 1;
        if (!shape.is(Value::Kind::list) || shape.items().size() > 2)
            refuse(name + ": shape: expected a list of at most 2 sizes");
        std::uint64_t expected = itemsize;
        for (const Value& item : shape.items()) {
            const std::uint64_t n = size_of(item, name + ": shape");
            if (n > 0 && expected > (std::uint64_t(1) << 62) / n) refuse(name + ": shape: expected smaller sizes");
            expected *= n;
            t.shape.push_back(n);
        }
        if (!offsets.is(Value::Kind::list) || offsets.items().size() != 2)
            refuse(name + ": data_offsets: expected a list of 2 sizes");
        t.begin = size_of(offsets.items()[0], name + ": data_offsets");
        const std::uint64_t end = size_of(offsets.items()[1], name + ": data_offsets");
        if (end < t.begin || end - t.begin != expected)
            refuse(name + ": data_offsets: expected a difference of " + std::to_string(expected));
        t.size = expected;
        return t;
    }

    // They fill the rest of the file without gaps and overlaps.
    void check_places(std::uint64_t available) const {
        std::vector<std::pair<std::pair<std::uint64_t, std::uint64_t>, const std::string*>> places;
        for (const auto& [name, t] : tensors_) places.push_back({{t.begin, t.begin + t.size}, &name});
        std::sort(places.begin(), places.end());
        std::uint64_t end = 0;
        for (const auto& [place, name] : places) {
            if (place.first != end)
                refuse(shown(*name) + ": data_offsets: expected " + std::to_string(end) + " for the first, got " +
                       std::to_string(place.first));
            end = place.second;
        }
        if (end > available)
            refuse("truncated: expected " + std::to_string(end) + " bytes of tensors, got " +
                   std::to_string(available));
        if (end < available)
            refuse("expected " + std::to_string(end) + " bytes of tensors, got " + std::to_string(available) +
                   ": something was appended");
    }

    void check_contents(const std::string& checksum) const {
        Crc32 crc;
        crc.add(reinterpret_cast<const unsigned char*>(header_text_.data()), header_text_.size());
        for (const auto& [name, t] : tensors_) {  // in ascending order of their names
            crc.add(data(t), static_cast<std::size_t>(t.size));
            if (t.dtype != Dtype::boolean) continue;
            for (std::uint64_t i = 0; i < t.size; ++i)
                if (data(t)[i] > 1) refuse(shown(name) + ": expected bytes 0 and 1 in a tensor of BOOL");
        }
        if ((format() >= 2 || has_checksum_) && crc.text() != checksum)
            refuse("damaged: expected the checksum " + crc.text() + " of what it holds, got " + shown(checksum));
    }

    std::uint64_t size_;
    std::string header_text_;
    Value header_;
    bool has_checksum_ = false;
    std::map<std::string, Tensor> tensors_;
    std::vector<unsigned char> data_;
};

inline Container container_of_file(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error("expected a file that can be read");
    stream.seekg(0, std::ios::end);
    const std::streamoff size = stream.tellg();
    stream.seekg(0);
    if (!stream || size < 0) throw std::runtime_error("expected a regular file");
    return Container(static_cast<std::uint64_t>(size), [&](unsigned char* p, std::size_t n) {
        stream.read(reinterpret_cast<char*>(p), static_cast<std::streamsize>(n));
        if (static_cast<std::size_t>(stream.gcount()) != n) refuse("truncated while it was read");
    });
}

inline Container container_of_bytes(const void* data, std::size_t size) {
    const unsigned char* next = static_cast<const unsigned char*>(data);
    return Container(size, [&](unsigned char* p, std::size_t n) {
        if (n) std::memcpy(p, next, n);
        next += n;
    });
}

}  // namespace detail
}  // namespace headrace

// ---- stored.hpp ----

// How an object is read from its header and its tensors: each key and each tensor is taken once, what nobody takes is
// an error, and a size in a header is a claim until a tensor confirms it.

namespace headrace {
namespace detail {

constexpr std::int64_t most_features = 1 << 17;  // and context columns

// A number in a narrower format; what does not fit becomes an infinity, where a plain cast would be undefined.
template <class Out>
Out narrowed(double value) {
    constexpr double most = static_cast<double>(std::numeric_limits<Out>::max());
    if (value > most) {  // what rounds to the largest number is one
        const double step = most * static_cast<double>(std::numeric_limits<Out>::epsilon()) / 4;
        return value - most < step ? std::numeric_limits<Out>::max() : std::numeric_limits<Out>::infinity();
    }
    if (value < -most) return -narrowed<Out>(-value);
    return static_cast<Out>(value);
}

class Stored {
  public:
    Stored(const Value& object, Container& file, std::string prefix, std::string place)
        : file_(&file), object_(object), prefix_(std::move(prefix)), place_(std::move(place)) {
        if (!object_.is(Value::Kind::object)) fail(std::string("expected an object, got ") + object_.name());
    }

    [[noreturn]] void fail(const std::string& message) const {
        refuse(place_.empty() ? message : place_ + ": " + message);
    }

    bool has(const std::string& key) const { return object_.entries().count(key) > 0; }

    const Value& take(const std::string& key) {
        const auto found = object_.entries().find(key);
        if (found == object_.entries().end() || !taken_.insert(key).second) fail("expected the key '" + key + "'");
        return found->second;
    }

    // Refuses keys that nobody took: they may change the meaning of others.
    void close() const {
        for (const auto& entry : object_.entries())
            if (!taken_.count(entry.first)) fail("expected no key " + shown(entry.first));
    }

    int integer(const Value& value, const std::string& key, std::int64_t least, std::int64_t most) const {
        if (!value.is(Value::Kind::integer) || value.integer < least || value.integer > most)
            fail(key + ": expected an integer from " + std::to_string(least) + " to " + std::to_string(most));
        return static_cast<int>(value.integer);
    }
    int size(const std::string& key, int least = 0, std::int64_t most = most_features) {
        return integer(take(key), key, least, most);
    }
    double number(const std::string& key, double above, double below) { return number(take(key), key, above, below); }
    double number(const Value& value, const std::string& key, double above, double below) const {
        if (!value.is_number() || !(value.number() > above && value.number() < below))
            fail(key + ": expected a number above " + std::to_string(above) + " and below " + std::to_string(below));
        return value.number();
    }
    bool truth(const std::string& key) {
        const Value& value = take(key);
        if (!value.is(Value::Kind::boolean)) fail(key + ": expected true or false");
        return value.truth;
    }
    const std::vector<Value>& items(const std::string& key) {
        const Value& value = take(key);
        if (!value.is(Value::Kind::list)) fail(key + ": expected a list, got " + value.name());
        return value.items();
    }
    // The index of a text among the options.
    int choice(const std::string& key, const std::vector<std::string>& options) {
        return choice(take(key), key, options);
    }
    int choice(const Value& value, const std::string& key, const std::vector<std::string>& options) const {
        std::string listed;
        for (std::size_t i = 0; i < options.size(); ++i) {
            if (value.is(Value::Kind::text) && value.text() == options[i]) return static_cast<int>(i);
            listed += (i ? ", " : "") + options[i];
        }
        fail(key + ": expected one of " + listed + ", got " +
             (value.is(Value::Kind::text) ? shown(value.text()) : std::string(value.name())));
    }
    std::vector<double> numbers(const std::string& key, std::size_t length, bool positive = false) {
        return numbers(items(key), key, length, positive);
    }
    std::vector<double> numbers(const std::vector<Value>& list, const std::string& key, std::size_t length,
                                bool positive) const {
        if (list.size() != length)
            fail(key + ": expected " + std::to_string(length) + " values, got " + std::to_string(list.size()));
        std::vector<double> result;
        for (const Value& value : list) {
            if (!value.is_number()) fail(key + ": expected numbers");
            result.push_back(value.number());
            if (positive && !(result.back() >= std::numeric_limits<double>::min()))
                fail(key + ": expected positive numbers");
        }
        return result;
    }
    std::vector<int> integers(const std::string& key, std::int64_t least, std::int64_t most) {
        return integers(take(key), key, least, most);
    }
    std::vector<int> integers(const Value& list, const std::string& key, std::int64_t least, std::int64_t most) const {
        if (!list.is(Value::Kind::list)) fail(key + ": expected a list, got " + list.name());
        std::vector<int> result;
        for (const Value& value : list.items()) result.push_back(integer(value, key, least, most));
        return result;
    }
    std::vector<int> permutation(const std::string& key, int n) {
        const std::vector<int> order = integers(key, 0, n - 1);
        std::vector<bool> seen(order.size(), false);
        if (order.size() != static_cast<std::size_t>(n)) fail(key + ": expected " + std::to_string(n) + " values");
        for (const int i : order) {
            if (seen[static_cast<std::size_t>(i)])
                fail(key + ": expected each of 0 to " + std::to_string(n - 1) + " once");
            seen[static_cast<std::size_t>(i)] = true;
        }
        return order;
    }

    // `rows` lists of `columns` numbers each, one after another.
    std::vector<double> table(const std::string& key, std::size_t rows, std::size_t columns, bool positive = false) {
        const std::vector<Value>& lists = items(key);
        if (lists.size() != rows) fail(key + ": expected " + std::to_string(rows) + " lists");
        std::vector<double> result;
        for (const Value& list : lists) {
            if (!list.is(Value::Kind::list)) fail(key + ": expected numbers in lists, got " + list.name());
            const std::vector<double> row = numbers(list.items(), key, columns, positive);
            result.insert(result.end(), row.begin(), row.end());
        }
        return result;
    }

    // An object of its own inside of this one; its tensors have one prefix more.
    Stored part(const Value& value, const std::string& key, const std::string& prefix = "") const {
        return {value, *file_, prefix_ + prefix, place_.empty() ? key : place_ + ": " + key};
    }

    bool has_tensor(const std::string& name) const { return file_->tensors().count(prefix_ + name) > 0; }

    // A size that a tensor confirms, below 2^31.
    std::uint64_t rows_of(const std::string& name) const {
        const auto found = file_->tensors().find(prefix_ + name);
        if (found == file_->tensors().end() || found->second.shape.empty() ||
            found->second.shape[0] > std::uint64_t(std::numeric_limits<std::int32_t>::max()))
            fail("expected a tensor '" + prefix_ + name + "' of less than 2^31 rows");
        return found->second.shape[0];
    }

    // A tensor of this shape and of the file's dtype, in T. Its numbers are finite, in T too.
    template <class T>
    std::vector<T> array(const std::string& name, const std::vector<std::uint64_t>& shape) {
        return numbers_of<T>(name, shape, own_dtype());
    }
    template <class T>
    std::vector<T> array_of_doubles(const std::string& name, const std::vector<std::uint64_t>& shape) {
        return numbers_of<T>(name, shape, Dtype::f64);
    }
    std::vector<bool> mask(const std::string& name, const std::vector<std::uint64_t>& shape) {
        const Tensor& t = tensor(name, shape, Dtype::boolean);
        const unsigned char* const p = file_->data(t);
        return std::vector<bool>(p, p + t.size);
    }

  private:
    Dtype own_dtype() const {
        const Value& value = file_->header().entries().at("dtype");
        if (value.is(Value::Kind::null))
            fail("dtype: expected 'float32' or 'float64' where there are parameters, got null");
        return choice(value, "dtype", {"float32", "float64"}) == 0 ? Dtype::f32 : Dtype::f64;
    }

    const Tensor& tensor(const std::string& name, const std::vector<std::uint64_t>& shape, Dtype dtype) {
        const std::string full = prefix_ + name;
        const auto found = file_->tensors().find(full);
        if (found == file_->tensors().end() || found->second.is_taken)
            fail("expected a tensor '" + full + "', got none of that name");
        Tensor& t = found->second;
        if (t.shape != shape) {
            std::string wanted;
            for (const std::uint64_t n : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(n);
            fail(full + ": expected shape (" + wanted + ")");
        }
        if (t.dtype != dtype) fail(full + ": expected another dtype");
        t.is_taken = true;
        return t;
    }

    template <class T>
    std::vector<T> numbers_of(const std::string& name, const std::vector<std::uint64_t>& shape, Dtype dtype) {
        const Tensor& t = tensor(name, shape, dtype);
        const std::size_t itemsize = dtype == Dtype::f32 ? 4 : 8, n = static_cast<std::size_t>(t.size) / itemsize;
        const unsigned char* const p = file_->data(t);
        std::vector<T> result(n);
        for (std::size_t i = 0; i < n; ++i) {
            result[i] = narrowed<T>(number_at(p + i * itemsize, dtype));
            if (!std::isfinite(result[i])) fail(prefix_ + name + ": expected finite numbers");
        }
        return result;
    }

    Container* file_;
    Value object_;
    std::string prefix_, place_;
    std::set<std::string> taken_;
};

}  // namespace detail
}  // namespace headrace

// ---- bases.hpp ----

// Base densities whose coordinates are standard numbers, shifted and scaled; and what every base does.

namespace headrace {
namespace detail {

constexpr double half_log_two_pi = 0.91893853320467274178, log_two = 0.69314718055994530942;

template <class T>
class Base {
  public:
    explicit Base(Stored& stored) : features_(stored.size("features", 1)) {}
    virtual ~Base() = default;

    int features() const { return features_; }

    virtual double log_prob(const double* z) const = 0;

    // A row of the endless sample of a seed.
    virtual void draw(std::uint64_t seed, std::uint64_t row, T* z) const = 0;

  protected:
    std::size_t columns() const { return static_cast<std::size_t>(features_); }

  private:
    int features_;
};

inline double logistic_log_density(double x) {
    return -std::abs(x) - 2.0 * std::log1p(std::exp(-std::abs(x)));
}
inline double normal_log_density(double x) {
    return -0.5 * x * x - half_log_two_pi;
}

// StandardNormal, Logistic and Normal.
template <class T>
class StandardBase : public Base<T> {
  public:
    StandardBase(Stored& stored, bool is_logistic, bool has_scale) : Base<T>(stored), is_logistic_(is_logistic) {
        const std::size_t n = this->columns();
        if (has_scale) {
            is_trained_ = stored.truth("trainable");
            if (is_trained_) {
                for (const T x : stored.template array<T>("loc", {n})) loc_.push_back(static_cast<double>(x));
                for (const T x : stored.template array<T>("log_scale", {n}))
                    log_scale_.push_back(static_cast<double>(x));
            } else {
                loc_ = stored.numbers("loc", n);
                for (const double x : stored.numbers("scale", n, true)) log_scale_.push_back(std::log(x));
            }
        }
    }

    double log_prob(const double* z) const override {
        double sum = 0.0;
        for (std::size_t c = 0; c < this->columns(); ++c) {
            double x = z[c];
            if (!loc_.empty()) {
                x = (x - loc_[c]) * std::exp(-log_scale_[c]);
                sum -= log_scale_[c];
                // A trained base is a step as others: what overflows there is NaN.
                if (is_trained_ && !std::isfinite(narrowed<T>(x))) return std::numeric_limits<double>::quiet_NaN();
            }
            sum += is_logistic_ ? logistic_log_density(x) : normal_log_density(x);
        }
        return sum;
    }

    void draw(std::uint64_t seed, std::uint64_t row, T* z) const override {
        for (std::size_t c = 0; c < this->columns(); c += 4) {
            const Drawn<T> numbers = drawn<T>(seed, row, static_cast<std::uint32_t>(c / 4));
            for (std::size_t k = 0; k < 4 && c + k < this->columns(); ++k) {
                T& x = z[c + k] = is_logistic_ ? numbers.logistic(k) : numbers.normal(k);
                if (!loc_.empty()) x = narrowed<T>(loc_[c + k] + std::exp(log_scale_[c + k]) * static_cast<double>(x));
            }
        }
    }

  private:
    bool is_logistic_ = false, is_trained_ = false;
    std::vector<double> loc_, log_scale_;
};

}  // namespace detail
}  // namespace headrace

// ---- generator.hpp ----

// NumPy's default generator, which chooses the members of an ensemble: PCG64 (O'Neill 2014), a linear congruential
// generator of 128 bits whose output is permuted (XSL-RR), from a seed that a SeedSequence spreads.

namespace headrace {
namespace detail {

// Modulo 2^128, from two halves.
struct Wide {
    std::uint64_t high = 0, low = 0;

    friend Wide operator+(Wide a, Wide b) {
        const std::uint64_t low = a.low + b.low;
        return {a.high + b.high + (low < a.low ? 1 : 0), low};
    }
    friend Wide operator*(Wide a, Wide b) {
        constexpr std::uint64_t half = 0xFFFFFFFFu;
        const std::uint64_t a0 = a.low & half, a1 = a.low >> 32, b0 = b.low & half, b1 = b.low >> 32;
        const std::uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & half);
        const std::uint64_t high = a1 * b1 + (middle >> 32) + (other >> 32);
        return {high + a.high * b.low + a.low * b.high, a.low * b.low};
    }
};

class Generator {
  public:
    // As numpy.random.default_rng of a list of these.
    explicit Generator(std::initializer_list<std::uint64_t> seeds) {
        const std::array<std::uint64_t, 4> words = spread(seeds);
        increment_ = Wide{words[2] << 1 | words[3] >> 63, words[3] << 1 | 1};
        state_ = (increment_ + Wide{words[0], words[1]}) * multiplier() + increment_;
    }

    // Leaves so many numbers out.
    void skip(std::uint64_t count) {
        Wide factor{0, 1}, sum{0, 0}, step = multiplier(), plus = increment_;
        for (; count; count >>= 1) {
            if (count & 1) {
                factor = factor * step;
                sum = sum * step + plus;
            }
            plus = (step + Wide{0, 1}) * plus;
            step = step * step;
        }
        state_ = factor * state_ + sum;
    }

    // In [0, 1), of 53 bits.
    double uniform() {
        state_ = state_ * multiplier() + increment_;
        const std::uint64_t mixed = state_.high ^ state_.low;
        const unsigned turn = static_cast<unsigned>(state_.high >> 58);
        const std::uint64_t word = mixed >> turn | mixed << ((64 - turn) & 63);
        return static_cast<double>(word >> 11) * 1.1102230246251565e-16;
    }

  private:
    static Wide multiplier() { return {0x2360ED051FC65DA4u, 0x4385DF649FCCF645u}; }

    // A SeedSequence's pool of four words of 32 bits, and the eight that it gives.
    static std::array<std::uint64_t, 4> spread(std::initializer_list<std::uint64_t> seeds) {
        std::vector<std::uint32_t> entropy;
        for (const std::uint64_t seed : seeds) {
            entropy.push_back(static_cast<std::uint32_t>(seed));
            if (seed >> 32) entropy.push_back(static_cast<std::uint32_t>(seed >> 32));
        }
        std::uint32_t constant = 0x43B0D7E5u;
        const auto hashed = [&](std::uint32_t value, std::uint32_t factor) {
            value ^= constant;
            constant *= factor;
            value *= constant;
            return value ^ value >> 16;
        };
        const auto mixed = [](std::uint32_t x, std::uint32_t y) {
            const std::uint32_t value = 0xCA01F9DDu * x - 0x4973F715u * y;
            return value ^ value >> 16;
        };
        std::array<std::uint32_t, 4> pool{};
        for (std::size_t i = 0; i < 4; ++i) pool[i] = hashed(i < entropy.size() ? entropy[i] : 0, 0x931E8875u);
        for (std::size_t from = 0; from < 4; ++from)
            for (std::size_t to = 0; to < 4; ++to)
                if (from != to) pool[to] = mixed(pool[to], hashed(pool[from], 0x931E8875u));
        for (std::size_t from = 4; from < entropy.size(); ++from)
            for (std::uint32_t& word : pool) word = mixed(word, hashed(entropy[from], 0x931E8875u));
        std::array<std::uint64_t, 4> out{};
        constant = 0x8B51F9DDu;
        for (std::size_t i = 0; i < 8; ++i)
            out[i / 2] |= std::uint64_t(hashed(pool[i % 4], 0x58F38DEDu)) << 32 * (i % 2);
        return out;
    }

    Wide state_, increment_;
};

}  // namespace detail
}  // namespace headrace

// ---- numbers.hpp ----

// Elementary functions that neither overflow on the way nor lose digits, and activations of hidden units.

namespace headrace {
namespace detail {

template <class T>
T softplus(T x) {
    return x > T(0) ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}
template <class T>
T sigmoid(T x) {
    const T e = std::exp(-std::abs(x));
    return (x < T(0) ? e : T(1)) / (T(1) + e);
}

// A positive number from a raw one: value = 0.001 + log(1 + e^(x + c)), which is 1 at 0.
template <class T>
struct Positive {
    T value, excess;  // excess: value - 1, without cancellation where x is small
};
constexpr double positive_shift = 0.539742417236952;  // c = log(e^0.999 - 1)
constexpr double positive_slope = 0.631752495386337;  // at 0: 1 - e^-0.999
template <class T>
Positive<T> positive(T x) {
    if (std::abs(x) < T(0.5)) {  // log((1 + e^(x + c)) / (1 + e^c))
        const T near = std::log1p(std::expm1(x) * T(positive_slope));
        return {near + T(1), near};
    }
    const T far = softplus(x + T(positive_shift));
    return {far + T(1e-3), far + T(1e-3 - 1.0)};
}

enum class Activation { relu, tanh, elu, silu, gelu, softplus, leaky_relu, sigmoid, identity };

inline const std::vector<std::string>& activation_names() {
    static const std::vector<std::string> names{"relu",     "tanh",       "elu",     "silu",    "gelu",
                                                "softplus", "leaky_relu", "sigmoid", "identity"};
    return names;
}

// NaN stays NaN in all of them.
template <class T>
T activated(Activation activation, T x) {
    // Where x meets a factor that is 0 long before x is so large: infinity times 0 would be NaN.
    const T limited = x < T(-1e30) ? T(-1e30) : x;
    switch (activation) {
        case Activation::relu: return x < T(0) ? T(0) : x;
        case Activation::tanh: return std::tanh(x);
        case Activation::elu: return x < T(0) ? std::expm1(x) : x;
        case Activation::silu: return limited * sigmoid(x);
        case Activation::gelu: return limited * (T(0.5) * std::erfc(x * T(-0.70710678118654752440)));
        case Activation::softplus: return softplus(x);
        case Activation::leaky_relu: return x < T(0) ? x * T(0.01) : x;
        case Activation::sigmoid: return sigmoid(x);
        case Activation::identity: break;
    }
    return x;
}

}  // namespace detail
}  // namespace headrace

// ---- spline.hpp ----

// Monotone rational-quadratic splines (Durkan, Bekasov, Murray, Papamakarios 2019). Within a bin all is in its own
// units: t and eta run from 0 to 1, derivatives are divided by the bin's slope. Then, with r = 1 - t,
//   eta = (t^2 + d0 t r) / D,   D = t^2 + r^2 + (d0 + d1) t r,   dy/dx = slope N / D^2,   N = d0 r^2 + 2 t r + d1 t^2,
// sums of positive terms. The discriminant of the inverse is one too: q^2 + 4 eta (1 - eta), q = d0 (1 - eta) - d1 eta.

namespace headrace {
namespace detail {

enum class Ends { one, free, shared };            // derivatives at the two ends: 1, their own, the same
enum class Tails { identity, linear, periodic };  // outside of the interval

struct SplineSettings {
    int bins = 8;
    double low = -5.0, high = 5.0, min_bin = 1e-3, slope = 1e-3;
    bool is_clamped = true;  // rq_spline: raw numbers are softly clamped, and bins have no least size
    Ends ends = Ends::one;
    Tails tails = Tails::identity;

    int n_derivatives() const { return ends == Ends::one ? bins - 1 : ends == Ends::free ? bins + 1 : bins; }
};

template <class T>
class Spline {
  public:
    Spline(const SplineSettings& settings, const T* params) : s_(settings), p_(params) {
        low_ = static_cast<T>(s_.low);
        high_ = static_cast<T>(s_.high);
        range_ = s_.is_clamped ? T(2) * high_ : high_ - low_;
        clamp_ = static_cast<T>(1.0 / std::log(1.0 / s_.slope));
        width_sum_ = sizes(p_, width_);
        height_sum_ = sizes(p_ + s_.bins, height_);
        poison_ = T(0);  // NaN if any parameter is not finite, also where the identity would hide it
        for (int k = 0; k < 2 * s_.bins + s_.n_derivatives(); ++k) poison_ += p_[k] - p_[k];
    }

    T apply(bool inverse, T given, double& log_det) const {
        T value = given, beyond = T(0);
        if (s_.tails == Tails::linear) beyond = value - clamped(value);
        if (s_.tails == Tails::periodic) {
            beyond = std::nearbyint((value - (low_ + range_ * T(0.5))) * (T(1) / range_)) * range_;
            value -= beyond;
        }
        if (s_.tails == Tails::identity && (value < low_ || value > high_)) {
            log_det += static_cast<double>(poison_);
            return value + poison_;
        }
        const Bin bin = find(inverse ? height_ : width_, inverse ? height_sum_ : width_sum_, value);
        T t, r;
        if (inverse) {
            solve(bin, t, r);
        } else {
            t = between_0_and_1(bin.inside / bin.width);
            r = T(1) - t;
        }
        // A straight tail has the derivative at the very end, which may be far from that a rounding error away.
        if (s_.tails == Tails::linear && value >= high_) t = T(1), r = T(0);
        if (s_.tails == Tails::linear && value <= low_) t = T(0), r = T(1);
        const T d = t * t + r * r + (bin.d0 + bin.d1) * t * r;
        const T n = bin.d0 * r * r + T(2) * t * r + bin.d1 * t * t, slope = n / d / d * bin.slope;
        T result;
        if (inverse) {
            result = spread((bin.left_width + bin.width * t) / width_sum_);
        } else {
            result = spread((bin.left_height + bin.height * (t * (t + bin.d0 * r) / d)) / height_sum_);
        }
        const T log_slope = std::log(slope) + poison_;
        log_det += static_cast<double>(inverse ? -log_slope : log_slope);
        if (s_.tails == Tails::linear) return result + (inverse ? beyond / slope : beyond * slope) + poison_;
        return result + beyond + poison_;
    }

  private:
    static constexpr int most_bins = 64;

    struct Bin {
        T left_width, width, left_height, height;  // in units in which all of a side sum to its sum
        T inside;                                  // how far the input is above the bin's lower end
        T slope, d0, d1;                           // derivatives over the slope
    };

    static T between_0_and_1(T x) { return x < T(0) ? T(0) : x > T(1) ? T(1) : x; }
    T clamped(T x) const { return x < low_ ? low_ : x > high_ ? high_ : x; }
    T spread(T share) const { return s_.is_clamped ? share * range_ - high_ : share * range_ + low_; }

    // The sizes of a side's bins; gives their sum.
    T sizes(const T* raw, T* out) const {
        T sum = T(0);
        if (s_.is_clamped) {
            for (int k = 0; k < s_.bins; ++k) {
                out[k] = std::exp(raw[k] / (std::abs(raw[k]) * T(2) * clamp_ + T(1)));
                sum += out[k];
            }
            return sum;
        }
        T top = raw[0];
        for (int k = 1; k < s_.bins; ++k) top = raw[k] > top ? raw[k] : top;
        for (int k = 0; k < s_.bins; ++k) {
            out[k] = std::exp(raw[k] - top);
            sum += out[k];
        }
        const T least = static_cast<T>(s_.min_bin), left_over = T(1) - T(s_.bins) * least;
        for (int k = 0; k < s_.bins; ++k) out[k] = out[k] * left_over + sum * least;
        return sum;
    }

    T derivative(int knot) const {
        int place = knot;
        if (s_.ends == Ends::one) {
            if (knot == 0 || knot == s_.bins) return T(1);
            place = knot - 1;
        } else if (s_.ends == Ends::shared && knot == s_.bins) {
            place = 0;
        }
        const T raw = p_[2 * s_.bins + place];
        if (s_.is_clamped) return std::exp(raw / (std::abs(raw) * clamp_ + T(1)));
        return softplus(raw) + static_cast<T>(s_.slope);
    }

    // The last bin whose lower end is not above the input.
    Bin find(const T* sizes_here, T sum, T value) const {
        const T share =
            s_.is_clamped ? (clamped(value) + high_) * (T(0.5) / high_) : (clamped(value) - low_) * (T(1) / range_);
        const T target = share * sum;
        Bin bin{T(0), width_[0], T(0), height_[0], target, T(1), T(1), T(1)};
        T end = T(0), width_end = T(0), height_end = T(0);
        int index = 0;
        for (int k = 0; k < s_.bins; ++k) {
            if (target >= end) {
                index = k;
                bin.left_width = width_end;
                bin.width = width_[k];
                bin.left_height = height_end;
                bin.height = height_[k];
                bin.inside = target - end;
            }
            end += sizes_here[k];
            width_end += width_[k];
            height_end += height_[k];
        }
        bin.slope = bin.height * width_sum_ / (bin.width * height_sum_);
        bin.d0 = derivative(index) / bin.slope;
        bin.d1 = derivative(index + 1) / bin.slope;
        return bin;
    }

    void solve(const Bin& bin, T& t, T& r) const {
        const T eta = between_0_and_1(bin.inside / bin.height), rest = T(1) - eta;
        const T q = bin.d0 * rest - bin.d1 * eta, size = std::abs(q);
        // q * q may overflow where derivatives are not bounded.
        const T root = size + (size > T(1e15) ? size : std::sqrt(q * q + T(4) * eta * rest));
        const T near = T(2) * (q >= T(0) ? eta : rest), a = near / (near + root), b = root / (near + root);
        t = q >= T(0) ? a : b;
        r = q >= T(0) ? b : a;
    }

    const SplineSettings& s_;
    const T* p_;
    T low_, high_, range_, clamp_, width_sum_, height_sum_, poison_;
    T width_[most_bins], height_[most_bins];
};

}  // namespace detail
}  // namespace headrace

// ---- maps.hpp ----

// Maps of a number: affine, additive, the bent line of dual ascent, and the splines of spline.hpp. Each takes a value
// and the raw parameters of its coordinate, in the map's own order, and adds the logarithm of its derivative.

namespace headrace {
namespace detail {

enum class MapKind { affine, additive, rq_spline, nflows, free, flowjax, circular, dual_ascent };
enum class Scale { soft_clamp, exp, softplus, sigmoid };

// The log of a scale from its raw number.
template <class T>
T log_scale_of(Scale scale, T raw, T slope, T clamp) {
    switch (scale) {
        case Scale::soft_clamp: return raw / (std::abs(raw) * clamp + T(1));
        case Scale::softplus: return std::log(softplus(raw) + slope);
        case Scale::sigmoid: return std::log(sigmoid(raw + T(2)) + slope);
        case Scale::exp: break;
    }
    return raw;
}

// sqrt(x^2 + y^2) for positive x, without overflow.
template <class T>
T hypotenuse(T x, T y) {
    const T size = std::abs(y), larger = size > x ? size : x, ratio = (size > x ? x : size) / larger;
    return larger * std::sqrt(ratio * ratio + T(1));
}

// a v + shift + a gamma sqrt(epsilon^2 + (v - center)^2), and its inverse, a quadratic written so that nothing cancels.
template <class T>
T bent_line(const T* p, T slope, T clamp, bool inverse, T value, double& log_det) {
    const T log_a = log_scale_of(Scale::soft_clamp, p[0], slope, clamp), a = std::exp(log_a), shift = p[1],
            gamma = p[2] / hypotenuse(T(1), p[2]) * (T(1) - slope), center = p[3], epsilon = positive(p[4]).value;
    if (!inverse) {
        const T w = value - center, r = hypotenuse(epsilon, w);
        log_det += static_cast<double>(log_a + std::log(gamma * (w / r) + T(1)));
        // Halves leave a sum of two numbers near the largest one room.
        return (r * (gamma * T(0.5)) + value * T(0.5)) * (a + a) + shift;
    }
    const T t = (value - shift) * std::exp(-log_a) - center;
    const T rest = (T(1) - gamma) * (gamma + T(1)), bent = std::abs(gamma) * epsilon;
    const T root = hypotenuse(epsilon * std::sqrt(rest), t), near = t * T(0.5);
    T w = (t - gamma * root) / rest;
    if (gamma * t > T(0)) w = (t - bent) * ((bent * T(0.5) + near) / (gamma * T(0.5) * root + near));
    log_det -= static_cast<double>(log_a + std::log(gamma * (w / hypotenuse(epsilon, w)) + T(1)));
    return w + center;
}

class MapSettings {
  public:
    explicit MapSettings(Stored& stored) {
        kind_ = static_cast<MapKind>(
            stored.choice("map", {"affine", "additive", "rq_spline", "rq_spline_nflows", "rq_spline_free",
                                  "rq_spline_flowjax", "rq_spline_circular", "dual_ascent"}));
        scale_ = static_cast<Scale>(stored.choice("scale", {"soft_clamp", "exp", "softplus", "sigmoid"}));
        const bool is_bent = kind_ != MapKind::affine && kind_ != MapKind::additive;
        slope_ = stored.number("slope", is_bent ? 0.99999999e-6 : 0.0, 1.0);
        spline_.bins = stored.integer(stored.take("bins"), "bins", 2, 64);
        read_bound(stored);
        if (has_min_bin()) {
            spline_.ends = kind_ == MapKind::nflows     ? Ends::one
                           : kind_ == MapKind::circular ? Ends::shared
                                                        : Ends::free;
            spline_.tails = kind_ == MapKind::circular ? Tails::periodic
                            : kind_ == MapKind::free   ? Tails::linear
                                                       : Tails::identity;
        }
        if (stored.has("min_bin"))
            spline_.min_bin =
                stored.number("min_bin", has_min_bin() ? 0.99999999e-6 : 0.0, has_min_bin() ? 1.0 / spline_.bins : 1.0);
        if (has_min_bin() && !(spline_.min_bin * spline_.bins < 1.0))
            stored.fail("min_bin: expected less than 1 / bins");
        spline_.is_clamped = kind_ == MapKind::rq_spline;
        spline_.slope = slope_;
    }

    // Names of the parameters of a coordinate, and how many numbers each stands for.
    std::vector<std::pair<std::string, int>> groups() const {
        const int bins = spline_.bins;
        switch (kind_) {
            case MapKind::affine: return {{"shift", 1}, {"scale", 1}};
            case MapKind::additive: return {{"shift", 1}};
            case MapKind::dual_ascent: return {{"stretch", 1}, {"shift", 1}, {"bend", 1}, {"center", 1}, {"width", 1}};
            default: return {{"width", bins}, {"height", bins}, {"derivative", spline_.n_derivatives()}};
        }
    }
    int n_params() const {
        int n = 0;
        for (const auto& group : groups()) n += group.second;
        return n;
    }

    template <class T>
    T apply(const T* p, bool inverse, T value, double& log_det) const {
        const T slope = static_cast<T>(slope_), clamp = static_cast<T>(1.0 / std::log(1.0 / slope_));
        switch (kind_) {
            case MapKind::affine: {
                const T log_scale = log_scale_of(scale_, p[1], slope, clamp);
                log_det += static_cast<double>(inverse ? -log_scale : log_scale);
                return inverse ? (value - p[0]) * std::exp(-log_scale) : std::exp(log_scale) * value + p[0];
            }
            case MapKind::additive: return inverse ? value - p[0] : value + p[0];
            case MapKind::dual_ascent: return bent_line(p, slope, clamp, inverse, value, log_det);
            default: return Spline<T>(spline_, p).apply(inverse, value, log_det);
        }
    }

  private:
    bool has_min_bin() const { return kind_ >= MapKind::nflows && kind_ <= MapKind::circular; }

    void read_bound(Stored& stored) {
        constexpr double farthest = 1e30;
        const Value& bound = stored.take("bound");
        if (!bound.is(Value::Kind::list)) {
            spline_.high = stored.number(bound, "bound", 0.0, farthest);
            spline_.low = -spline_.high;
            return;
        }
        if (bound.items().size() != 2) stored.fail("bound: expected a number or two");
        spline_.low = stored.number(bound.items()[0], "bound[0]", -farthest, farthest);
        spline_.high = stored.number(bound.items()[1], "bound[1]", spline_.low, farthest);
        if (!has_min_bin() && spline_.low != -spline_.high) stored.fail("bound: expected one number for this map");
    }

    MapKind kind_ = MapKind::affine;
    Scale scale_ = Scale::soft_clamp;
    double slope_ = 1e-3;
    SplineSettings spline_;
};

}  // namespace detail
}  // namespace headrace

// ---- network.hpp ----

// The conditioner: a network whose weights are multiplied by masks. It runs layer by layer, or in the order of a plan,
// by which a unit is computed as soon as the coordinates that it sees are there.

namespace headrace {
namespace detail {

// Room for one row; grows as it is needed.
template <class T>
struct Scratch {
    std::vector<std::vector<T>> sums, values;  // of each layer
    std::vector<T> inputs, params, row;
};

// What a context does to a layer: an activated product of its own.
template <class T>
struct Join {
    std::vector<T> weight, bias;  // (units, context), (units,)
    bool gates = false;
    Activation activation = Activation::identity;
};

template <class T>
struct Layer {
    std::vector<T> bias;
    // Row by row the columns that its mask shows, and their weights: row u has entries first[u] to first[u + 1].
    std::vector<std::size_t> first;
    std::vector<std::uint32_t> column;
    std::vector<T> weight;
    Activation activation = Activation::identity;
    int adds = -1;  // whose sums are added
    bool is_joined = false;
    Join<T> join;

    std::size_t units() const { return bias.size(); }
};

struct Hidden {
    int units = 0, adds = -1, join = -1;  // join: 0 it is added, 1 it gates
    Activation activation = Activation::relu, context_activation = Activation::identity;
};

template <class T>
class Network {
  public:
    // `columns` of the first layer are what the network reads, `context` of them the last ones; `rows` are its outputs.
    Network(Stored& stored, int columns, int context, std::uint64_t rows, Activation activation, bool has_masks)
        : columns_(columns), context_(context) {
        std::vector<Hidden> hidden;
        const bool is_described = has_masks && stored.has("network");
        if (is_described) hidden = described(stored);
        std::uint64_t width = static_cast<std::uint64_t>(columns);
        for (std::size_t l = 0; l == 0 || stored.has_tensor(prefix(l) + "weight"); ++l) {
            read_layer(stored, l, width, has_masks);
            width = layers_.back().units();
            layers_.back().activation = activation;
        }
        if (width != rows)
            stored.fail(prefix(layers_.size() - 1) + "bias: expected shape (" + std::to_string(rows) + "), got (" +
                        std::to_string(width) + ")");
        layers_.back().activation = Activation::identity;
        if (is_described) describe(stored, hidden);
    }

    int columns() const { return columns_; }
    int context() const { return context_; }
    std::vector<Layer<T>>& layers() { return layers_; }
    const std::vector<Layer<T>>& layers() const { return layers_; }
    const std::vector<T>& outputs(const Scratch<T>& s) const { return s.sums[layers_.size() - 1]; }

    // Room for a row. What is not computed yet is 0.
    void open(Scratch<T>& s) const {
        if (s.sums.size() < layers_.size()) {
            s.sums.resize(layers_.size());
            s.values.resize(layers_.size());
        }
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            s.sums[l].assign(layers_[l].units(), T(0));
            s.values[l].assign(layers_[l].units(), T(0));
        }
    }

    // s.inputs holds coordinates, then context.
    void run(Scratch<T>& s) const {
        open(s);
        for (std::size_t l = 0; l < layers_.size(); ++l)
            for (std::size_t u = 0; u < layers_[l].units(); ++u) run_unit(s, l, u);
    }

    void run_unit(Scratch<T>& s, std::size_t l, std::size_t u) const {
        const Layer<T>& layer = layers_[l];
        const T* const below = l ? s.values[l - 1].data() : s.inputs.data();
        T total = dot(layer, u, below) + layer.bias[u];
        if (layer.is_joined) {
            const T* const context = s.inputs.data() + (columns_ - context_);
            const std::size_t n = static_cast<std::size_t>(context_);
            T c = layer.join.bias[u];
            for (std::size_t k = 0; k < n; ++k) c += layer.join.weight[u * n + k] * context[k];
            c = activated(layer.join.activation, c);
            total = layer.join.gates ? total * c : total + c;
        }
        if (layer.adds >= 0) total += s.sums[static_cast<std::size_t>(layer.adds)][u];
        s.sums[l][u] = total;
        s.values[l][u] = activated(layer.activation, total);
    }

  private:
    static std::string prefix(std::size_t layer) { return "layers." + std::to_string(layer) + "."; }

    // Four sums, which do not wait for each other.
    static T dot(const Layer<T>& layer, std::size_t u, const T* below) {
        const std::size_t begin = layer.first[u], end = layer.first[u + 1];
        T sums[4] = {T(0), T(0), T(0), T(0)};
        std::size_t i = begin;
        for (; i + 4 <= end; i += 4)
            for (std::size_t k = 0; k < 4; ++k) sums[k] += layer.weight[i + k] * below[layer.column[i + k]];
        for (; i < end; ++i) sums[0] += layer.weight[i] * below[layer.column[i]];
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }

    void read_layer(Stored& stored, std::size_t l, std::uint64_t width, bool has_masks) {
        const std::uint64_t rows = stored.rows_of(prefix(l) + "weight");
        const std::vector<T> weight = stored.template array<T>(prefix(l) + "weight", {rows, width});
        Layer<T> layer;
        layer.bias = stored.template array<T>(prefix(l) + "bias", {rows});
        std::vector<bool> mask;
        if (has_masks) mask = stored.mask(prefix(l) + "mask", {rows, width});
        layer.first.push_back(0);
        for (std::uint64_t u = 0, i = 0; u < rows; ++u) {
            for (std::uint64_t c = 0; c < width; ++c, ++i) {
                if (has_masks && !mask[i]) continue;
                layer.column.push_back(static_cast<std::uint32_t>(c));
                layer.weight.push_back(weight[i]);
            }
            layer.first.push_back(layer.column.size());
        }
        layers_.push_back(std::move(layer));
    }

    static std::vector<Hidden> described(Stored& stored) {
        std::vector<Hidden> result;
        std::set<int> added;
        for (const Value& value : stored.items("network")) {
            Stored own = stored.part(value, "network[" + std::to_string(result.size()) + "]");
            Hidden hidden;
            hidden.units = own.integer(own.take("units"), "units", 1, std::numeric_limits<std::int32_t>::max());
            hidden.activation = static_cast<Activation>(own.choice("activation", activation_names()));
            if (own.has("dropout")) own.number("dropout", -1e-300, 1.0);  // which matters to a fit alone
            if (own.has("adds")) {
                hidden.adds = own.integer(own.take("adds"), "adds", 0, std::numeric_limits<std::int32_t>::max());
                const std::size_t by = static_cast<std::size_t>(hidden.adds);
                if (by >= result.size() || result[by].units != hidden.units || !added.insert(hidden.adds).second)
                    own.fail("adds: expected an earlier layer of as many units that no other one adds");
            }
            if (own.has("context")) {
                hidden.join = own.choice("context", {"add", "gate"});
                hidden.context_activation = hidden.join ? Activation::sigmoid : Activation::identity;
                if (own.has("context_activation"))
                    hidden.context_activation =
                        static_cast<Activation>(own.choice("context_activation", activation_names()));
            }
            own.close();
            result.push_back(hidden);
        }
        return result;
    }

    void describe(Stored& stored, const std::vector<Hidden>& hidden) {
        if (hidden.size() + 1 != layers_.size())
            stored.fail("network: expected " + std::to_string(layers_.size() - 1) + " layers, as the tensors have");
        for (std::size_t l = 0; l < hidden.size(); ++l) {
            Layer<T>& layer = layers_[l];
            if (static_cast<std::size_t>(hidden[l].units) != layer.units())
                stored.fail("network[" + std::to_string(l) + "]: expected " + std::to_string(layer.units()) +
                            " units, as the tensors have");
            layer.activation = hidden[l].activation;
            layer.adds = hidden[l].adds;
            if (hidden[l].join < 0) continue;
            if (context_ == 0) stored.fail("network: expected no context to join where there is none");
            layer.is_joined = true;
            layer.join.gates = hidden[l].join == 1;
            layer.join.activation = hidden[l].context_activation;
            const std::uint64_t units = layer.units(), columns = static_cast<std::uint64_t>(context_);
            layer.join.weight = stored.template array<T>(prefix(l) + "context.weight", {units, columns});
            layer.join.bias = stored.template array<T>(prefix(l) + "context.bias", {units});
        }
    }

    int columns_, context_;
    std::vector<Layer<T>> layers_;
};

}  // namespace detail
}  // namespace headrace

// ---- plan.hpp ----

// In which order a masked network is computed while the coordinates that it reads are being built: a unit's degree is
// the highest level of the coordinates that it sees, a coordinate's level is above the degrees of its parameters.

namespace headrace {
namespace detail {

class Plan {
  public:
    struct Step {
        int degree;         // a coordinate comes after the units of the degree below its level
        int layer;          // -1: a coordinate
        std::size_t index;  // of the unit in its layer, or of the coordinate
    };

    // `place`: the row of the last layer of each parameter, coordinate by coordinate.
    template <class T>
    Plan(const Stored& stored, const Network<T>& network, const std::vector<std::size_t>& place, int n_params) {
        const std::vector<Layer<T>>& layers = network.layers();
        const std::size_t n = place.size() / static_cast<std::size_t>(n_params);
        std::vector<std::size_t> coordinate(place.size());
        for (std::size_t i = 0; i < place.size(); ++i) coordinate[place[i]] = i / static_cast<std::size_t>(n_params);
        std::vector<Graph> graphs;
        for (std::size_t l = 0; l < layers.size(); ++l) graphs.emplace_back(layers[l], l ? layers[l - 1].units() : n);
        std::vector<std::vector<std::size_t>> added_by(layers.size());  // units of the layer that adds this one's
        std::vector<int> adds_to(layers.size(), -1);
        for (std::size_t l = 0; l < layers.size(); ++l) {
            if (layers[l].adds < 0) continue;
            adds_to[static_cast<std::size_t>(layers[l].adds)] = static_cast<int>(l);
            for (std::size_t& count : graphs[l].open) ++count;
        }
        std::vector<std::size_t> open(n, static_cast<std::size_t>(n_params));
        std::vector<int> level(n, 1);

        std::vector<Step> ready;  // whose degree is known, and whose followers have not been told
        const auto settle = [&](std::size_t l, std::size_t u, int degree) {
            Graph& graph = graphs[l];
            graph.degree[u] = std::max(graph.degree[u], degree);
            if (--graph.open[u] == 0) ready.push_back({graph.degree[u], static_cast<int>(l), u});
        };
        for (std::size_t l = 0; l < layers.size(); ++l)
            for (std::size_t u = 0; u < layers[l].units(); ++u)
                if (graphs[l].open[u] == 0) ready.push_back({0, static_cast<int>(l), u});
        std::size_t settled = 0;
        while (!ready.empty()) {
            const Step step = ready.back();
            ready.pop_back();
            steps_.push_back(step);
            const std::size_t l = step.layer < 0 ? 0 : static_cast<std::size_t>(step.layer) + 1;
            if (step.layer >= 0 && l == layers.size()) {  // a parameter of a coordinate
                const std::size_t c = coordinate[step.index];
                level[c] = std::max(level[c], step.degree + 1);
                if (--open[c] == 0) ready.push_back({level[c], -1, c});
                continue;
            }
            if (step.layer < 0) ++settled;
            for (std::size_t i = graphs[l].first[step.index]; i < graphs[l].first[step.index + 1]; ++i)
                settle(l, graphs[l].row[i], step.degree);
            if (step.layer >= 0 && adds_to[l - 1] >= 0)
                settle(static_cast<std::size_t>(adds_to[l - 1]), step.index, step.degree);
        }
        if (settled < n) stored.fail("masks: expected no coordinate that depends on itself");
        // Level by level: coordinates of a level, then layer by layer the units that see these at most.
        std::sort(steps_.begin(), steps_.end(), [](const Step& a, const Step& b) {
            if (a.degree != b.degree) return a.degree < b.degree;
            return a.layer != b.layer ? a.layer < b.layer : a.index < b.index;
        });
    }

    const std::vector<Step>& steps() const { return steps_; }

  private:
    // For each column of a layer the rows that see it, and for each row how many columns are not known yet.
    struct Graph {
        std::vector<std::size_t> first, open;
        std::vector<std::uint32_t> row;
        std::vector<int> degree;

        template <class T>
        Graph(const Layer<T>& layer, std::size_t columns) : first(columns + 1, 0), open(layer.units(), 0) {
            degree.assign(layer.units(), 0);
            for (const std::uint32_t c : layer.column)
                if (c < columns) ++first[c + 1];  // not of the context
            for (std::size_t c = 0; c < columns; ++c) first[c + 1] += first[c];
            row.resize(first[columns]);
            std::vector<std::size_t> next(first.begin(), first.end() - 1);
            for (std::size_t u = 0; u < layer.units(); ++u)
                for (std::size_t i = layer.first[u]; i < layer.first[u + 1]; ++i) {
                    const std::uint32_t c = layer.column[i];
                    if (c >= columns) continue;
                    row[next[c]++] = static_cast<std::uint32_t>(u);
                    ++open[u];
                }
        }
    };

    std::vector<Step> steps_;
};

}  // namespace detail
}  // namespace headrace

// ---- transform.hpp ----

// What every transform does to a row, in place and in both directions.

namespace headrace {
namespace detail {

template <class T>
class Transform {
  public:
    virtual ~Transform() = default;

    // Takes a row of T's numbers to data or to latent, and adds log |det| of that direction.
    virtual void run(bool to_data, T* row, const T* context, Scratch<T>& scratch, double& log_det) const = 0;

    // Whether it can do so in float64 before numbers are narrowed, as at the ends of a chain.
    virtual bool is_exact() const { return false; }
    virtual void run_exact(bool, std::vector<double>&, double&) const {}

    int features() const { return features_; }
    int context() const { return context_; }
    bool is_fixed() const { return is_fixed_; }  // it has no parameters, and a file of it alone no dtype

  protected:
    int features_ = 0, context_ = 0;
    bool is_fixed_ = false;
};

template <class T>
using TransformPtr = std::unique_ptr<Transform<T>>;

}  // namespace detail
}  // namespace headrace

// ---- masked.hpp ----

// Masked autoregressive transforms and couplings: maps of numbers whose parameters a network computes.

namespace headrace {
namespace detail {

template <class T>
class MaskedTransform : public Transform<T> {
  public:
    MaskedTransform(Stored& stored, bool is_coupling) {
        const int n = this->features_ = stored.size("features", 1);
        const int context = this->context_ = stored.size("context");
        const MapSettings map(stored);
        map_ = std::make_unique<MapSettings>(map);
        const Activation activation = static_cast<Activation>(stored.choice("activation", activation_names()));
        formula_to_data_ = stored.choice("formula", {"to_data", "to_latent"}) == 0;
        if (is_coupling) {
            read_sides(stored);
        } else {
            reads_data_ = stored.choice("reads", {"data", "latent"}) == 0;
            for (int c = 0; c < n; ++c) active_.push_back(c);
            reads_ = active_;
        }
        is_coupling_ = is_coupling;
        const std::uint64_t n_active = active_.size(), n_params = static_cast<std::uint64_t>(map.n_params());
        network_ = std::make_unique<Network<T>>(stored, static_cast<int>(reads_.size()) + context, context,
                                                n_active * n_params, activation, true);
        place_ = places(stored, map);
        check_staircase(stored);
        if (!is_coupling) plan_ = std::make_unique<Plan>(stored, *network_, place_, map.n_params());
    }

    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        s.inputs.resize(static_cast<std::size_t>(network_->columns()));
        std::copy(context, context + this->context_, s.inputs.begin() + static_cast<std::ptrdiff_t>(reads_.size()));
        s.params.resize(static_cast<std::size_t>(map_->n_params()));
        const bool inverse = to_data != formula_to_data_;
        if (is_coupling_ || reads_data_ != to_data) {  // the network reads what is given
            for (std::size_t i = 0; i < reads_.size(); ++i) s.inputs[i] = row[reads_[i]];
            network_->run(s);
            for (std::size_t k = 0; k < active_.size(); ++k) map_coordinate(k, inverse, row, s, log_det);
            return;
        }
        // The network reads what is built: what it sees of a coordinate that is not built yet is never asked for.
        std::fill(s.inputs.begin(), s.inputs.begin() + static_cast<std::ptrdiff_t>(reads_.size()), T(0));
        network_->open(s);
        for (const Plan::Step& step : plan_->steps()) {
            if (step.layer >= 0) {
                network_->run_unit(s, static_cast<std::size_t>(step.layer), step.index);
            } else {
                map_coordinate(step.index, inverse, row, s, log_det);
                s.inputs[step.index] = row[step.index];
            }
        }
    }

  private:
    void map_coordinate(std::size_t k, bool inverse, T* row, Scratch<T>& s, double& log_det) const {
        const std::vector<T>& outputs = network_->outputs(s);
        const std::size_t n = s.params.size();
        for (std::size_t p = 0; p < n; ++p) s.params[p] = outputs[place_[k * n + p]];
        T& value = row[active_[k]];
        value = map_->template apply<T>(s.params.data(), inverse, value, log_det);
    }

    void read_sides(Stored& stored) {
        reads_ = stored.integers("passive", 0, this->features_ - 1);
        std::vector<bool> is_passive(static_cast<std::size_t>(this->features_), false);
        for (const int c : reads_) {
            if (is_passive[static_cast<std::size_t>(c)]) stored.fail("passive: expected each coordinate once");
            is_passive[static_cast<std::size_t>(c)] = true;
        }
        for (int c = 0; c < this->features_; ++c)
            if (!is_passive[static_cast<std::size_t>(c)]) active_.push_back(c);
        if (active_.empty()) stored.fail("passive: expected a coordinate that is not");
    }

    // Which row of the last layer is parameter p of the k-th coordinate that is mapped, both in the map's own order.
    std::vector<std::size_t> places(Stored& stored, const MapSettings& map) const {
        const auto groups = map.groups();
        const std::vector<Value>& outputs = stored.items("outputs");
        const bool is_blocked = stored.choice("layout", {"interleaved", "blocked"}) == 1;
        const std::size_t n = static_cast<std::size_t>(map.n_params()), active = active_.size();
        std::vector<std::size_t> result(active * n), start(groups.size(), n);
        if (outputs.size() != groups.size()) stored.fail("outputs: expected the names of the map's parameters");
        std::size_t next = 0;
        for (const Value& output : outputs) {
            std::size_t g = 0;
            while (g < groups.size() && !(output.is(Value::Kind::text) && output.text() == groups[g].first)) ++g;
            if (g == groups.size() || start[g] != n) stored.fail("outputs: expected the names of the map's parameters");
            start[g] = next;
            next += static_cast<std::size_t>(groups[g].second);
        }
        std::size_t own = 0;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            const std::size_t size = static_cast<std::size_t>(groups[g].second);
            for (std::size_t k = 0; k < active; ++k)
                for (std::size_t i = 0; i < size; ++i)
                    result[k * n + own + i] = is_blocked ? active * start[g] + k * size + i : k * n + start[g] + i;
            own += size;
        }
        return result;
    }

    // Levels and degrees tell a reader nothing that masks do not; a file in which they say something else is broken.
    void check_staircase(Stored& stored) const {
        const Value &levels_value = stored.take("levels"), &degrees_value = stored.take("degrees");
        if (levels_value.is(Value::Kind::null) && degrees_value.is(Value::Kind::null)) return;
        const int n = this->features_;
        const std::vector<int> levels = stored.integers(levels_value, "levels", 1, n);
        const std::vector<Layer<T>>& layers = network_->layers();
        if (levels.size() != static_cast<std::size_t>(n)) stored.fail("levels: expected one for each coordinate");
        if (!degrees_value.is(Value::Kind::list) || degrees_value.items().size() != layers.size() - 1)
            stored.fail("degrees: expected a list for each hidden layer");
        std::vector<int> seen;
        for (const int c : reads_) seen.push_back(levels[static_cast<std::size_t>(c)]);
        seen.resize(seen.size() + static_cast<std::size_t>(this->context_), 0);
        for (std::size_t l = 0; l < layers.size(); ++l) {
            const bool is_last = l + 1 == layers.size();
            std::vector<int> own;
            if (is_last) {
                own.resize(place_.size());
                for (std::size_t i = 0; i < place_.size(); ++i) {
                    const std::size_t k = i / static_cast<std::size_t>(map_->n_params());
                    own[place_[i]] = levels[static_cast<std::size_t>(active_[k])] - 1;
                }
            } else {
                own = stored.integers(degrees_value.items()[l], "degrees", 0, n);
            }
            const Layer<T>& layer = layers[l];
            if (own.size() != layer.units()) stored.fail("degrees: expected one for each unit");
            for (std::size_t u = 0; u < own.size(); ++u) {
                std::size_t entry = layer.first[u];
                for (std::size_t c = 0; c < seen.size(); ++c) {
                    const bool shows = entry < layer.first[u + 1] && layer.column[entry] == c;
                    if (shows != (seen[c] <= own[u])) stored.fail("masks: expected those that levels and degrees make");
                    entry += shows;
                }
            }
            seen = std::move(own);
        }
    }

    std::unique_ptr<MapSettings> map_;
    std::unique_ptr<Network<T>> network_;
    std::unique_ptr<Plan> plan_;
    std::vector<int> reads_, active_;
    std::vector<std::size_t> place_;
    bool formula_to_data_ = true, reads_data_ = true, is_coupling_ = false;
};

}  // namespace detail
}  // namespace headrace

// ---- simple.hpp ----

// Transforms without a network: permutations, scales, products with a matrix, maps of each coordinate for itself.

namespace headrace {
namespace detail {

template <class T>
class Permutation : public Transform<T> {
  public:
    explicit Permutation(Stored& stored) {
        this->features_ = stored.size("features", 1);
        order_ = stored.permutation("order", this->features_);
        this->is_fixed_ = true;
    }
    void run(bool to_data, T* row, const T*, Scratch<T>& s, double&) const override {
        s.row.assign(row, row + order_.size());
        reorder(to_data, s.row.data(), row);
    }
    bool is_exact() const override { return true; }
    void run_exact(bool to_data, std::vector<double>& row, double&) const override {
        const std::vector<double> given = row;
        reorder(to_data, given.data(), row.data());
    }

  private:
    template <class U>
    void reorder(bool to_data, const U* from, U* to) const {
        for (std::size_t i = 0; i < order_.size(); ++i) {
            if (to_data) {
                to[i] = from[order_[i]];
            } else {
                to[order_[i]] = from[i];
            }
        }
    }
    std::vector<int> order_;
};

// Whatever T is, it subtracts in float64.
template <class T>
class Standardize : public Transform<T> {
  public:
    explicit Standardize(Stored& stored) {
        this->features_ = stored.size("features", 1);
        const std::size_t n = static_cast<std::size_t>(this->features_);
        mean_ = stored.numbers("mean", n);
        std_ = stored.numbers("std", n, true);
        for (const double scale : std_) log_det_ += std::log(scale);
        for (std::size_t c = 0; c < n; ++c) is_identity_ = is_identity_ && mean_[c] == 0.0 && std_[c] == 1.0;
        this->is_fixed_ = true;
    }
    bool is_identity() const { return is_identity_; }
    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        for (std::size_t c = 0; c < mean_.size(); ++c)
            row[c] = narrowed<T>(scaled(to_data, static_cast<double>(row[c]), c));
        log_det += to_data ? log_det_ : -log_det_;
    }
    bool is_exact() const override { return true; }
    void run_exact(bool to_data, std::vector<double>& row, double& log_det) const override {
        for (std::size_t c = 0; c < mean_.size(); ++c) row[c] = scaled(to_data, row[c], c);
        log_det += to_data ? log_det_ : -log_det_;
    }

  private:
    double scaled(bool to_data, double value, std::size_t c) const {
        return to_data ? mean_[c] + std_[c] * value : (value - mean_[c]) / std_[c];
    }
    std::vector<double> mean_, std_;
    double log_det_ = 0.0;
    bool is_identity_ = true;
};

// x = Q z, where Q is orthogonal and block diagonal.
template <class T>
class Rotation : public Transform<T> {
  public:
    explicit Rotation(Stored& stored) {
        constexpr std::int64_t most = 8192;
        this->features_ = stored.size("features", 1);
        const int n = this->features_;
        if (stored.has("matrix")) {  // files of 0.3.0 had it in their header
            if (n > most) stored.fail("features: expected at most " + std::to_string(most));
            sizes_.push_back(n);
            for (const double x : stored.numbers("matrix", static_cast<std::size_t>(n) * static_cast<std::size_t>(n)))
                numbers_.push_back(narrowed<T>(x));
        } else {
            sizes_ = stored.integers("blocks", 1, most);
            std::int64_t sum = 0, count = 0;
            for (const int size : sizes_) {
                sum += size;
                count += std::int64_t(size) * size;
            }
            if (sum != n || n > most) stored.fail("blocks: expected sizes that add up to features, at most 8192");
            numbers_ = stored.template array_of_doubles<T>("blocks", {static_cast<std::uint64_t>(count)});
        }
        check_orthogonal(stored);
        this->is_fixed_ = true;
    }
    void run(bool to_data, T* row, const T*, Scratch<T>& s, double&) const override {
        s.row.assign(row, row + this->features_);
        multiply(to_data, s.row.data(), row);
    }

  private:
    // By Q, or by its transpose.
    void multiply(bool to_data, const T* from, T* to) const {
        const T* block = numbers_.data();
        for (const int size : sizes_) {
            const std::size_t n = static_cast<std::size_t>(size);
            std::fill(to, to + n, T(0));
            for (std::size_t i = 0; i < n; ++i)
                for (std::size_t j = 0; j < n; ++j) {
                    if (to_data) {
                        to[i] += block[i * n + j] * from[j];
                    } else {
                        to[j] += block[i * n + j] * from[i];
                    }
                }
            from += n;
            to += n;
            block += n * n;
        }
    }

    // Some vectors of numbers 1 and -1 come back, each coordinate to what a matrix of 1e-6 may do to a sum of n of
    // them.
    void check_orthogonal(const Stored& stored) const {
        const std::size_t n = static_cast<std::size_t>(this->features_);
        std::vector<T> given(n), turned(n), back(n);
        std::uint32_t state = 1;
        const double most = 1e-6 * (1.0 + std::sqrt(static_cast<double>(n)));
        for (int round = 0; round < 4; ++round) {
            for (T& x : given) {
                state = state * 1664525u + 1013904223u;
                x = state >> 31 ? T(1) : T(-1);
            }
            multiply(true, given.data(), turned.data());
            multiply(false, turned.data(), back.data());
            for (std::size_t c = 0; c < n; ++c)
                if (!(std::abs(static_cast<double>(back[c] - given[c])) <= most))
                    stored.fail("blocks: expected orthogonal matrices");
        }
    }

    std::vector<int> sizes_;
    std::vector<T> numbers_;
};

// x[i] = signs[i] y[order[i]] + shift[i] with y = L E U z.
template <class T>
class Linear : public Transform<T> {
  public:
    explicit Linear(Stored& stored) {
        this->features_ = stored.size("features", 1, 8192);
        const std::uint64_t n = static_cast<std::uint64_t>(this->features_);
        order_ = stored.permutation("order", this->features_);
        signs_ = stored.integers("signs", -1, 1);
        if (signs_.size() != n) stored.fail("signs: expected " + std::to_string(n) + " values");
        for (const int sign : signs_)
            if (sign == 0) stored.fail("signs: expected 1 or -1");
        upper_ = stored.template array<T>("upper", {n, n});
        lower_ = stored.template array<T>("lower", {n, n});
        log_diagonal_ = stored.template array<T>("log_diagonal", {n});
        shift_ = stored.template array<T>("shift", {n});
        for (const T x : log_diagonal_) log_det_ += static_cast<double>(x);
    }
    void run(bool to_data, T* row, const T*, Scratch<T>& s, double& log_det) const override {
        const std::size_t n = order_.size();
        s.row.resize(n);
        T* const y = s.row.data();
        log_det += to_data ? log_det_ : -log_det_;
        if (to_data) {
            std::copy(row, row + n, y);
            for (std::size_t i = 0; i < n; ++i) {  // each reads those after it
                for (std::size_t j = i + 1; j < n; ++j) y[i] += upper_[i * n + j] * y[j];
                y[i] *= std::exp(log_diagonal_[i]);
            }
            for (std::size_t i = n; i-- > 0;)  // each reads those before it
                for (std::size_t j = 0; j < i; ++j) y[i] += lower_[i * n + j] * y[j];
            for (std::size_t i = 0; i < n; ++i) row[i] = T(signs_[i]) * y[order_[i]] + shift_[i];
            return;
        }
        for (std::size_t i = 0; i < n; ++i) y[order_[i]] = T(signs_[i]) * (row[i] - shift_[i]);
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j < i; ++j) y[i] -= lower_[i * n + j] * y[j];
        for (std::size_t i = n; i-- > 0;) {
            y[i] *= std::exp(-log_diagonal_[i]);
            for (std::size_t j = i + 1; j < n; ++j) y[i] -= upper_[i * n + j] * y[j];
        }
        std::copy(y, y + n, row);
    }

  private:
    std::vector<int> order_, signs_;
    std::vector<T> upper_, lower_, log_diagonal_, shift_;
    double log_det_ = 0.0;
};

template <class T>
class ActNorm : public Transform<T> {
  public:
    explicit ActNorm(Stored& stored) {
        this->features_ = stored.size("features", 1);
        const std::uint64_t n = static_cast<std::uint64_t>(this->features_);
        stored.truth("started");  // which matters to a fit alone
        shift_ = stored.template array<T>("shift", {n});
        log_scale_ = stored.template array<T>("log_scale", {n});
    }
    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        for (std::size_t c = 0; c < shift_.size(); ++c) {
            row[c] = to_data ? std::exp(log_scale_[c]) * row[c] + shift_[c]
                             : (row[c] - shift_[c]) * std::exp(-log_scale_[c]);
            log_det += static_cast<double>(to_data ? log_scale_[c] : -log_scale_[c]);
        }
    }

  private:
    std::vector<T> shift_, log_scale_;
};

template <class T>
class Elementwise : public Transform<T> {
  public:
    explicit Elementwise(Stored& stored) {
        this->features_ = stored.size("features", 1);
        map_ = std::make_unique<MapSettings>(stored);
        formula_to_data_ = stored.choice("formula", {"to_data", "to_latent"}) == 0;
        const std::size_t n = static_cast<std::size_t>(this->features_);
        const std::size_t n_params = static_cast<std::size_t>(map_->n_params());
        std::size_t start = 0;
        for (const auto& [name, group] : map_->groups()) {
            const std::size_t size = static_cast<std::size_t>(group);
            const std::vector<T> part = stored.template array<T>(name, {n, size});
            params_.resize(n * n_params);  // which the first tensor has confirmed, but for a factor
            for (std::size_t c = 0; c < n; ++c)
                for (std::size_t k = 0; k < size; ++k) params_[c * n_params + start + k] = part[c * size + k];
            start += size;
        }
    }
    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        const std::size_t n = static_cast<std::size_t>(this->features_), n_params = params_.size() / n;
        for (std::size_t c = 0; c < n; ++c)
            row[c] =
                map_->template apply<T>(params_.data() + c * n_params, to_data != formula_to_data_, row[c], log_det);
    }

  private:
    std::unique_ptr<MapSettings> map_;
    std::vector<T> params_;
    bool formula_to_data_ = true;
};

// Another transform with its directions exchanged.
template <class T>
class Inverse : public Transform<T> {
  public:
    explicit Inverse(TransformPtr<T> inner) : inner_(std::move(inner)) {
        this->features_ = inner_->features();
        this->context_ = inner_->context();
        this->is_fixed_ = inner_->is_fixed();
    }
    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        inner_->run(!to_data, row, context, s, log_det);
    }
    const Transform<T>* inner() const { return inner_.get(); }
    bool is_exact() const override { return inner_->is_exact(); }
    void run_exact(bool to_data, std::vector<double>& row, double& log_det) const override {
        inner_->run_exact(!to_data, row, log_det);
    }

  private:
    TransformPtr<T> inner_;
};

}  // namespace detail
}  // namespace headrace

// ---- support.hpp ----

// From unbounded numbers to those that a column may have, always in float64: near a bound only the distance counts.

namespace headrace {
namespace detail {

enum class SupportKind { any, lower, upper, interval, circle };

// Into [0, 1); what is too large for digits behind the point is whole. NaN where it is not finite.
inline double circle_turns(double t) {
    if (!(std::abs(t) < 4611686018427387904.0)) return t - t;
    t -= std::trunc(t);
    if (t < 0.0) t += 1.0;
    return t < 1.0 ? t : 0.0;
}

class SupportColumn {
  public:
    SupportColumn() = default;
    SupportColumn(SupportKind kind, double low, double high) : kind_(kind), low_(low), high_(high) {}

    bool is_identity() const { return kind_ == SupportKind::any; }

    // lower + e^y, upper - e^-y, lower + width / (1 + e^-y), or y around the circle.
    double to_data(double y, double& log_det) const {
        const double width = high_ - low_, e = std::exp(-std::abs(y));
        switch (kind_) {
            case SupportKind::any: break;
            case SupportKind::lower: log_det += y; return low_ + std::exp(y);
            case SupportKind::upper: log_det -= y; return high_ - std::exp(-y);
            case SupportKind::interval: {
                const double near = width * (e / (1.0 + e));  // the distance to the nearer bound
                log_det += std::log(width) - std::abs(y) - 2.0 * std::log1p(e);
                return y < 0.0 ? low_ + near : high_ - near;
            }
            case SupportKind::circle:
                log_det += std::log(0.5 * width);
                return low_ + width * circle_turns(0.5 * (y + 1.0));
        }
        return y;
    }
    // NaN beyond a bound, an infinity on it.
    double to_latent(double x, double& log_det) const {
        const double below = x - low_, above = high_ - x, width = high_ - low_;
        switch (kind_) {
            case SupportKind::any: break;
            case SupportKind::lower: log_det -= std::log(below); return std::log(below);
            case SupportKind::upper: log_det -= std::log(above); return -std::log(above);
            case SupportKind::interval:
                log_det += std::log(width) - std::log(below) - std::log(above);
                return std::log(below) - std::log(above);
            case SupportKind::circle: log_det += std::log(2.0 / width); return 2.0 * circle_turns(below / width) - 1.0;
        }
        return x;
    }

    // Whether a number lies on a bound or beyond, where a bound is what it is among the numbers of In.
    template <class In>
    bool is_outside(double x) const {
        const bool has_low = kind_ == SupportKind::lower || kind_ == SupportKind::interval;
        const bool has_high = kind_ == SupportKind::upper || kind_ == SupportKind::interval;
        return (has_low && x <= static_cast<double>(narrowed<In>(low_))) ||
               (has_high && x >= static_cast<double>(narrowed<In>(high_)));
    }

    // What is handed out: a number that rounds to a bound or beyond becomes the nearest one inside. A circle has its
    // lower end too. Where no number of Out lies inside, it is the one nearest to the middle.
    template <class Out>
    Out inside(double x) const {
        const Out value = narrowed<Out>(x);
        const bool is_circle = kind_ == SupportKind::circle;
        constexpr Out most = std::numeric_limits<Out>::max();
        Out least = -most, last = most;
        if (kind_ == SupportKind::lower || kind_ == SupportKind::interval || is_circle)
            least = above<Out>(low_, is_circle);
        if (kind_ == SupportKind::upper || kind_ == SupportKind::interval || is_circle)
            last = -above<Out>(-high_, false);
        if (!(least <= last)) least = last = narrowed<Out>(low_ / 2.0 + high_ / 2.0);
        return value < least ? least : value > last ? last : value;  // NaN stays
    }

  private:
    template <class Out>
    static Out above(double low, bool itself) {
        const Out nearest = narrowed<Out>(low);
        if (itself && static_cast<double>(nearest) >= low) return nearest;
        return std::nextafter(nearest, std::numeric_limits<Out>::infinity());
    }

    SupportKind kind_ = SupportKind::any;
    double low_ = 0.0, high_ = 0.0;
};

template <class T>
class Support : public Transform<T> {
  public:
    explicit Support(Stored& stored) {
        this->features_ = stored.size("features", 1);
        this->is_fixed_ = true;
        const std::size_t n = static_cast<std::size_t>(this->features_);
        const std::vector<Value>& bounds = stored.items("bounds");
        if (bounds.size() != n) stored.fail("bounds: expected one for each of the features");
        for (const Value& pair : bounds) columns_.push_back(column(stored, pair, "bounds"));
        if (!stored.has("periodic")) return;
        const std::vector<Value>& periods = stored.items("periodic");
        if (periods.size() != n) stored.fail("periodic: expected one for each of the features");
        for (std::size_t c = 0; c < n; ++c) {
            const SupportColumn period = column(stored, periods[c], "periodic");
            if (period.is_identity()) continue;
            if (!columns_[c].is_identity()) stored.fail("periodic: expected null for a column that has bounds");
            columns_[c] = period;
        }
    }

    void run(bool to_data, T* row, const T*, Scratch<T>&, double& log_det) const override {
        for (std::size_t c = 0; c < columns_.size(); ++c)
            row[c] = narrowed<T>(moved(to_data, c, static_cast<double>(row[c]), log_det));
    }
    bool is_exact() const override { return true; }
    void run_exact(bool to_data, std::vector<double>& row, double& log_det) const override {
        for (std::size_t c = 0; c < columns_.size(); ++c) row[c] = moved(to_data, c, row[c], log_det);
    }

    bool is_identity() const {
        return std::all_of(columns_.begin(), columns_.end(), [](const SupportColumn& c) { return c.is_identity(); });
    }

    // Whether a row of In's numbers has one on a bound or beyond; such numbers become NaN.
    template <class In>
    bool marks_outside(std::vector<double>& row) const {
        bool found = false;
        for (std::size_t c = 0; c < columns_.size(); ++c) {
            if (!columns_[c].template is_outside<In>(row[c])) continue;
            row[c] = std::numeric_limits<double>::quiet_NaN();
            found = true;
        }
        return found;
    }

    template <class Out>
    Out inside(double x, std::size_t c) const {
        return columns_[c].template inside<Out>(x);
    }

  private:
    static SupportColumn column(const Stored& stored, const Value& pair, const std::string& key) {
        if (pair.is(Value::Kind::null)) return {};
        if (!pair.is(Value::Kind::list) || pair.items().size() != 2)
            stored.fail(key + ": expected null or [low, high]");
        const Value &low = pair.items()[0], &high = pair.items()[1];
        for (const Value* end : {&low, &high})
            if (!end->is(Value::Kind::null) && !end->is_number()) stored.fail(key + ": expected numbers or null");
        const bool has_low = low.is_number(), has_high = high.is_number();
        const double from = has_low ? low.number() : 0.0, to = has_high ? high.number() : 0.0;
        if (has_low && has_high && !(from < to && std::isfinite(to - from)))
            stored.fail(key + ": expected low below high, and a width that is a number");
        if (!has_low && !has_high) return {};
        if (key == "periodic" && !(has_low && has_high)) stored.fail(key + ": expected both ends of a period");
        if (key == "periodic") return {SupportKind::circle, from, to};
        if (has_low && has_high) return {SupportKind::interval, from, to};
        if (has_low) return {SupportKind::lower, from, 0.0};
        return {SupportKind::upper, 0.0, to};
    }

    double moved(bool to_data, std::size_t c, double value, double& log_det) const {
        if (!to_data) return columns_[c].to_latent(value, log_det);
        const double result = columns_[c].to_data(value, log_det);
        const T narrow = narrowed<T>(result);
        log_det += static_cast<double>(narrow - narrow);  // what overflows T spoils the row
        return result;
    }

    std::vector<SupportColumn> columns_;
};

}  // namespace detail
}  // namespace headrace

// ---- tails.hpp ----

// Base densities whose columns are of kinds of their own, or of Student's t; and mixtures of normal densities.

namespace headrace {
namespace detail {

// log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(df pi) / 2. With x = df / 2 it is r(x) - log(2 pi) / 2, where r has
// an asymptotic series in 1 / x; smaller x are shifted by Gamma(x + 1) = x Gamma(x), so that nothing cancels.
inline double student_constant(double df) {
    const double x = 0.5 * df;
    double shifted = x, product = 1.0;
    while (shifted < 16.0) {
        product *= shifted / (shifted + 0.5);
        shifted += 1.0;
    }
    const double t = 1.0 / shifted, square = t * t;
    double series = 0.0;
    for (const double a :
         {-5461.0 / 425984, 691.0 / 180224, -31.0 / 18432, 17.0 / 14336, -1.0 / 640, 1.0 / 192, -1.0 / 8})
        series = series * square + a;
    return series * t + std::log(product) + 0.5 * std::log(shifted / x) - half_log_two_pi;
}

// log(1 + a^2) without overflow.
inline double log_of_one_and_square(double a) {
    return a > 1e100 ? 2.0 * std::log(a) : std::log1p(a * a);
}

enum class ColumnKind { normal, logistic, uniform, student };

// Uniform, Independent and StudentT: independent columns, none of which is shifted or scaled.
template <class T>
class ColumnsBase : public Base<T> {
  public:
    ColumnsBase(Stored& stored, ColumnKind kind) : Base<T>(stored), kinds_(this->columns(), kind) {
        if (kind == ColumnKind::student) read_student(stored);
    }
    // Of columns that the file names.
    explicit ColumnsBase(Stored& stored) : Base<T>(stored) {
        const std::vector<Value>& names = stored.items("densities");
        if (names.size() != this->columns()) stored.fail("densities: expected one for each of the features");
        for (const Value& name : names)
            kinds_.push_back(
                static_cast<ColumnKind>(stored.choice(name, "densities", {"normal", "logistic", "uniform"})));
    }

    double log_prob(const double* z) const override {
        double sum = 0.0;
        for (std::size_t c = 0; c < this->columns(); ++c) {
            switch (kinds_[c]) {
                case ColumnKind::normal: sum += normal_log_density(z[c]); break;
                case ColumnKind::logistic: sum += logistic_log_density(z[c]); break;
                case ColumnKind::uniform:  // an edge is what it is in T
                    sum += std::abs(narrowed<T>(z[c])) > T(1) ? -std::numeric_limits<double>::infinity()
                                                              : z[c] * 0.0 - log_two;
                    break;
                case ColumnKind::student: {  // what overflows T is infinitely unlikely
                    const T a = narrowed<T>(std::abs(z[c]) * inverse_root_[c]);
                    sum += constant_[c] - log_of_one_and_square(static_cast<double>(a)) * 0.5 * (df_[c] + 1.0);
                }
            }
        }
        return sum;
    }

    void draw(std::uint64_t seed, std::uint64_t row, T* z) const override {
        for (std::size_t c = 0; c < this->columns(); c += 4) {
            const std::uint32_t block = static_cast<std::uint32_t>(c / 4);
            const Drawn<T> first = drawn<T>(seed, row, block), own = drawn_beside<T>(seed, row, block),
                           more = drawn_beside<T>(seed, row, block, true);
            for (std::size_t k = 0; k < 4 && c + k < this->columns(); ++k) {
                switch (kinds_[c + k]) {
                    case ColumnKind::normal: z[c + k] = first.normal(k); break;
                    case ColumnKind::logistic: z[c + k] = own.logistic(k); break;
                    case ColumnKind::uniform: z[c + k] = own.number(k) * T(2) - T(1); break;
                    case ColumnKind::student: z[c + k] = student(own.number(k), more.number(k), c + k);
                }
            }
        }
    }

  private:
    void read_student(Stored& stored) {
        if (stored.truth("trainable")) {
            for (const T x : stored.template array<T>("log_df", {static_cast<std::uint64_t>(this->columns())}))
                df_.push_back(std::exp(static_cast<double>(x)));
        } else {
            df_ = stored.numbers("df", this->columns(), true);
        }
        for (const double df : df_) {
            constant_.push_back(student_constant(df));
            inverse_root_.push_back(1.0 / std::sqrt(df));
        }
    }

    // As Box-Muller has the normal (Bailey 1994): sqrt(df (u^(-2 / df) - 1)) cos 2 pi v.
    T student(T u, T v, std::size_t c) const {
        const T root = narrowed<T>(inverse_root_[c]), e = std::log(u) * (T(-2) * root * root);
        T cosine, sine;
        cos_sin_of_turns(v, cosine, sine);
        return std::exp(e * T(0.5)) * std::sqrt(-std::expm1(-e)) * cosine / root;
    }

    std::vector<ColumnKind> kinds_;
    std::vector<double> df_, constant_, inverse_root_;  // of Student's t
};

// NormalMixture: a row is of one component, whose coordinates are independent.
template <class T>
class MixtureBase : public Base<T> {
  public:
    explicit MixtureBase(Stored& stored) : Base<T>(stored) {
        const std::size_t d = this->columns();
        const std::size_t k =
            static_cast<std::size_t>(stored.integer(stored.take("components"), "components", 1, 4096));
        std::vector<double> logits, log_scale;
        if (stored.truth("trainable")) {
            const std::uint64_t rows = k, columns = d;
            for (const T x : stored.template array<T>("logits", {rows})) logits.push_back(static_cast<double>(x));
            for (const T x : stored.template array<T>("loc", {rows, columns})) loc_.push_back(static_cast<double>(x));
            for (const T x : stored.template array<T>("log_scale", {rows, columns}))
                log_scale.push_back(static_cast<double>(x));
        } else {
            double sum = 0.0;
            for (const double w : stored.numbers("weights", k)) {
                if (!(w >= 0.0)) stored.fail("weights: expected numbers of at least 0");
                logits.push_back(std::log(w));
                sum += w;
            }
            if (!(sum > 0.0 && std::isfinite(sum))) stored.fail("weights: expected a positive, finite sum");
            loc_ = stored.table("loc", k, d);
            for (const double x : stored.table("scale", k, d, true)) log_scale.push_back(std::log(x));
        }
        prepare(logits, log_scale);
    }

    double log_prob(const double* z) const override {
        const std::size_t d = this->columns();
        double top = -std::numeric_limits<double>::infinity(), sum = 0.0;
        for (std::size_t k = 0; k < weight_.size(); ++k) {
            if (!(weight_[k] > T(0))) continue;
            double squares = 0.0;
            for (std::size_t c = 0; c < d; ++c) {
                const double u = (z[c] - loc_[k * d + c]) * inverse_scale_[k * d + c];
                squares += u * u;
            }
            const double term = constant_[k] - 0.5 * squares;
            if (term > top) {
                sum = sum * std::exp(top - term) + 1.0;
                top = term;
            } else if (std::isfinite(top)) {  // else this one is as unlikely as all before
                sum += std::exp(term - top);
            }
        }
        return std::isfinite(top) ? top + std::log(sum) : top;
    }

    void draw(std::uint64_t seed, std::uint64_t row, T* z) const override {
        const std::size_t d = this->columns();
        const T u = drawn_beside<T>(seed, row, 0).number(0);
        std::size_t own = 0;  // the last one that the weights before it stay below u
        T before = T(0);
        for (std::size_t k = 0; k < weight_.size(); ++k) {
            if (!(weight_[k] > T(0))) continue;
            if (u > before) own = k;
            before += weight_[k];
        }
        for (std::size_t c = 0; c < d; c += 4) {
            const Drawn<T> numbers = drawn<T>(seed, row, static_cast<std::uint32_t>(c / 4));
            for (std::size_t i = 0; i < 4 && c + i < d; ++i) {
                const std::size_t at = own * d + c + i;
                z[c + i] = narrowed<T>(static_cast<double>(numbers.normal(i)) / inverse_scale_[at] + loc_[at]);
            }
        }
    }

  private:
    void prepare(const std::vector<double>& logits, const std::vector<double>& log_scale) {
        const std::size_t d = this->columns();
        const double most = *std::max_element(logits.begin(), logits.end());
        double sum = 0.0;
        for (const double logit : logits) sum += std::exp(logit - most);
        for (std::size_t k = 0; k < logits.size(); ++k) {
            const double log_weight = logits[k] - most - std::log(sum);
            double constant = log_weight - half_log_two_pi * static_cast<double>(d);
            for (std::size_t c = 0; c < d; ++c) constant -= log_scale[k * d + c];
            constant_.push_back(constant);
            weight_.push_back(narrowed<T>(std::exp(log_weight)));
        }
        for (const double x : log_scale) inverse_scale_.push_back(std::exp(-x));
    }

    std::vector<T> weight_;
    std::vector<double> constant_, loc_, inverse_scale_;
};

template <class T>
std::unique_ptr<Base<T>> read_base(Stored& stored) {
    std::unique_ptr<Base<T>> result;
    switch (stored.choice(
        "kind", {"StandardNormal", "Logistic", "Normal", "Uniform", "Independent", "StudentT", "NormalMixture"})) {
        case 0: result = std::make_unique<StandardBase<T>>(stored, false, false); break;
        case 1: result = std::make_unique<StandardBase<T>>(stored, true, false); break;
        case 2: result = std::make_unique<StandardBase<T>>(stored, false, true); break;
        case 3: result = std::make_unique<ColumnsBase<T>>(stored, ColumnKind::uniform); break;
        case 4: result = std::make_unique<ColumnsBase<T>>(stored); break;
        case 5: result = std::make_unique<ColumnsBase<T>>(stored, ColumnKind::student); break;
        default: result = std::make_unique<MixtureBase<T>>(stored);
    }
    stored.close();
    return result;
}

}  // namespace detail
}  // namespace headrace

// ---- vector.hpp ----

// Planar and radial transforms: maps of all coordinates at once, which they move along by one amount.

namespace headrace {
namespace detail {

// h of the planar map, its slope and 1 - slope, without cancellation.
template <class T>
struct Bend {
    T value, slope, rest;
};

template <class T>
Bend<T> tanh_bend(T v) {
    constexpr T far = sizeof(T) == 4 ? T(40) : T(350);  // beyond, the slope is at its limit
    const T size = std::abs(v), value = std::tanh(v), c = T(1) / std::cosh(size > far ? far : size);
    return {value, c * c, value * value};
}

// v with v + (s - 1) tanh v = y, by Halley's method, kept between bounds by bisection. Ends where the residual is at
// its rounding.
template <class T>
T solved_tanh(T y, T s) {
    const T rounding = std::numeric_limits<T>::epsilon() * T(2), target = std::abs(y), excess = s - T(1);
    const T by_slope = target / s, by_limit = target - excess;
    T low = excess >= T(0) ? std::max(by_slope, by_limit) : target;
    T high = excess >= T(0) ? target : std::min(by_slope, by_limit);
    T v = excess >= T(0) ? low : high;
    for (int round = 0; round < 60; ++round) {
        const Bend<T> h = tanh_bend(v);
        const T part = excess * h.value, residual = (v - target) + part;
        if (!(std::abs(residual) > (v + std::abs(part)) * rounding)) break;  // NaN ends it too
        (residual > T(0) ? high : low) = v;
        const T slope = excess * h.slope + T(1), newton = residual / slope;
        const T next = v - residual / (slope + newton * excess * h.value * h.slope);
        v = next >= low && next <= high ? next : (low + high) * T(0.5);
    }
    return std::copysign(v, y);
}

// x = z + u h(w z + b), where u is made from the raw one so that s = 1 + w u is positive(w u).
template <class T>
class PlanarMap {
  public:
    PlanarMap(Stored& stored) {
        is_tanh_ = stored.choice("nonlinearity", {"tanh", "leaky_relu"}) == 0;
        slope_ = static_cast<T>(stored.number("negative_slope", 0.0, 1.0));
    }
    static std::vector<std::pair<std::string, int>> groups(int features) {
        return {{"w", features}, {"u", features}, {"b", 1}};
    }
    static int n_ready(int features) { return 2 * features + 2; }

    // w is divided by its largest magnitude, so that nothing under- or overflows; w = 0 leaves u as it is. What
    // rounding leaves of u along w is taken away too, as w u may not differ from s - 1.
    template <class V>
    static void prepare(const V* p, int features, V* ready) {
        const std::size_t n = static_cast<std::size_t>(features);
        const V *const w = p, *const u = p + n;
        V largest = V(0);
        for (std::size_t c = 0; c < n; ++c) largest = std::max(largest, std::abs(w[c]));
        int exponent = 0;
        std::frexp(largest, &exponent);
        const auto scaled = [&](std::size_t c) { return std::ldexp(w[c], -exponent); };
        V square = V(0), along = V(0);
        for (std::size_t c = 0; c < n; ++c) {
            square += scaled(c) * scaled(c);
            along += scaled(c) * u[c];
        }
        if (!(square > V(0))) square = V(1);
        const V x = std::ldexp(along, exponent);
        const Positive<V> s = positive(x);
        const V gain = std::abs(x) > std::numeric_limits<V>::min() ? s.excess / x : V(positive_slope);
        const V part = along / square;
        V rest = V(0);
        for (std::size_t c = 0; c < n; ++c) rest += scaled(c) * (u[c] - scaled(c) * part);
        const V factor = (gain * along - rest) / square;
        for (std::size_t c = 0; c < n; ++c) {
            ready[c] = w[c];
            ready[n + c] = scaled(c) * factor + (u[c] - scaled(c) * part);
        }
        ready[2 * n] = p[2 * n];
        ready[2 * n + 1] = s.value;
    }

    void apply(const T* ready, int features, bool inverse, T* row, double& log_det) const {
        const std::size_t n = static_cast<std::size_t>(features);
        const T s = ready[2 * n + 1];
        T sum = ready[2 * n];
        for (std::size_t c = 0; c < n; ++c) sum += row[c] * ready[c];
        Bend<T> h{};
        if (is_tanh_) {
            h = tanh_bend(inverse ? solved_tanh(sum, s) : sum);
        } else {
            if (inverse) sum /= sum > T(0) ? s : (s - T(1)) * slope_ + T(1);
            const T slope = sum > T(0) ? T(1) : slope_;
            h = {sum * slope, slope, T(1) - slope};
        }
        const double log_factor = static_cast<double>(std::log(s * h.slope + h.rest));
        log_det += inverse ? -log_factor : log_factor;
        const T amount = inverse ? -h.value : h.value;
        for (std::size_t c = 0; c < n; ++c) row[c] += ready[n + c] * amount;
    }

  private:
    bool is_tanh_ = true;
    T slope_ = T(0);
};

// x = z + beta (z - center) / (alpha + r), r = |z - center|, with alpha and alpha + beta positive.
template <class T>
class RadialMap {
  public:
    explicit RadialMap(Stored&) {}
    static std::vector<std::pair<std::string, int>> groups(int features) {
        return {{"center", features}, {"alpha", 1}, {"beta", 1}};
    }
    static int n_ready(int features) { return features + 2; }

    template <class V>
    static void prepare(const V* p, int features, V* ready) {
        const std::size_t n = static_cast<std::size_t>(features);
        std::copy(p, p + n, ready);
        for (std::size_t k = n; k < n + 2; ++k) ready[k] = positive(p[k]).value;
    }

    void apply(const T* ready, int features, bool inverse, T* row, double& log_det) const {
        const std::size_t n = static_cast<std::size_t>(features);
        const T alpha = ready[n], end = ready[n + 1];
        constexpr T farthest = sizeof(T) == 4 ? T(1e18) : T(1e150);  // its square is finite
        T square = T(0);
        for (std::size_t c = 0; c < n; ++c) square += (row[c] - ready[c]) * (row[c] - ready[c]);
        T r = std::sqrt(square);
        if (r > farthest) r = farthest;  // there the map moves nothing that shows
        T amount;
        if (inverse) {  // r (end + r) / (alpha + r) is the distance of x
            const T b = r - end, root = std::sqrt(b * b + alpha * r * T(4));
            r = b > T(0) ? (b + root) * T(0.5) : alpha * r * T(2) / (root - b);
            amount = (alpha - end) / (end + r);
        } else {
            amount = (end - alpha) / (alpha + r);
        }
        const T inverse_reach = T(1) / (alpha + r);
        const T across = (end + r) * inverse_reach;
        const T outward = (r * (alpha * T(2) + r) + alpha * end) * inverse_reach * inverse_reach;
        const double log_factor = static_cast<double>(features - 1) * static_cast<double>(std::log(across)) +
                                  static_cast<double>(std::log(outward));
        log_det += inverse ? -log_factor : log_factor;
        for (std::size_t c = 0; c < n; ++c) row[c] += (row[c] - ready[c]) * amount;
    }
};

// Either of them: with one set of parameters, made ready in float64, or with those of a network of the context.
template <class T, class Map>
class VectorTransform : public Transform<T> {
  public:
    explicit VectorTransform(Stored& stored) {
        this->features_ = stored.size("features", 1);
        this->context_ = stored.size("context");
        const Activation activation = static_cast<Activation>(stored.choice("activation", activation_names()));
        map_ = std::make_unique<Map>(stored);
        std::uint64_t n = 0;
        for (const auto& group : Map::groups(this->features_)) n += static_cast<std::uint64_t>(group.second);
        ready_.resize(static_cast<std::size_t>(Map::n_ready(this->features_)));
        if (this->context_) {
            network_ = std::make_unique<Network<T>>(stored, this->context_, this->context_, n, activation, false);
            return;
        }
        std::vector<double> raw, ready(ready_.size());
        for (const auto& [name, size] : Map::groups(this->features_)) {
            const std::vector<double> part = stored.template array<double>(name, {static_cast<std::uint64_t>(size)});
            raw.insert(raw.end(), part.begin(), part.end());
        }
        Map::prepare(raw.data(), this->features_, ready.data());
        for (std::size_t k = 0; k < ready.size(); ++k) ready_[k] = narrowed<T>(ready[k]);
    }

    void run(bool to_data, T* row, const T* context, Scratch<T>& s, double& log_det) const override {
        const T* ready = ready_.data();
        if (network_) {
            s.inputs.assign(context, context + this->context_);
            network_->run(s);
            s.params.resize(ready_.size());
            Map::prepare(network_->outputs(s).data(), this->features_, s.params.data());
            ready = s.params.data();
        }
        map_->apply(ready, this->features_, !to_data, row, log_det);
    }

  private:
    std::unique_ptr<Map> map_;
    std::vector<T> ready_;
    std::unique_ptr<Network<T>> network_;
};

}  // namespace detail
}  // namespace headrace

// ---- flow.hpp ----

// What users see: a flow or a single transform, read from a file.

namespace headrace {
namespace detail {

template <class T>
TransformPtr<T> read_transform(Stored& stored) {
    const int kind =
        stored.choice("kind", {"MaskedAutoregressive", "Coupling", "Elementwise", "Linear", "ActNorm", "Planar",
                               "Radial", "Rotation", "Permutation", "Standardize", "Support", "Inverse"});
    TransformPtr<T> result;
    switch (kind) {
        case 0: result = std::make_unique<MaskedTransform<T>>(stored, false); break;
        case 1: result = std::make_unique<MaskedTransform<T>>(stored, true); break;
        case 2: result = std::make_unique<Elementwise<T>>(stored); break;
        case 3: result = std::make_unique<Linear<T>>(stored); break;
        case 4: result = std::make_unique<ActNorm<T>>(stored); break;
        case 5: result = std::make_unique<VectorTransform<T, PlanarMap<T>>>(stored); break;
        case 6: result = std::make_unique<VectorTransform<T, RadialMap<T>>>(stored); break;
        case 7: result = std::make_unique<Rotation<T>>(stored); break;
        case 8: result = std::make_unique<Permutation<T>>(stored); break;
        case 9: result = std::make_unique<Standardize<T>>(stored); break;
        case 10: result = std::make_unique<Support<T>>(stored); break;
        default: {
            Stored inner = stored.part(stored.take("transform"), "transform");
            result = std::make_unique<Inverse<T>>(read_transform<T>(inner));
        }
    }
    stored.close();
    return result;
}

inline const std::set<std::string>& kinds_of_flows() {
    static const std::set<std::string> kinds{"Flow", "MAF",        "IAF",        "RealNVP",
                                             "NSF",  "PlanarFlow", "RadialFlow", "AscentFlow"};
    return kinds;
}

// What lies under pairs of inversions; null where one more is left.
template <class T>
const Transform<T>* upright(const Transform<T>* one) {
    bool is_flipped = false;
    while (const Inverse<T>* const inverse = dynamic_cast<const Inverse<T>*>(one)) {
        one = inverse->inner();
        is_flipped = !is_flipped;
    }
    return is_flipped ? nullptr : one;
}

}  // namespace detail

// A density, log p(x) = log base(z) + log |det dz/dx|, or one transform between z and x. It computes in T, float or
// double, whatever the file's dtype is. Files that are no good throw FileFormatError, wrong arguments
// std::invalid_argument. Nothing changes after it is made: any number of threads may use it at once.
//
// Rows are features() numbers one after another, in float or double (In), and so are results (Out). `context` holds
// context() numbers a row, `context_rows` rows: as many as there are rows, or 1 for all; it is null where context() is
// 0. A row that is not finite, or that overflows on its way, becomes NaN, and no other row changes. A finite row on a
// bound of a column or beyond has a log density of -infinity, and its latent is NaN.
template <class T>
class Flow {
  public:
    static Flow load(const std::string& path) {
        try {
            return Flow(detail::container_of_file(path));
        } catch (const FileFormatError& error) {
            throw FileFormatError(path + ": " + error.what());
        }
    }
    // The contents of a file, which are copied.
    static Flow from_bytes(const void* data, std::size_t size) { return Flow(detail::container_of_bytes(data, size)); }

    int features() const { return features_; }
    int context() const { return context_; }
    // Whether it is a flow, not a transform alone: then it has log_prob and sample.
    bool has_density() const { return base_ != nullptr || is_ensemble(); }
    // Whether it is several flows as one density: then it has log_prob and sample, and no latent space.
    bool is_ensemble() const { return !members_.empty(); }

    // Log densities, in nats.
    template <class In, class Out>
    void log_prob(const In* x, std::size_t rows, Out* out, const In* context = nullptr,
                  std::size_t context_rows = 0) const {
        if (is_ensemble()) {
            mixed_log_prob(x, rows, out, context, context_rows);
            return;
        }
        check_density();
        const Context<In> given = checked(context, context_rows, rows);
        Work work;
        for (std::size_t r = 0; r < rows; ++r) {
            load_row(work, x + r * columns());
            run<In>(work, false, given, r);
            const double infinite = -std::numeric_limits<double>::infinity();
            const double value = work.is_outside ? infinite
                                 : work.is_bad   ? nan()
                                                 : base_->log_prob(work.row.data()) + work.log_det;
            out[r] = detail::narrowed<Out>(value);
        }
    }

    // Data to latent; log |det dz/dx| of each row goes to `log_det`, which may be null.
    template <class In, class Out>
    void to_latent(const In* x, std::size_t rows, Out* z, Out* log_det, const In* context = nullptr,
                   std::size_t context_rows = 0) const {
        transform(false, x, rows, z, log_det, context, context_rows);
    }

    // Latent to data; log |det dx/dz| of each row goes to `log_det`, which may be null.
    template <class In, class Out>
    void to_data(const In* z, std::size_t rows, Out* x, Out* log_det, const In* context = nullptr,
                 std::size_t context_rows = 0) const {
        transform(true, z, rows, x, log_det, context, context_rows);
    }

    // Rows first_row to first_row + rows - 1 of the endless sample of a seed, and their log densities, which may be
    // null. The numbers are those of headrace's `sample` with this seed, to rounding.
    template <class Out, class In = double>
    void sample(std::size_t rows, std::uint64_t seed, Out* x, Out* log_prob = nullptr, const In* context = nullptr,
                std::size_t context_rows = 0, std::uint64_t first_row = 0) const {
        check_density();
        const Context<In> given = checked(context, context_rows, rows);
        if (is_ensemble()) {
            mixed_sample(rows, seed, x, log_prob, given, first_row);
            return;
        }
        Work work;
        std::vector<T> z(columns());
        for (std::size_t r = 0; r < rows; ++r) {
            const double density = draw(work, z, seed, first_row + r, given, r);
            store_row(work, x + r * columns());
            if (log_prob) log_prob[r] = detail::narrowed<Out>(density);
        }
    }

    // The same with vectors, in double.
    std::vector<double> log_prob(const std::vector<double>& x, const std::vector<double>& context = {}) const {
        std::vector<double> out(rows_of(x));
        log_prob(x.data(), out.size(), out.data(), context.data(), context_rows_of(context));
        return out;
    }
    std::vector<double> to_latent(const std::vector<double>& x, const std::vector<double>& context = {}) const {
        std::vector<double> z(x.size());
        to_latent(x.data(), rows_of(x), z.data(), static_cast<double*>(nullptr), context.data(),
                  context_rows_of(context));
        return z;
    }
    std::vector<double> to_data(const std::vector<double>& z, const std::vector<double>& context = {}) const {
        std::vector<double> x(z.size());
        to_data(z.data(), rows_of(z), x.data(), static_cast<double*>(nullptr), context.data(),
                context_rows_of(context));
        return x;
    }
    std::vector<double> sample(std::size_t rows, std::uint64_t seed, const std::vector<double>& context = {}) const {
        std::vector<double> x(rows * columns());
        sample(rows, seed, x.data(), static_cast<double*>(nullptr), context.data(), context_rows_of(context));
        return x;
    }

  private:
    // Of one call, for one row at a time.
    struct Work {
        std::vector<double> row;
        std::vector<T> state, context;
        detail::Scratch<T> scratch;
        double log_det = 0.0;
        bool is_bad = false, is_outside = false, is_at_data = false;
    };
    template <class In>
    struct Context {
        const In* data;
        std::size_t stride;
    };

    explicit Flow(detail::Container file) {
        using detail::Value;
        detail::Stored stored(file.header(), file, "", "");
        for (const char* key : {"format", "version"}) stored.take(key);
        const Value& dtype = stored.take("dtype");
        if (!dtype.is(Value::Kind::null)) stored.choice(dtype, "dtype", {"float32", "float64"});
        if (!stored.has("kind")) stored.fail("expected the key 'kind'");
        const Value& kind = file.header().entries().at("kind");
        const bool is_flow = kind.is(Value::Kind::text) && detail::kinds_of_flows().count(kind.text()) > 0;
        const bool is_mixture = kind.is(Value::Kind::text) && kind.text() == "Ensemble";
        if (is_flow) {
            read_flow(stored);
        } else if (is_mixture) {
            read_members(stored);
        } else {
            chain_.push_back(detail::read_transform<T>(stored));
            features_ = chain_[0]->features();
            context_ = chain_[0]->context();
        }
        for (const auto& [name, tensor] : file.tensors())
            if (!tensor.is_taken) stored.fail("expected no tensor " + detail::shown(name));
        if (dtype.is(Value::Kind::null) != (!is_flow && !is_mixture && chain_[0]->is_fixed()))
            stored.fail("dtype: expected null for a transform without parameters, and for nothing else");
        order_exact();
    }

    Flow() = default;  // a member to be

    void read_members(detail::Stored& stored) {
        stored.take("kind");
        features_ = stored.size("features", 1);
        context_ = stored.size("context");
        const std::vector<detail::Value>& headers = stored.items("members");
        if (headers.empty()) stored.fail("members: expected at least one");
        const std::vector<double> weights = stored.numbers("weights", headers.size());
        const double largest = *std::max_element(weights.begin(), weights.end());
        double sum = 0.0;
        for (const double w : weights) {
            if (!(w >= 0.0 && largest > 0.0)) stored.fail("weights: expected numbers of at least 0, not all 0");
            sum += w / largest;
        }
        for (std::size_t i = 0; i < headers.size(); ++i) {
            const std::string number = std::to_string(i);
            detail::Stored own = stored.part(headers[i], "members[" + number + "]", "members." + number + ".");
            const std::set<std::string>& known = detail::kinds_of_flows();
            if (!own.has("kind")) own.fail("expected the key 'kind'");
            const detail::Value& kind = headers[i].entries().at("kind");
            if (!kind.is(detail::Value::Kind::text) || !known.count(kind.text())) own.fail("kind: expected a flow");
            Flow member;
            member.read_flow(own);
            member.order_exact();
            if (member.features_ != features_ || member.context_ != context_)
                own.fail("expected as many features and context columns as the ensemble has");
            members_.push_back(std::move(member));
            const double weight = weights[i] / largest / sum;
            log_weights_.push_back(std::log(weight));
            edges_.push_back(weight + (i ? edges_.back() : 0.0));
        }
        stored.close();
    }

    // log of the weighted sum of the members' densities.
    template <class In, class Out>
    void mixed_log_prob(const In* x, std::size_t rows, Out* out, const In* context, std::size_t context_rows) const {
        std::vector<double> terms(members_.size() * rows);
        for (std::size_t i = 0; i < members_.size(); ++i)
            members_[i].log_prob(x, rows, terms.data() + i * rows, context, context_rows);
        for (std::size_t r = 0; r < rows; ++r) {
            double top = -std::numeric_limits<double>::infinity(), sum = 0.0;
            for (std::size_t i = 0; i < members_.size(); ++i) {
                const double term = terms[i * rows + r] + log_weights_[i];
                if (!(term <= top)) top = term;
                if (std::isnan(term)) break;
            }
            for (std::size_t i = 0; i < members_.size() && std::isfinite(top); ++i)
                sum += std::exp(terms[i * rows + r] + log_weights_[i] - top);
            out[r] = detail::narrowed<Out>(std::isfinite(top) ? top + std::log(sum) : top);
        }
    }

    // Each row is the member's own of this seed and number, from a member that is drawn for it.
    template <class Out, class In>
    void mixed_sample(std::size_t rows, std::uint64_t seed, Out* x, Out* log_prob, const Context<In>& context,
                      std::uint64_t first_row) const {
        detail::Generator generator({seed, 0x656E73656D626C65u});
        generator.skip(first_row);
        std::size_t last = 0;  // sums round, and no member of weight 0 is drawn
        for (std::size_t i = 0; i < members_.size(); ++i)
            if (std::isfinite(log_weights_[i])) last = i;
        Work work;
        std::vector<T> z(columns());
        for (std::size_t r = 0; r < rows; ++r) {
            const auto edge = std::upper_bound(edges_.begin(), edges_.end(), generator.uniform());
            const std::size_t chosen = std::min(static_cast<std::size_t>(edge - edges_.begin()), last);
            members_[chosen].draw(work, z, seed, first_row + r, context, r);
            Out* const row = x + r * columns();
            members_[chosen].store_row(work, row);
            if (log_prob) {
                const In* const own = context_ ? context.data + r * context.stride : nullptr;
                mixed_log_prob(row, 1, log_prob + r, own, context_ ? 1 : 0);
            }
        }
    }

    void read_flow(detail::Stored& stored) {
        const bool is_ascent = stored.take("kind").text() == "AscentFlow";
        features_ = stored.size("features", 1);
        context_ = stored.size("context");
        detail::Stored base = stored.part(stored.take("base"), "base", "base.");
        base_ = detail::read_base<T>(base);
        if (base_->features() != features_) stored.fail("features: expected as many as the base has");
        int context = 0;
        std::size_t i = 0;
        for (const detail::Value& header : stored.items("transforms")) {
            const std::string number = std::to_string(i++);
            detail::Stored own = stored.part(header, "transforms[" + number + "]", "transforms." + number + ".");
            chain_.push_back(detail::read_transform<T>(own));
            if (chain_.back()->features() != features_) own.fail("expected as many features as the base has");
            if (const int c = chain_.back()->context()) {
                if (context && c != context) own.fail("context: expected one number of columns in all transforms");
                context = c;
            }
        }
        if (context != context_) stored.fail("context: expected as many columns as the transforms have");
        read_context_scale(stored);
        if (is_ascent) read_steps(stored);
        stored.close();
    }

    // They end before a Standardize, which may be followed by a Support.
    void read_steps(detail::Stored& stored) const {
        std::int64_t end = static_cast<std::int64_t>(chain_.size());
        for (const int n : stored.integers("steps", 0, 1 << 24)) end -= n;
        const auto at = [&](std::size_t i) { return i < chain_.size() ? chain_[i].get() : nullptr; };
        const std::size_t n = chain_.size(), has_support = dynamic_cast<const detail::Support<T>*>(at(n - 1)) ? 1 : 0;
        const bool has_scale = dynamic_cast<const detail::Standardize<T>*>(at(n - 1 - has_support)) != nullptr;
        if (end != static_cast<std::int64_t>(1 + has_support) || !has_scale)
            stored.fail("steps: expected numbers that add up to those of the transforms, and a Standardize after");
    }

    void read_context_scale(detail::Stored& stored) {
        const detail::Value& value = stored.take("standardize_context");
        if (value.is(detail::Value::Kind::null)) return;
        if (!context_) stored.fail("standardize_context: expected null where there is no context");
        detail::Stored scale = stored.part(value, "standardize_context");
        context_mean_ = scale.numbers("mean", static_cast<std::size_t>(context_));
        context_std_ = scale.numbers("std", static_cast<std::size_t>(context_), true);
        scale.close();
    }

    // At both ends of the chain there may be transforms that are done in float64.
    void order_exact() {
        while (latent_end_ < chain_.size() && chain_[latent_end_]->is_exact()) ++latent_end_;
        data_end_ = chain_.size();
        while (data_end_ > latent_end_ && chain_[data_end_ - 1]->is_exact()) --data_end_;
        support_ = support_at_end(true);
        last_ = support_at_end(false);
    }

    // The Support that rows come to first; but for what does nothing, and for permutations if these are to be passed.
    const detail::Support<T>* support_at_end(bool passes_permutations) const {
        for (std::size_t i = chain_.size(); i-- > 0;) {
            const detail::Transform<T>* inner = chain_[i].get();
            while (const auto* const inverse = dynamic_cast<const detail::Inverse<T>*>(inner)) inner = inverse->inner();
            if (const auto* const support = dynamic_cast<const detail::Support<T>*>(inner)) {
                if (!support->is_identity()) return detail::upright(chain_[i].get()) ? support : nullptr;
            } else if (const auto* const scale = dynamic_cast<const detail::Standardize<T>*>(inner)) {
                if (!scale->is_identity()) return nullptr;
            } else if (!passes_permutations || !dynamic_cast<const detail::Permutation<T>*>(inner)) {
                return nullptr;
            }
        }
        return nullptr;
    }

    static double nan() { return std::numeric_limits<double>::quiet_NaN(); }
    std::size_t columns() const { return static_cast<std::size_t>(features_); }

    void check_density() const {
        if (!has_density())
            throw std::invalid_argument("expected a flow for a density or a sample, got a transform alone");
    }
    std::size_t rows_of(const std::vector<double>& values) const {
        if (values.size() % columns())
            throw std::invalid_argument("expected rows of " + std::to_string(features_) + " numbers, got " +
                                        std::to_string(values.size()) + " numbers in all");
        return values.size() / columns();
    }
    std::size_t context_rows_of(const std::vector<double>& context) const {
        const std::size_t c = static_cast<std::size_t>(context_);
        if (c ? context.size() % c : context.size())
            throw std::invalid_argument("context: expected rows of " + std::to_string(context_) + " numbers, got " +
                                        std::to_string(context.size()) + " numbers in all");
        return c ? context.size() / c : 0;
    }
    template <class In>
    Context<In> checked(const In* context, std::size_t context_rows, std::size_t rows) const {
        const std::size_t c = static_cast<std::size_t>(context_);
        if (!c && context_rows) throw std::invalid_argument("context: expected none");
        if (c && context_rows != 1 && context_rows != rows)
            throw std::invalid_argument("context: expected 1 row or " + std::to_string(rows) + ", got " +
                                        std::to_string(context_rows));
        return {context, context_rows == 1 ? 0 : c};
    }

    template <class In>
    void load_row(Work& work, const In* row) const {
        work.row.resize(columns());
        for (std::size_t c = 0; c < columns(); ++c) work.row[c] = static_cast<double>(row[c]);
    }
    template <class Out>
    void store_row(const Work& work, Out* out) const {
        for (std::size_t c = 0; c < columns(); ++c) {
            const double value = work.is_bad ? nan() : work.row[c];
            out[c] = work.is_at_data && last_ ? last_->template inside<Out>(value, c) : detail::narrowed<Out>(value);
        }
    }

    template <class In, class Out>
    void transform(bool to_data, const In* given, std::size_t rows, Out* out, Out* log_det, const In* context,
                   std::size_t context_rows) const {
        if (is_ensemble()) throw std::invalid_argument("expected a flow, got an ensemble, which has no latent space");
        const Context<In> its = checked(context, context_rows, rows);
        Work work;
        for (std::size_t r = 0; r < rows; ++r) {
            load_row(work, given + r * columns());
            run<In>(work, to_data, its, r);
            store_row(work, out + r * columns());
            if (log_det) log_det[r] = detail::narrowed<Out>(work.is_bad ? nan() : work.log_det);
        }
    }

    // A row of the sample into work.row; gives its log density.
    template <class In>
    double draw(Work& work, std::vector<T>& z, std::uint64_t seed, std::uint64_t row, const Context<In>& context,
                std::size_t r) const {
        base_->draw(seed, row, z.data());
        load_row(work, z.data());
        const double density = base_->log_prob(work.row.data());
        run<T>(work, true, context, r);
        return work.is_bad ? nan() : density - work.log_det;
    }

    // work.row, numbers of In once, through the chain.
    template <class In, class C>
    void run(Work& work, bool to_data, const Context<C>& context, std::size_t r) const {
        work.log_det = 0.0;
        work.is_bad = work.is_outside = false;
        work.is_at_data = to_data;
        const std::size_t n = chain_.size();
        if (to_data) {
            for (std::size_t i = 0; i < latent_end_; ++i) chain_[i]->run_exact(true, work.row, work.log_det);
        } else {
            bool is_finite = true;
            for (const double x : work.row) is_finite = is_finite && std::isfinite(x);
            for (std::size_t i = n; i-- > data_end_;) {
                if (support_ && detail::upright(chain_[i].get()) == support_)
                    work.is_outside = support_->template marks_outside<In>(work.row) && is_finite;
                chain_[i]->run_exact(false, work.row, work.log_det);
            }
        }
        work.context.resize(static_cast<std::size_t>(context_));
        for (std::size_t c = 0; c < work.context.size(); ++c) {
            double value = static_cast<double>(context.data[r * context.stride + c]);
            if (!std::isfinite(value)) work.is_outside = false;
            if (!context_mean_.empty()) value = (value - context_mean_[c]) / context_std_[c];
            work.context[c] = detail::narrowed<T>(value);
            if (!std::isfinite(work.context[c])) work.is_bad = true;
        }
        work.state.resize(columns());
        for (std::size_t c = 0; c < columns(); ++c) work.state[c] = detail::narrowed<T>(work.row[c]);
        check_finite(work);
        if (work.is_bad) return;
        for (std::size_t i = latent_end_; i < data_end_; ++i) {
            const std::size_t index = to_data ? i : latent_end_ + (data_end_ - 1 - i);
            chain_[index]->run(to_data, work.state.data(), work.context.data(), work.scratch, work.log_det);
        }
        check_finite(work);
        if (work.is_bad) return;
        for (std::size_t c = 0; c < columns(); ++c) work.row[c] = static_cast<double>(work.state[c]);
        if (to_data) {
            for (std::size_t i = data_end_; i < n; ++i) chain_[i]->run_exact(true, work.row, work.log_det);
        } else {
            for (std::size_t i = latent_end_; i-- > 0;) chain_[i]->run_exact(false, work.row, work.log_det);
        }
        if (!std::isfinite(work.log_det)) work.is_bad = true;
    }
    static void check_finite(Work& work) {
        for (const T x : work.state)
            if (!std::isfinite(x)) work.is_bad = true;
        if (!std::isfinite(work.log_det)) work.is_bad = true;
    }

    int features_ = 0, context_ = 0;
    std::unique_ptr<detail::Base<T>> base_;
    std::vector<detail::TransformPtr<T>> chain_;  // from latent to data
    std::size_t latent_end_ = 0, data_end_ = 0;   // chain_[i] in between are done in T
    std::vector<double> context_mean_, context_std_;
    const detail::Support<T>* support_ = nullptr;  // at the data's side: rows beyond it have no density,
    const detail::Support<T>* last_ = nullptr;     // and none that comes out lies there
    std::vector<Flow> members_;
    std::vector<double> log_weights_, edges_;  // edges_: sums of weights
};

}  // namespace headrace
