// The contents of a file: a flow, several flows as one density, or one transform.
#pragma once

#include "base_descriptions.hpp"
#include "transform_reader.hpp"

namespace headrace {
namespace detail {

inline const std::set<std::string>& kinds_of_flows() {
    static const std::set<std::string> kinds{"Flow", "MAF",        "IAF",        "RealNVP",
                                             "NSF",  "PlanarFlow", "RadialFlow", "AscentFlow"};
    return kinds;
}

inline const std::set<std::string>& kinds_of_sequences() {
    static const std::set<std::string> kinds{"SequenceFlow", "WaveNet", "CausalConvolution", "LinearPrediction",
                                             "AdaptivePrediction"};
    return kinds;
}

// The description of a flow. Made is the type of object that a reader makes from each transform as soon as it is read,
// so that no file is in memory twice.
template <class Made>
struct FlowDescription {
    int features = 0, context = 0;
    BaseDescription base;
    std::vector<Made> transforms;  // from latent to data
    std::vector<double> context_mean, context_std;
};

template <class Made>
struct FileDescription {
    bool is_float = true;  // whether the dtype is float; a transform without parameters has no dtype
    bool has_dtype = false;
    int bf16_kind = 0;                         // rounding of values of networks (see StoredFlow); 0: values are exact
    std::vector<FlowDescription<Made>> flows;  // one flow, the members of an ensemble, or none for a transform alone
    bool is_ensemble = false;
    std::vector<double> weights;  // weights of members: at least 0, and not all 0
    int features = 0, context = 0;
    std::vector<Made> alone;
};

template <class T, class Make>
class FileReader {
  public:
    using Made = decltype(std::declval<const Make&>()(std::declval<TransformDescription<T>>()));

    FileReader(Container& file, const Make& make) : file_(file), make_(make) {}

    FileDescription<Made> read() {
        Stored stored = opened();
        const Value& kind = file_.header().entries().at("kind");
        const std::string name = kind.is(Value::Kind::text) ? kind.text() : "";
        bool is_fixed = false;
        if (kinds_of_sequences().count(name))
            stored.fail("kind: expected a flow or a transform of rows, got " + name +
                        ", which is of sequences and which SequenceFlow reads");
        if (name == "MixedDensity")
            stored.fail("kind: expected a flow or a transform, got " + name +
                        ", whose discrete columns Python alone has; its flow is one");
        if (kinds_of_flows().count(name)) {
            d_.flows.push_back(read_flow(stored));
            d_.features = d_.flows[0].features;
            d_.context = d_.flows[0].context;
        } else if (name == "Ensemble") {
            read_members(stored);
        } else {
            TransformDescription<T> one = read_transform<T>(stored);
            is_fixed = one.is_fixed();
            d_.features = one.features;
            d_.context = one.context;
            d_.alone.push_back(make_(std::move(one)));
        }
        refuse_other_tensors(stored);
        if (d_.has_dtype == is_fixed)
            stored.fail("dtype: expected null for a transform without parameters, and for nothing else");
        return std::move(d_);
    }

  protected:  // protected, because readers of files of sequences use these members, too
    // Opens the outermost object, and reads the keys that every file has.
    Stored opened() {
        Stored stored(file_.header(), file_, "", "");
        for (const char* key : {"format", "version"}) stored.take(key);
        const Value& dtype = stored.take("dtype");
        d_.has_dtype = !dtype.is(Value::Kind::null);
        if (d_.has_dtype) d_.is_float = stored.choice(dtype, "dtype", {"float32", "float64"}) == 0;
        if (stored.has("matmul")) {
            stored.take("matmul");
            d_.bf16_kind = stored.bf16_kind();
            if (d_.has_dtype && !d_.is_float) stored.fail("dtype, matmul: expected float32 where products are in bf16");
        }
        if (!stored.has("kind")) stored.fail("expected the key 'kind'");
        return stored;
    }
    const FileDescription<Made>& description() const { return d_; }

    void refuse_other_tensors(const Stored& stored) const {
        for (const auto& [tensor, entry] : file_.tensors())
            if (!entry.is_taken) stored.fail("expected no tensor " + shown(tensor));
    }

    FlowDescription<Made> read_flow(Stored& stored) {
        FlowDescription<Made> flow;
        const bool is_ascent = stored.take("kind").text() == "AscentFlow";
        flow.features = stored.size("features", 1);
        flow.context = stored.size("context");
        Stored base = stored.part(stored.take("base"), "base", "base.");
        flow.base = read_base<T>(base);
        if (flow.base.features != flow.features) stored.fail("features: expected as many as the base has");
        int context = 0;
        std::vector<bool> is_support, is_scale;
        for (const Value& header : stored.items("transforms")) {
            const std::string number = std::to_string(flow.transforms.size());
            Stored own = stored.part(header, "transforms[" + number + "]", "transforms." + number + ".");
            TransformDescription<T> one = read_transform<T>(own);
            if (one.features != flow.features) own.fail("expected as many features as the base has");
            if (one.context) {
                if (context && one.context != context)
                    own.fail("context: expected one number of columns in all transforms");
                context = one.context;
            }
            is_support.push_back(one.template as<SupportDescription>());
            is_scale.push_back(one.template as<StandardizeDescription>());
            flow.transforms.push_back(make_(std::move(one)));
        }
        if (context != flow.context) stored.fail("context: expected as many columns as the transforms have");
        read_context_scale(stored, flow.context, flow.context_mean, flow.context_std);
        if (is_ascent) read_steps(stored, is_support, is_scale);
        stored.close();
        return flow;
    }

    static void read_context_scale(Stored& stored, int context, std::vector<double>& mean, std::vector<double>& std) {
        const Value& value = stored.take("standardize_context");
        if (value.is(Value::Kind::null)) return;
        if (!context) stored.fail("standardize_context: expected null where there is no context");
        Stored scale = stored.part(value, "standardize_context");
        mean = scale.numbers("mean", static_cast<std::size_t>(context));
        std = scale.numbers("std", static_cast<std::size_t>(context), true);
        scale.close();
    }

  private:
    void read_members(Stored& stored) {
        stored.take("kind");
        d_.is_ensemble = true;
        d_.features = stored.size("features", 1);
        d_.context = stored.size("context");
        const std::vector<Value>& headers = stored.items("members");
        if (headers.empty()) stored.fail("members: expected at least one");
        d_.weights = stored.numbers("weights", headers.size());
        const double largest = *std::max_element(d_.weights.begin(), d_.weights.end());
        for (const double w : d_.weights)
            if (!(w >= 0.0 && largest > 0.0)) stored.fail("weights: expected numbers of at least 0, not all 0");
        for (std::size_t i = 0; i < headers.size(); ++i) {
            const std::string number = std::to_string(i);
            Stored own = stored.part(headers[i], "members[" + number + "]", "members." + number + ".");
            if (!own.has("kind")) own.fail("expected the key 'kind'");
            const Value& kind = headers[i].entries().at("kind");
            if (!kind.is(Value::Kind::text) || !kinds_of_flows().count(kind.text())) own.fail("kind: expected a flow");
            d_.flows.push_back(read_flow(own));
            if (d_.flows.back().features != d_.features || d_.flows.back().context != d_.context)
                own.fail("expected as many features and context columns as the ensemble has");
        }
        stored.close();
    }

    // Reads the number of trailing transforms, which end before a Standardize that Supports may follow.
    static void read_steps(Stored& stored, const std::vector<bool>& is_support, const std::vector<bool>& is_scale) {
        std::size_t end = is_support.size();
        while (end > 0 && is_support[end - 1]) --end;
        std::int64_t left = static_cast<std::int64_t>(end) - 1;
        for (const int n : stored.integers("steps", 0, 1 << 24)) left -= n;
        if (left != 0 || !is_scale[end - 1])
            stored.fail("steps: expected numbers that add up to those of the transforms, and a Standardize after");
    }

    Container& file_;
    const Make& make_;
    FileDescription<Made> d_;
};

// The weights of members, scaled to a sum of 1.
inline std::vector<double> shares(const std::vector<double>& weights) {
    const double largest = *std::max_element(weights.begin(), weights.end());
    double sum = 0.0;
    for (const double w : weights) sum += w / largest;
    std::vector<double> result(weights);
    for (double& w : result) w = w / largest / sum;
    return result;
}

// Reads a file, and calls make(description) for each transform.
template <class T, class Make>
auto read_file(Container& file, const Make& make) {
    return FileReader<T, Make>(file, make).read();
}

}  // namespace detail
}  // namespace headrace
