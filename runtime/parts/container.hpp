// The container of a model: a safetensors file. The header of a container is checked before later bytes are read, so
// that sizes agree with the file, and all bytes are compared with a checksum.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>

#include "json.hpp"

namespace headrace {
namespace detail {

constexpr std::uint64_t most_header = std::uint64_t(1) << 24;  // in bytes
constexpr std::int64_t newest_format = 3, format_of_three_axes = 3;

enum class Dtype { f32, f64, boolean };

struct Tensor {
    Dtype dtype = Dtype::f32;
    std::vector<std::uint64_t> shape;   // at most two axes, and in files of sequences three
    std::uint64_t begin = 0, size = 0;  // in bytes
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

// CRC-32, as in zlib.
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

// The largest number of transforms and other parts in a file of `size` bytes.
inline std::size_t most_objects(std::uint64_t size) {
    return 4096 + static_cast<std::size_t>(size / 512);
}

class Container {
  public:
    // Reads a file by `read(p, n)`, which must read exactly the next n bytes, or throw an exception.
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
    // Reads the JSON of the container, and headrace's header in it; returns the checksum.
    std::string read_entries(const std::string& text) {
        const Value own = JsonReader(text, "no safetensors file: header", 64 + text.size() / 16).read();
        if (!own.is(Value::Kind::object)) refuse("no safetensors file: expected an object as its header");
        std::string checksum;
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
        const std::size_t most_axes = format() < format_of_three_axes ? 2 : 3;
        for (const auto& [name, entry] : own.entries()) {
            if (name == "__metadata__") continue;
            tensors_.emplace(name, tensor(name, entry, most_axes));
        }
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
            throw NewerFormatError("file format " + std::to_string(number.integer) +
                                   ": this version of headrace reads formats up to " + std::to_string(newest_format) +
                                   "; take a newer one");
        if (!version.is(Value::Kind::text)) refuse("version: expected text");
    }

    static std::uint64_t size_of(const Value& value, const std::string& place) {
        if (!value.is(Value::Kind::integer) || value.integer < 0) refuse(place + ": expected sizes");
        return static_cast<std::uint64_t>(value.integer);
    }

    static Tensor tensor(const std::string& full_name, const Value& entry, std::size_t most_axes) {
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
        if (!shape.is(Value::Kind::list) || shape.items().size() > most_axes)
            refuse(name + ": shape: expected a list of at most " + std::to_string(most_axes) + " sizes");
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

    // Checks that tensors fill the rest of the file without gaps and overlaps.
    void check_places(std::uint64_t available) const {
        std::vector<std::pair<std::pair<std::uint64_t, std::uint64_t>, const std::string*>> places;
        places.reserve(tensors_.size());
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
        for (const auto& [name, t] : tensors_) {  // in ascending order of names
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
    const bool is_folder = size > 0 && stream.peek() == std::ifstream::traits_type::eof();
    if (!stream || size < 0 || is_folder) throw std::runtime_error("expected a regular file");
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
