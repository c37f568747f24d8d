#pragma once

#include <memory>

#include "distributed/gradient_buckets.h"
#include "distributed/step_exchange.h"

namespace kinefit {

class C10dGroup;

// `group` must outlive it.
std::unique_ptr<StepExchange> MakeC10dStepExchange(C10dGroup& group,
                                                   const std::vector<at::Tensor>& parameters,
                                                   const std::vector<size_t>& order,
                                                   const ExchangeOptions& options);

}  // namespace kinefit
