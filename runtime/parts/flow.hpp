// The public interface: a flow or a single transform, read from a file.
#pragma once

#include "file.hpp"
#include "generator.hpp"
#include "masked.hpp"
#include "simple.hpp"
#include "support.hpp"
#include "tails.hpp"
#include "vector.hpp"

namespace headrace {
namespace detail {

// Makes a transform from a description, by one function for each kind.
template <class T>
class TransformMaker {
  public:
    TransformPtr<T> operator()(TransformDescription<T> d) const {
        return std::visit([&](auto& own) { return made(d, std::move(own)); }, d.kind);
    }

  private:
    using D = TransformDescription<T>;

    static TransformPtr<T> made(const D& d, MaskedDescription<T> own) {
        return std::make_unique<MaskedTransform<T>>(d, std::move(own));
    }
    static TransformPtr<T> made(const D& d, ElementwiseDescription<T> own) {
        return std::make_unique<Elementwise<T>>(d, std::move(own));
    }
    static TransformPtr<T> made(const D& d, LinearDescription<T> own) {
        return std::make_unique<Linear<T>>(d, std::move(own));
    }
    static TransformPtr<T> made(const D& d, ActNormDescription<T> own) {
        return std::make_unique<ActNorm<T>>(d, std::move(own));
    }
    static TransformPtr<T> made(const D& d, VectorDescription<T> own) {
        if (own.is_planar) return std::make_unique<VectorTransform<T, PlanarMap<T>>>(d, std::move(own));
        return std::make_unique<VectorTransform<T, RadialMap<T>>>(d, std::move(own));
    }
    static TransformPtr<T> made(const D& d, RotationDescription own) {
        return std::make_unique<Rotation<T>>(d, std::move(own));
    }
    static TransformPtr<T> made(const D& d, PermutationDescription own) {
        return std::make_unique<Permutation<T>>(d, std::move(own));
    }
    static TransformPtr<T> made(const D& d, StandardizeDescription own) {
        return std::make_unique<Standardize<T>>(d, std::move(own));
    }
    static TransformPtr<T> made(const D& d, const SupportDescription& own) {
        return std::make_unique<Support<T>>(d, own);
    }
    static TransformPtr<T> made(const D& d, GaussianizeDescription own) {
        return std::make_unique<Gaussianize<T>>(d, std::move(own));
    }
    static TransformPtr<T> made(const D& d, OnColumnsDescription<T> own) {
        return std::make_unique<OnColumns<T>>(d, std::move(own.columns), TransformMaker()(std::move(*own.inner)));
    }
    static TransformPtr<T> made(const D& d, InverseDescription<T> own) {
        return std::make_unique<Inverse<T>>(d, TransformMaker()(std::move(*own.inner)));
    }
};

// The transform inside pairs of inversions; null where one inversion is left.
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

// A density, log p(x) = log base(z) + log |det dz/dx|, or one transform between z and x. Computations are in T, float
// or double, for files of any dtype. Invalid files throw FileFormatError, wrong arguments std::invalid_argument. An
// object never changes after construction, so that any number of threads may use it at once.
//
// A row is features() adjacent values, in float or double (In); results are in float or double (Out). `context` has
// `context_rows` rows of context() values: one for each row, or 1 for all; it is null where context() is 0. Results of
// a row that is not finite, or that overflows, are NaN, and no other row changes. A finite row with a value on a bound
// of its column, or beyond, has a log density of -infinity, and its latent row is NaN.
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
    // Reads a flow from the bytes of a file, which are copied.
    static Flow from_bytes(const void* data, std::size_t size) { return Flow(detail::container_of_bytes(data, size)); }

    int features() const { return features_; }
    int context() const { return context_; }
    // Whether the object is a flow or an ensemble, with log_prob and sample, and not a single transform.
    bool has_density() const { return base_ != nullptr || is_ensemble(); }
    // Whether the object is a density of several flows, with log_prob and sample, but no latent space.
    bool is_ensemble() const { return !members_.empty(); }

    // Computes log densities, in nats.
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

    // Maps data to latent rows, and stores log |det dz/dx| of each row in `log_det`, which may be null.
    template <class In, class Out>
    void to_latent(const In* x, std::size_t rows, Out* z, Out* log_det, const In* context = nullptr,
                   std::size_t context_rows = 0) const {
        transform(false, x, rows, z, log_det, context, context_rows);
    }

    // Maps latent rows to data, and stores log |det dx/dz| of each row in `log_det`, which may be null.
    template <class In, class Out>
    void to_data(const In* z, std::size_t rows, Out* x, Out* log_det, const In* context = nullptr,
                 std::size_t context_rows = 0) const {
        transform(true, z, rows, x, log_det, context, context_rows);
    }

    // Draws rows first_row to first_row + rows - 1 of the endless sample of a seed, with their log densities, which may
    // be null. The values are those of headrace's `sample` with this seed, to rounding.
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

    // Versions of the functions with vectors, in double.
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
    // The memory of one call, for one row at a time.
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
        auto given = detail::read_file<T>(file, detail::TransformMaker<T>());
        features_ = given.features;
        context_ = given.context;
        if (given.is_ensemble) {
            take_members(given);
        } else if (given.flows.empty()) {
            chain_ = std::move(given.alone);
            order_exact();
        } else {
            take_flow(given.flows[0]);
        }
    }

    Flow() = default;  // an empty object for a member of an ensemble

    using Given = detail::FlowDescription<detail::TransformPtr<T>>;

    void take_flow(Given& given) {
        features_ = given.features;
        context_ = given.context;
        base_ = detail::base_of<T>(given.base);
        chain_ = std::move(given.transforms);
        context_mean_ = std::move(given.context_mean);
        context_std_ = std::move(given.context_std);
        order_exact();
    }

    void take_members(detail::FileDescription<detail::TransformPtr<T>>& given) {
        const std::vector<double> weights = detail::shares(given.weights);
        for (std::size_t i = 0; i < given.flows.size(); ++i) {
            Flow member;
            member.take_flow(given.flows[i]);
            members_.push_back(std::move(member));
            log_weights_.push_back(std::log(weights[i]));
            edges_.push_back(weights[i] + (i ? edges_.back() : 0.0));
        }
    }

    // Computes the logarithm of the weighted sum of the members' densities.
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

    // Draws a sample of an ensemble: each row is the row with this seed and index of one member, which is chosen at
    // random for the row.
    template <class Out, class In>
    void mixed_sample(std::size_t rows, std::uint64_t seed, Out* x, Out* log_prob, const Context<In>& context,
                      std::uint64_t first_row) const {
        detail::Generator generator({seed, 0x656E73656D626C65u});
        generator.skip(first_row);
        std::size_t last = 0;  // index of the last member with a positive weight, because sums of weights round and
                               // members of weight 0 must not be chosen
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

    // Finds the transforms at both ends of the chain that are computed in float64.
    void order_exact() {
        while (latent_end_ < chain_.size() && chain_[latent_end_]->is_exact()) ++latent_end_;
        data_end_ = chain_.size();
        while (data_end_ > latent_end_ && chain_[data_end_ - 1]->is_exact()) --data_end_;
        support_ = support_at_end(true);
        last_ = support_at_end(false);
    }

    // The Support at the data end, behind transforms that change nothing, and behind permutations if
    // passes_permutations is true.
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

    // Draws a row of the sample to work.row, and returns its log density.
    template <class In>
    double draw(Work& work, std::vector<T>& z, std::uint64_t seed, std::uint64_t row, const Context<In>& context,
                std::size_t r) const {
        base_->draw(seed, row, z.data());
        load_row(work, z.data());
        const double density = base_->log_prob(work.row.data());
        run<T>(work, true, context, r);
        return work.is_bad ? nan() : density - work.log_det;
    }

    // Runs work.row, whose values were of type In, through the chain.
    template <class In, class C>
    void run(Work& work, bool to_data, const Context<C>& context, std::size_t r) const {
        work.log_det = 0.0;
        work.is_bad = work.is_outside = false;
        work.is_at_data = to_data;
        const std::size_t n = chain_.size();
        // Ends of the part of the chain that is computed in T; without such a part, all transforms belong to the data
        // end.
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
    std::size_t latent_end_ = 0, data_end_ = 0;   // chain_[i] between these indices are computed in T
    std::vector<double> context_mean_, context_std_;
    const detail::Support<T>* support_ = nullptr;  // at the data end: rows outside of it have no density,
    const detail::Support<T>* last_ = nullptr;     // and no result is outside of it
    std::vector<Flow> members_;
    std::vector<double> log_weights_, edges_;  // edges_: cumulative sums of weights
};

}  // namespace headrace
