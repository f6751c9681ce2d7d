// A strict reader of JSON for untrusted files: it refuses deep nesting, very long numbers, NaN, repeated keys,
// comments, and text that is not UTF-8. The length of the text limits lists, objects and strings, so that memory is at
// most about forty times that length.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <locale>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace headrace {

// The error for a file that is broken, not a file of headrace, or from a newer version; its message has the reason.
class FileFormatError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// The error for a file in a format that only newer versions read.
class NewerFormatError : public FileFormatError {
  public:
    using FileFormatError::FileFormatError;
};

namespace detail {

[[noreturn]] inline void refuse(const std::string& message) {
    throw FileFormatError(message);
}

// Whether from_chars of the standard library reads floating-point numbers, as in LLVM's library since version 20.
template <class Number, class = void>
struct HasFromChars : std::false_type {};
template <class Number>
struct HasFromChars<Number,
                    std::void_t<decltype(std::from_chars(static_cast<const char*>(nullptr),
                                                         static_cast<const char*>(nullptr), std::declval<Number&>()))>>
    : std::true_type {};

// Reads a number of JSON, in any locale of the program; returns false where double does not hold it.
template <class Number, bool by_from_chars = HasFromChars<Number>::value>
bool read_real(const char* begin, const char* end, Number& value) {
    if constexpr (by_from_chars) {
        return std::from_chars(begin, end, value).ec == std::errc();
    } else {
        std::istringstream stream(std::string(begin, end));
        stream.imbue(std::locale::classic());
        stream >> value;
        // LLVM's library reports a failure for subnormal numbers, but stores them.
        const bool is_subnormal = value != 0 && std::abs(value) < std::numeric_limits<Number>::min();
        if (!stream && !is_subnormal) return false;
        const auto is_digit = [](char c) { return '1' <= c && c <= '9'; };
        const char* const exponent = std::find_if(begin, end, [](char c) { return c == 'e' || c == 'E'; });
        return value != 0 || std::none_of(begin, exponent, is_digit);  // false where a number other than 0 was too
                                                                       // small and became 0
    }
}

// Text of a file for quotation in a message: short, and without control characters, which affect a terminal.
inline std::string shown(const std::string& text) {
    std::string result;
    for (const char c : text.substr(0, 40)) result += c >= ' ' && c <= '~' ? c : '?';
    return "'" + result + (text.size() > 40 ? "...'" : "'");
}

constexpr int most_depth = 64;  // largest depth of brackets

struct Content;

struct Value {
    enum class Kind : unsigned char { null, boolean, integer, real, text, list, object };
    Kind kind = Kind::null;
    union {
        bool truth;
        std::int64_t integer = 0;
        double real;
    };
    std::shared_ptr<const Content> content;  // contents of texts, lists and objects

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

// Whether text is UTF-8: with shortest forms only, without surrogates, and without characters above U+10FFFF.
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
        // A real number, read in any locale; integers are read here only where 64 bits do not hold them.
        value.kind = Value::Kind::real;
        if (!read_real(begin, p_, value.real)) fail("expected finite numbers that double holds");
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
                if (code >= 0xD800 && code < 0xDC00) {  // the first of two codes for one character
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
