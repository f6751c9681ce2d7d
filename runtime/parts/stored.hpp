// Reading of an object from its header and its tensors: each key and each tensor is taken once, remaining ones are an
// error, and a size in a header is not trusted until a tensor confirms it.
#pragma once

#include <cmath>
#include <limits>
#include <set>

#include "container.hpp"

namespace headrace {
namespace detail {

constexpr std::int64_t most_features = 1 << 17;  // limit of features, and of context columns

// A value in a narrower format. Values out of range become an infinity, for which a plain cast would be undefined
// behaviour.
template <class Out>
Out narrowed(double value) {
    constexpr double most = static_cast<double>(std::numeric_limits<Out>::max());
    if (value > most) {  // values that round to the largest finite value are in range
        const double step = most * static_cast<double>(std::numeric_limits<Out>::epsilon()) / 4;
        return value - most < step ? std::numeric_limits<Out>::max() : std::numeric_limits<Out>::infinity();
    }
    if (value < -most) return -narrowed<Out>(-value);
    return static_cast<Out>(value);
}

// Throws an error for an object in the file at `place`; empty: the outermost object.
[[noreturn]] inline void refuse_at(const std::string& place, const std::string& message) {
    refuse(place.empty() ? message : place + ": " + message);
}

class Stored {
  public:
    Stored(const Value& object, Container& file, std::string prefix, std::string place)
        : file_(&file), object_(object), prefix_(std::move(prefix)), place_(std::move(place)) {
        if (!object_.is(Value::Kind::object)) fail(std::string("expected an object, got ") + object_.name());
    }

    [[noreturn]] void fail(const std::string& message) const { refuse_at(place_, message); }

    const std::string& place() const { return place_; }

    bool has(const std::string& key) const { return object_.entries().count(key) > 0; }

    const Value& take(const std::string& key) {
        const auto found = object_.entries().find(key);
        if (found == object_.entries().end() || !taken_.insert(key).second) fail("expected the key '" + key + "'");
        return found->second;
    }

    // Refuses keys that were not read, because they may change the meaning of others.
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
    // The index of a text among options.
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

    // Reads `rows` lists of `columns` values each, one after another.
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

    // An object inside this object, whose names of tensors have an additional prefix.
    Stored part(const Value& value, const std::string& key, const std::string& prefix = "") const {
        Stored part(value, *file_, prefix_ + prefix, place_.empty() ? key : place_ + ": " + key);
        part.products_are_exact_ = products_are_exact_;
        return part;
    }

    bool has_tensor(const std::string& name) const { return file_->tensors().count(prefix_ + name) > 0; }

    // The number of rows of a tensor, which confirms a size, below 2^31.
    std::uint64_t rows_of(const std::string& name) const {
        const auto found = file_->tensors().find(prefix_ + name);
        if (found == file_->tensors().end() || found->second.shape.empty() ||
            found->second.shape[0] > std::uint64_t(std::numeric_limits<std::int32_t>::max()))
            fail("expected a tensor '" + prefix_ + name + "' of less than 2^31 rows");
        return found->second.shape[0];
    }

    // Reads a tensor of the given shape and of the file's dtype, and converts it to T. Values must be finite, also in
    // T.
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

    // Makes products of networks exact from now on, even if the file has rounded products, because sequences round only
    // those of causal networks.
    void keep_products_exact() { products_are_exact_ = true; }
    // The kind of rounding, from 1 on, where products of networks are of values rounded to bf16, otherwise 0; and the
    // number of parts.
    int bf16_kind() const {
        if (products_are_exact_) return 0;
        const auto& entries = file_->header().entries();
        const auto found = entries.find("matmul");
        return found == entries.end() ? 0 : 1 + choice(found->second, "matmul", matmul_names());
    }
    int bf16_parts() const {
        const int kind = bf16_kind();
        return kind > 0 ? (kind - 1) % 3 + 1 : 0;
    }
    static const std::vector<std::string>& matmul_names() {
        static const std::vector<std::string> names{"bf16",       "bf16x3",       "bf16x6",
                                                    "bf16_tiles", "bf16x3_tiles", "bf16x6_tiles"};
        return names;
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
    bool products_are_exact_ = false;
};

}  // namespace detail
}  // namespace headrace
