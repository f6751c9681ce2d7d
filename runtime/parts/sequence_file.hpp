// The contents of a file of sequences: a flow, whose steps come one after another, or one transform over time.
#pragma once

#include "sequence_descriptions.hpp"

namespace headrace {
namespace detail {

inline bool is_of_sequences(const Container& file) {
    const auto& entries = file.header().entries();
    const auto kind = entries.find("kind");
    return kind != entries.end() && kind->second.is(Value::Kind::text) &&
           kinds_of_sequences().count(kind->second.text());
}

template <class T, class Make>
class SequenceReader : private FileReader<T, Make> {
    using Rows = FileReader<T, Make>;

  public:
    using Made = typename Rows::Made;

    SequenceReader(Container& file, const Make& make) : Rows(file, make), file_(file), make_(make) {}

    SequenceDescription<T, Made> read() {
        Stored stored = this->opened();
        if (!is_of_sequences(file_))
            stored.fail("kind: expected a file of sequences, got one of rows, which Flow reads");
        const FileDescription<Made>& head = this->description();
        if (!head.has_dtype) stored.fail("dtype: expected 'float32' or 'float64' where there are parameters, got null");
        if (head.bf16_kind > 1) stored.fail("matmul: expected bf16 for sequences");
        d_.is_float = head.is_float;
        d_.is_rounded = head.bf16_kind == 1;
        stored.keep_products_exact();
        const std::string kind = stored.take("kind").text();
        d_.has_density = kind == "SequenceFlow" || kind == "WaveNet";
        if (d_.has_density) {
            read_flow_of_sequences(stored);
        } else {
            add_over_time(stored, kind);
        }
        stored.close();
        this->refuse_other_tensors(stored);
        return std::move(d_);
    }

  private:
    void read_flow_of_sequences(Stored& stored) {
        d_.features = stored.size("features", 1);
        Stored base = stored.part(stored.take("base"), "base", "base.");
        d_.base = read_base<T>(base);
        if (d_.base.features != d_.features) stored.fail("features: expected as many as the base has");
        bool has_network = false;
        for (const Value& header : stored.items("transforms")) {
            const std::string number = std::to_string(d_.chain.size());
            Stored own = stored.part(header, "transforms[" + number + "]", "transforms." + number + ".");
            const Value kind = own.has("kind") ? header.entries().at("kind") : Value();
            const std::string name = kind.is(Value::Kind::text) ? kind.text() : "";
            if (name == "CausalConvolution" || name == "LinearPrediction" || name == "AdaptivePrediction") {
                own.take("kind");
                add_over_time(own, name);
                own.close();
                has_network = has_network || name == "CausalConvolution";
                continue;
            }
            TransformDescription<T> one = read_transform<T>(own);
            if (one.features != d_.features) own.fail("expected as many features as the base has");
            if (one.context) own.fail("expected a transform of rows without context");
            const bool is_fixed = one.is_fixed();
            d_.chain.push_back(StepDescription<Made>{make_(std::move(one)), is_fixed});
        }
        for (std::size_t i = 0; i < d_.chain.size(); ++i) {
            const auto* const one = std::get_if<CausalDescription<T, Made>>(&d_.chain[i]);
            const bool has_sizes =
                i + 1 < d_.chain.size() && std::holds_alternative<AdaptiveDescription>(d_.chain[i + 1]);
            if (one && one->reads_sizes && !has_sizes)
                stored.fail("transforms: expected an AdaptivePrediction behind a network with sizes");
        }
        if (!has_network) stored.fail("transforms: expected at least one CausalConvolution");
        if (stored.has("standardize_context"))
            Rows::read_context_scale(stored, d_.context, d_.context_mean, d_.context_std);
    }

    void add_over_time(Stored& stored, const std::string& kind) {
        const auto fits = [&](int features) {
            if (d_.has_density && features != d_.features) stored.fail("expected as many features as the base has");
            d_.features = features;
        };
        if (kind == "LinearPrediction") {
            PredictionDescription<T> one = read_prediction<T>(stored);
            fits(one.features);
            d_.field += one.order;
            d_.chain.push_back(std::move(one));
            return;
        }
        if (kind == "AdaptivePrediction") {
            const AdaptiveDescription one = read_adaptive(stored);
            fits(one.features);
            d_.field += one.window + one.every - 1 + 320;
            d_.chain.push_back(one);
            return;
        }
        std::unique_ptr<FlowDescription<Made>> inner;
        if (stored.has("inner")) {
            const Value& header = stored.take("inner");
            Stored own = stored.part(header, "inner", "inner.");
            if (!own.has("kind")) own.fail("expected the key 'kind'");
            const Value& name = header.entries().at("kind");
            if (!name.is(Value::Kind::text) || !kinds_of_flows().count(name.text())) own.fail("kind: expected a flow");
            inner = std::make_unique<FlowDescription<Made>>(this->read_flow(own));
        }
        CausalDescription<T, Made> one = CausalReader<T, Made>(stored, std::move(inner)).read();
        fits(one.features);
        d_.field += one.field();
        take_common(stored, one.context, d_.context, 0, "context");
        take_common(stored, one.covariates, d_.covariates, 0, "covariates");
        if (one.covariates) take_common(stored, one.hop, d_.hop, 1, "hop");
        d_.chain.push_back(std::move(one));
    }

    // Takes a size that must be equal in all networks, except those with the default.
    static void take_common(const Stored& stored, int own, int& common, int usual, const char* name) {
        if (own == usual) return;
        if (common != usual && common != own) stored.fail(std::string(name) + ": expected one for all networks");
        common = own;
    }

    Container& file_;
    const Make& make_;
    SequenceDescription<T, Made> d_;
};

// Reads a file, and calls make(description) for each transform of rows.
template <class T, class Make>
auto read_sequences(Container& file, const Make& make) {
    return SequenceReader<T, Make>(file, make).read();
}

}  // namespace detail
}  // namespace headrace
