// The public interface: a flow or a single transform, read from a file.
#pragma once

#include "generator.hpp"
#include "masked.hpp"
#include "simple.hpp"
#include "support.hpp"
#include "tails.hpp"
#include "vector.hpp"

namespace headrace {
namespace detail {

template <class T>
TransformPtr<T> read_transform(Stored& stored) {
    const int kind = stored.choice(
        "kind", {"MaskedAutoregressive", "Coupling", "Elementwise", "Linear", "ActNorm", "Planar", "Radial", "Rotation",
                 "Permutation", "Standardize", "Support", "Gaussianize", "OnColumns", "Inverse"});
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
        case 11: result = std::make_unique<Gaussianize<T>>(stored); break;
        case 12: {
            const int features = stored.size("features", 1);
            std::vector<int> columns = stored.integers("columns", 0, features - 1);
            Stored inner = stored.part(stored.take("transform"), "transform");
            result = std::make_unique<OnColumns<T>>(stored, features, std::move(columns), read_transform<T>(inner));
            break;
        }
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

// The transform under pairs of inversions; null where one inversion is left.
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
// double, whatever the file's dtype is. Invalid files throw FileFormatError, wrong arguments std::invalid_argument. An
// object never changes after construction: any number of threads may use it at once.
//
// Rows are features() adjacent values, in float or double (In), and so are results (Out). `context` holds context()
// values a row, `context_rows` rows: as many as there are rows, or 1 for all; it is null where context() is 0. A row
// that is not finite, or that overflows on its way, becomes NaN, and no other row changes. A finite row on a bound of a
// column or beyond has a log density of -infinity, and its latent is NaN.
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
    // Whether it is a flow, not a single transform: then it has log_prob and sample.
    bool has_density() const { return base_ != nullptr || is_ensemble(); }
    // Whether it is several flows as one density: then it has log_prob and sample, and no latent space.
    bool is_ensemble() const { return !members_.empty(); }

    // Log densities, in nats.
    template <class In, class Out, class Given = In>
    void log_prob(const In* x, std::size_t rows, Out* out, const Given* context = nullptr,
                  std::size_t context_rows = 0) const {
        if (is_ensemble()) {
            mixed_log_prob(x, rows, out, context, context_rows);
            return;
        }
        check_density();
        const Context<Given> given = checked(context, context_rows, rows);
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
    // null. The values are those of headrace's `sample` with this seed, to rounding.
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

    // The above with vectors, in double.
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
        if (stored.has("matmul")) {
            stored.choice("matmul", detail::Stored::matmul_names());
            if (dtype.is(Value::Kind::text) && dtype.text() != "float32")
                stored.fail("dtype, matmul: expected float32 where products are in bf16");
        }
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
    template <class In, class Out, class Given>
    void mixed_log_prob(const In* x, std::size_t rows, Out* out, const Given* context, std::size_t context_rows) const {
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

    // Each row is the member's own of this seed and index, from a member that is drawn for it.
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

    // Trailing transforms end before a Standardize, which may be followed by Supports.
    void read_steps(detail::Stored& stored) const {
        std::size_t end = chain_.size();
        while (end > 0 && dynamic_cast<const detail::Support<T>*>(chain_[end - 1].get())) --end;
        std::int64_t left = static_cast<std::int64_t>(end) - 1;
        for (const int n : stored.integers("steps", 0, 1 << 24)) left -= n;
        if (left != 0 || !dynamic_cast<const detail::Standardize<T>*>(chain_[end - 1].get()))
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

    // The Support that rows reach first, after transforms that do nothing, and after permutations if these are to be
    // passed.
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

    // Takes work.row, In values once, through the chain.
    template <class In, class C>
    void run(Work& work, bool to_data, const Context<C>& context, std::size_t r) const {
        work.log_det = 0.0;
        work.is_bad = work.is_outside = false;
        work.is_at_data = to_data;
        const std::size_t n = chain_.size();
        // On the way to latent; all transforms are at the data's side if none is done in T.
        const bool is_all_exact = latent_end_ == data_end_;
        const std::size_t data_end = is_all_exact ? 0 : data_end_, latent_end = is_all_exact ? 0 : latent_end_;
        if (to_data) {
            for (std::size_t i = 0; i < latent_end_; ++i) chain_[i]->run_exact(true, work.row, work.log_det);
        } else {
            bool is_finite = true;
            for (const double x : work.row) is_finite = is_finite && std::isfinite(x);
            for (std::size_t i = n; i-- > data_end;) {
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
            for (std::size_t i = latent_end; i-- > 0;) chain_[i]->run_exact(false, work.row, work.log_det);
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
