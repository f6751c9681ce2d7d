// A program's steps in one direction: what the kernels get, and the owners of what that points to.
#pragma once

#include "program.hpp"

namespace headrace {

template <class T>
struct Program<T>::Compiled {
    Chain<T> chain;
    std::vector<Step<T>> steps;
    std::vector<int> networks;
    std::vector<int> load_slot, store_slot;
    std::vector<double> load_shift, load_scale, store_shift, store_scale;
    // Owners of what the steps point to; a list never moves its elements.
    std::vector<std::unique_ptr<PlanStorage>> plans;
    std::vector<std::unique_ptr<BackPlanStorage>> back_plans;
    std::vector<std::unique_ptr<std::vector<Layer>>> layers;
    std::vector<std::unique_ptr<std::vector<int>>> slots;
    std::vector<std::unique_ptr<std::vector<double>>> factors;
    std::vector<std::unique_ptr<std::vector<int64_t>>> offsets;

    const int* keep(std::vector<int> v) {
        slots.push_back(std::make_unique<std::vector<int>>(std::move(v)));
        return slots.back()->data();
    }
    const int64_t* keep(std::vector<int64_t> v) {
        offsets.push_back(std::make_unique<std::vector<int64_t>>(std::move(v)));
        return offsets.back()->data();
    }
    Plan keep(PlanStorage plan) {
        plans.push_back(std::make_unique<PlanStorage>(std::move(plan)));
        return plans.back()->view();
    }
    BackPlan keep(BackPlanStorage plan) {
        back_plans.push_back(std::make_unique<BackPlanStorage>(std::move(plan)));
        return back_plans.back()->view();
    }
    const double* keep(std::vector<double> v) {
        factors.push_back(std::make_unique<std::vector<double>>(std::move(v)));
        return factors.back()->data();
    }
};

}  // namespace headrace
