// A program's steps in one direction: what the kernels get, and the owners of what that points to.
#pragma once

#include <memory>
#include <vector>

#include "conditioners/masked_plan.hpp"
#include "structure.hpp"

namespace headrace {

template <class T>
struct Compiled {
    int number = 0;  // among the chains of its program: forward and inverse with the base, then without
    Chain<T> chain;
    std::vector<Step<T>> steps;
    std::vector<const MaskedTransform*> transforms;  // of each network step; null for others
    std::vector<int> networks;
    std::vector<int> load_slot, store_slot;
    std::vector<double> load_shift, load_scale, store_shift, store_scale;
    std::vector<SupportColumn> load_support, store_support;
    // Owners of what the steps point to; a list never moves its elements.
    std::vector<std::unique_ptr<PlanStorage>> plans;
    std::vector<std::unique_ptr<BackPlanStorage>> back_plans;
    std::vector<std::shared_ptr<const void>> vectors;

    template <class Number>
    const Number* keep(std::vector<Number> v) {
        const auto owner = std::make_shared<const std::vector<Number>>(std::move(v));
        vectors.push_back(owner);
        return owner->data();
    }
    Plan keep(PlanStorage plan) {
        plans.push_back(std::make_unique<PlanStorage>(std::move(plan)));
        return plans.back()->view();
    }
    BackPlan keep(BackPlanStorage plan) {
        back_plans.push_back(std::make_unique<BackPlanStorage>(std::move(plan)));
        return back_plans.back()->view();
    }
};

}  // namespace headrace
