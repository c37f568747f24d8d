#pragma once

#include <string>

#include "memory/plan.h"

namespace kinefit {

// What `kinefit plan` prints: breakdown by role, the ten largest layers, memory over time, the
// largest batch as written, the plans and the chosen one, the learning rate for other batches.
std::string FormatPlan(const PlanReport& report);

// What `kinefit train` says at start-up: one paragraph without a line break.
std::string PlanParagraph(const PlanReport& report);

// "12.3 MiB", "39.39 GiB".
std::string BytesText(int64_t bytes);

}  // namespace kinefit
