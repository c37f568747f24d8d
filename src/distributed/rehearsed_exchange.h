#pragma once

#include <memory>
#include <vector>

#include "distributed/step_exchange.h"

namespace kinefit {

// A StepExchange with the buckets of a real one and nobody at the other end, for rehearsals on the
// meta device.
std::unique_ptr<StepExchange> RehearseExchange(const std::vector<at::Tensor>& parameters,
                                               const std::vector<size_t>& order,
                                               double bucket_bytes);

}  // namespace kinefit
