// Adam (Kingma, Ba 2015) with the weight decay of AdamW (Loshchilov, Hutter 2019): the factors of a step, and its
// update of one weight, over lanes.
#pragma once

#include "lane.hpp"

namespace headrace {

struct AdamOptions {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
    double clip = 0;     // the largest norm of a gradient; 0: no limit
    double average = 0;  // decay of the running mean of the weights; 0: no mean
};

// State of Adam from step to step.
struct AdamClock {
    double mean_power = 1, square_power = 1, steps = 0;  // beta1^steps, beta2^steps
};

// Factors of one step of Adam.
template <class T>
struct AdamStep {
    T mean_decay, square_decay;  // decay of the running mean and of the running mean square: beta1, beta2
    T rate;                      // learning rate divided by the bias correction of the running mean
    T square_correction;         // 1 / (1 - beta2^t)
    T epsilon, shrink;           // epsilon of Adam; factor of weights that decay, 1 - learning rate times weight decay
    T gradient_scale;            // factor that clips the gradient
    T average_gain;              // share of the new weights in the running mean of the weights
};

namespace {

// The factors of the next step, for a gradient with the given norm.
template <class T>
HR_FN AdamStep<T> adam_next(const AdamOptions& o, double learning_rate, double norm, AdamClock& clock) {
    constexpr T least = sizeof(T) == 4 ? T(1.17549435e-38) : T(2.2250738585072014e-308);  // added to prevent 0 / 0
    clock.mean_power *= o.beta1;
    clock.square_power *= o.beta2;
    clock.steps += 1;
    AdamStep<T> s;
    s.mean_decay = T(o.beta1);
    s.square_decay = T(o.beta2);
    s.rate = T(learning_rate / (1 - clock.mean_power));
    s.square_correction = T(1 / (1 - clock.square_power));
    s.epsilon = T(o.epsilon) > least ? T(o.epsilon) : least;
    s.shrink = T(1 - learning_rate * o.weight_decay);
    s.gradient_scale = T(o.clip > 0 && norm > o.clip ? o.clip / norm : 1);
    // The decay grows with the steps to the requested decay, so that the initial weights are soon forgotten.
    const double grown = (1 + clock.steps) / (10 + clock.steps);
    s.average_gain = T(1 - (o.average < grown ? o.average : grown));
    return s;
}

// The new weight; mean and square are updated. A weight of 0 with gradient 0, such as padding, stays 0.
template <class V>
HR_FN V adam_moved(const AdamStep<Scalar<V>>& s, bool decays, V gradient, V weight, V& mean, V& square) {
    using T = Scalar<V>;
    const V g = gradient * s.gradient_scale;
    mean = fma(mean, s.mean_decay, g * (T(1) - s.mean_decay));
    square = fma(square, s.square_decay, g * g * (T(1) - s.square_decay));
    return fma(weight, decays ? s.shrink : T(1), -(mean * s.rate / (sqrt(square * s.square_correction) + s.epsilon)));
}

}  // namespace
}  // namespace headrace
