#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "../../runtime/parts/generator.hpp"
#include "compiled_file.hpp"

namespace headrace {
namespace {

constexpr uint64_t stream_of_ensembles = 0x656E73656D626C65u;  // the constant of python/headrace/_fit/ensemble.py

// log(exp(x) + exp(y)), rounded as by NumPy's logaddexp.
double log_of_sum(double x, double y) {
    if (x == y) return x + 0.693147180559945309417232121458176568;
    const double difference = x - y;
    if (difference > 0) return x + std::log1p(std::exp(-difference));
    if (difference <= 0) return y + std::log1p(std::exp(difference));
    return difference;
}

}  // namespace

// The arrays of a call, checked, and its request to a program.
template <class T>
struct Model<T>::Call {
    Request<T> request;
    Result<T> value, per_row;

    // Arguments ending in _name are names of arrays in headrace.h; `value` has a column for each feature of the model.
    Call(const Facts& facts, const Arguments& given, int64_t rows, const char* input_name, const char* value_name,
         const char* per_row_name)
        : value(value_name, given.value, rows, facts.features), per_row(per_row_name, given.per_row, rows, 1) {
        request.rows = rows;
        if (given.rows) {
            input_ = opened(input_name, *given.rows);
            request.input = &input_;
        }
        value.check_apart(per_row);
        open_context(facts, given);
        keep_apart(given.rows, input_name, given.context, value, per_row);
    }

    // Requires that results which overlap an input are written only after the input was read.
    template <class... Results>
    static void keep_apart(const headrace_input* rows, const char* name, const headrace_input* context,
                           Results&... results) {
        if (rows) (results.keep_apart(*rows, extent_of(name, *rows)), ...);
        if (context) (results.keep_apart(*context, extent_of("context", *context)), ...);
    }

    void finish() const {
        value.finish();
        per_row.finish();
    }

  private:
    void open_context(const Facts& facts, const Arguments& given) {
        require(given.context || facts.context == 0, HEADRACE_BAD_CONTEXT, "context: expected ", facts.context,
                " columns, got NULL");
        require(!given.context || facts.context > 0, HEADRACE_BAD_CONTEXT,
                "context: expected NULL, because the model takes none");
        if (!given.context) return;
        check_array("context", *given.context, facts.context, HEADRACE_BAD_CONTEXT);
        require(given.context->rows == 1 || given.context->rows == request.rows, HEADRACE_BAD_CONTEXT,
                "context: expected 1 row or ", request.rows, ", got ", given.context->rows);
        context_ = opened("context", *given.context);
        request.one_context_row = given.context->rows == 1;
        if (request.one_context_row) context_.row_stride = 0;
        request.context = &context_;
    }

    ArrayView input_{}, context_{};
};

namespace {

const headrace_input& rows_of(const char* name, const Facts& facts, const Arguments& given) {
    if (!given.rows) throw Failure(HEADRACE_BAD_ARGUMENT, std::string(name) + ": expected rows, got NULL");
    check_array(name, *given.rows, facts.features, HEADRACE_BAD_ARGUMENT);
    return *given.rows;
}

}  // namespace

template <class T>
Model<T>::Model(detail::Container& file) {
    auto read = detail::read_file<T>(file, Lower<T>());
    facts_ = {read.features, read.context, !read.flows.empty(), read.is_ensemble};
    if (read.flows.empty()) {
        members_.push_back(
            {compiled<T>(read.features, read.context, Base::none, std::move(read.alone[0]), 0, {}, read.bf16_kind),
             Base::none, 1.0});
        return;
    }
    const std::vector<double> shares = read.is_ensemble ? detail::shares(read.weights) : std::vector<double>{1.0};
    for (size_t i = 0; i < read.flows.size(); ++i) {
        const Base standard = standard_of(read.flows[i].base);
        members_.push_back({compiled_flow<T>(read.flows[i], read.bf16_kind),
                            standard == Base::density ? Base::none : standard, shares[i]});
    }
    if (!read.is_ensemble) return;
    for (const Base base : {Base::normal, Base::logistic})
        noise_[base == Base::logistic] = compiled<T>(read.features, 0, base, {}, 0, {}, 0);
}

template <class T>
void Model<T>::check_density() const {
    require(facts_.has_density, HEADRACE_NO_SUCH_VERB,
            "flow: expected a density, got a transform alone, which has none");
}

template <class T>
void Model<T>::log_prob(const Arguments& given) const {
    check_density();
    const headrace_input& x = rows_of("x", facts_, given);
    require(given.per_row != nullptr, HEADRACE_BAD_ARGUMENT, "log_prob: expected memory, got NULL");
    Call call(facts_, given, x.rows, "x", "value", "log_prob");
    call.request.inverse = true;
    T* const out = call.per_row.values();
    if (facts_.is_ensemble) {
        mixed_log_prob(call.request, out);
    } else {
        call.request.log_prob = out;
        program().run(call.request);
    }
    call.finish();
}

template <class T>
void Model<T>::sample(const Arguments& given) const {
    check_density();
    if (!given.value) throw Failure(HEADRACE_BAD_ARGUMENT, "x: expected memory, got NULL");
    check_array("x", *given.value, facts_.features, HEADRACE_BAD_ARGUMENT);
    const int64_t rows = given.value->rows, first = given.first_row;
    require(first >= HEADRACE_FROM_START && (first < 0 || first <= INT64_MAX - rows), HEADRACE_BAD_ARGUMENT,
            "first_row: expected HEADRACE_FROM_START, or at least 0 and at most 2^63 - 1 with the rows, got ", first);
    Call call(facts_, given, rows, "", "x", "log_prob");
    call.request.seed = given.seed;
    call.request.first_row = std::max<int64_t>(first, 0);
    call.request.tiles_only = first >= 0;
    if (facts_.is_ensemble) {
        mixed_sample(call, given);
        return;
    }
    if (sizeof(T) == sizeof(float) && call.value.is_double()) {
        call.request.wide_value = call.value.wide_values();
    } else {
        call.request.value = call.value.values();
    }
    call.request.log_prob = call.per_row.values();
    program().run(call.request);
    call.finish();
}

template <class T>
void Model<T>::transform(bool inverse, const Arguments& given) const {
    require(!facts_.is_ensemble, HEADRACE_NO_SUCH_VERB, "flow: expected one flow, got an ensemble: no latent space");
    const char* const names[2][2] = {{"z", "x"}, {"x", "z"}};
    const headrace_input& rows = rows_of(names[inverse][0], facts_, given);
    Call call(facts_, given, rows.rows, names[inverse][0], names[inverse][1], "log_det");
    call.request.inverse = inverse;
    call.request.with_base = false;
    if (sizeof(T) == sizeof(float) && call.value.is_double() && !inverse) {
        call.request.wide_value = call.value.wide_values();
    } else {
        call.request.value = call.value.values();
    }
    call.request.log_det = call.per_row.values();
    program().run(call.request);
    call.finish();
}

template <class T>
void Model<T>::gradient(const Arguments& given) const {
    check_density();
    require(!facts_.is_ensemble, HEADRACE_NO_SUCH_VERB, "flow: expected one flow, got an ensemble: no gradient");
    const headrace_input& x = rows_of("x", facts_, given);
    require(facts_.context > 0 || !given.by_context, HEADRACE_BAD_CONTEXT,
            "by_context: expected NULL, because the model takes no context");
    Call call(facts_, given, x.rows, "x", "by_x", "log_prob");
    Result<T> by_context("by_context", given.by_context, x.rows, facts_.context);
    by_context.check_apart(call.value);
    by_context.check_apart(call.per_row);
    Call::keep_apart(&x, "x", given.context, by_context);
    call.request.inverse = true;
    call.request.log_prob = call.per_row.values();
    GradientRequest<T> asked{};
    asked.from.of_log_prob = true;
    asked.from.row_scale = 1.0;
    asked.input = call.value.values();
    asked.context = by_context.values();
    if (x.rows > 0) program().run_gradient(call.request, asked, program().snapshot());
    call.finish();
    by_context.finish();
}

// ---- ensembles

template <class T>
void Model<T>::mixed_log_prob(const Request<T>& asked, T* log_prob) const {
    const size_t n = size_t(asked.rows);
    std::vector<T> own(n);
    std::vector<double> sum;
    for (const Member& member : members_) {
        if (!(member.weight > 0)) continue;
        Request<T> request = asked;
        request.log_prob = own.data();
        member.program->run(request);
        const double share = std::log(member.weight);
        const bool is_first = sum.empty();
        if (is_first) sum.resize(n);
        for (size_t r = 0; r < n; ++r) {
            const double term = double(own[r]) + share;
            sum[r] = is_first ? term : log_of_sum(sum[r], term);
        }
    }
    for (size_t r = 0; r < n; ++r) log_prob[r] = T(sum[r]);
}

template <class T>
std::vector<size_t> Model<T>::chosen(const Request<T>& asked) const {
    std::vector<double> edges;
    size_t last = 0;  // index of the last member with a positive weight, because sums of weights are rounded, and
                      // members of weight 0 must not be chosen
    for (size_t i = 0; i < members_.size(); ++i) {
        edges.push_back(members_[i].weight + (i ? edges.back() : 0.0));
        if (members_[i].weight > 0) last = i;
    }
    detail::Generator generator({asked.seed, stream_of_ensembles});
    generator.skip(uint64_t(asked.first_row));
    std::vector<size_t> member;
    for (int64_t r = 0; r < asked.rows; ++r) {
        const auto edge = std::upper_bound(edges.begin(), edges.end(), generator.uniform());
        member.push_back(std::min(size_t(edge - edges.begin()), last));
    }
    return member;
}

// Row i is row i of the sample of a member for the seed; the member is chosen at random for each row.
template <class T>
template <class Number>
void Model<T>::mixed_rows(const Request<T>& asked, Number* rows) const {
    const size_t d = size_t(facts_.features);
    const std::vector<size_t> member_of = chosen(asked);
    std::vector<T> noise[2];
    for (size_t i = 0; i < members_.size(); ++i) {
        const Member& member = members_[i];
        std::vector<int64_t> places;
        for (size_t r = 0; r < member_of.size(); ++r)
            if (member_of[r] == i) places.push_back(int64_t(r));
        if (places.empty()) continue;
        const size_t own = places.size();
        for (size_t k = 0; places.size() < size_t(small_batch); ++k) places.push_back(places[k]);
        Request<T> request = asked;
        std::vector<Number> drawn;
        ArrayView input{}, context{};
        const bool takes_noise = member.noise != Base::none;
        if (takes_noise) {
            std::vector<T>& values = noise[member.noise == Base::logistic];
            if (values.empty()) {
                Request<T> source = asked;
                source.context = nullptr;
                source.one_context_row = false;
                values.resize(member_of.size() * d);
                source.value = values.data();
                noise_[member.noise == Base::logistic]->run(source);
            }
            input = {reinterpret_cast<const char*>(values.data()), int64_t(d * sizeof(T)), sizeof(T),
                     sizeof(T) == sizeof(double), places.data()};
            request.input = &input;
            request.rows = int64_t(places.size());
            request.tiles_only = false;
            if (asked.context && !asked.one_context_row) {
                context = *asked.context;
                context.rows = places.data();
                request.context = &context;
            }
        }
        drawn.resize(size_t(request.rows) * d);
        if constexpr (sizeof(Number) == sizeof(T)) {
            request.value = drawn.data();
        } else {
            request.wide_value = drawn.data();
        }
        member.program->run(request);
        for (size_t k = 0; k < own; ++k) {
            const size_t from = takes_noise ? k : size_t(places[k]);
            std::copy_n(drawn.data() + from * d, d, rows + size_t(places[k]) * d);
        }
    }
}

template <class T>
void Model<T>::mixed_sample(Call& call, const Arguments& given) const {
    ArrayView rows{};
    const int64_t d = facts_.features;
    const auto draw = [&]<class Number>(Number* out) {
        mixed_rows(call.request, out);
        rows = {reinterpret_cast<const char*>(out), d * int64_t(sizeof(Number)), sizeof(Number),
                sizeof(Number) == sizeof(double), nullptr};
    };
    if (sizeof(T) == sizeof(float) && call.value.is_double()) {
        draw(call.value.wide_values());
    } else {
        draw(call.value.values());
    }
    if (given.per_row) {
        Request<T> request = call.request;
        request.inverse = true;
        request.tiles_only = false;  // so that densities have the bits of a call of log_prob
        request.input = &rows;
        mixed_log_prob(request, call.per_row.values());
    }
    call.finish();
}

template class Model<float>;
template class Model<double>;

}  // namespace headrace
