// The compiled contents of a file: programs of a flow, of an ensemble's members or of a transform, and calls of these
// programs.
#pragma once

#include <memory>
#include <vector>

#include "../../runtime/parts/container.hpp"
#include "../core/program.hpp"
#include "arrays.hpp"
#include "facts.hpp"

namespace headrace {

// The arguments of a call, where null stands for a missing argument.
struct Arguments {
    const headrace_input *rows = nullptr, *context = nullptr;
    const headrace_output *value = nullptr, *per_row = nullptr, *by_context = nullptr;
    uint64_t seed = 0;
    int64_t first_row = HEADRACE_FROM_START;
};

template <class T>
class Model {
  public:
    explicit Model(detail::Container& file);

    const Facts& facts() const { return facts_; }

    void log_prob(const Arguments& given) const;
    void sample(const Arguments& given) const;
    void transform(bool inverse, const Arguments& given) const;
    void gradient(const Arguments& given) const;

  private:
    struct Member {
        std::shared_ptr<const Program<T>> program;
        Base noise = Base::none;  // noise from which an ensemble's member makes rows; none: the member draws rows
        double weight = 1.0;
    };
    struct Call;

    void check_density() const;
    const Program<T>& program() const { return *members_[0].program; }
    void mixed_log_prob(const Request<T>& asked, T* log_prob) const;
    void mixed_sample(Call& call, const Arguments& given) const;
    template <class Number>
    void mixed_rows(const Request<T>& asked, Number* rows) const;
    std::vector<size_t> chosen(const Request<T>& asked) const;

    Facts facts_;
    std::vector<Member> members_;
    std::shared_ptr<const Program<T>> noise_[2];  // programs that draw noise for ensembles: normal and logistic
};

extern template class Model<float>;
extern template class Model<double>;

}  // namespace headrace
