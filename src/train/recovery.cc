#include "train/recovery.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "memory/cpu_allocator.h"
#include "memory/format_plan.h"
#include "memory/gpu.h"
#include "train/step_rehearsal.h"

namespace kinefit {
namespace {

// What planning needs is little, but memory is short just now.
constexpr int kPlanningAttempts = 10;
// The alternatives are to need so much less than what failed.
constexpr double kLess = 0.9;

void ReleaseCaches() {
  ReleaseCache();
  ReleaseGpuCache();
}

}  // namespace

std::string PlanText(const Plan& plan) {
  std::string text = "micro-batches of " + std::to_string(plan.batch_size) + " x " +
                     std::to_string(plan.accumulate) + ", recompute " + plan.recompute;
  for (const std::string& change : plan.changes) text += ", " + change;
  return text;
}

Recovery::Decision Recovery::AfterStep(int64_t iteration, const std::string& what, Config* config) {
  ReleaseCaches();
  Decision decision;
  decision.go_on = true;
  if (failed_iteration_ != iteration) {
    failed_iteration_ = iteration;
    decision.message = what + "; nothing of it was kept, the step is run again";
    return decision;
  }
  if (!planned_) FindAlternatives(*config);
  if (alternatives_.empty()) {
    decision.go_on = false;
    decision.message =
        what + (config->memory.plan == "auto"
                    ? "; no other plan of the same training needs less"
                    : "; memory.plan = \"" + config->memory.plan + "\" allows no other plan");
    if (tried_ > 0) decision.message += " (" + std::to_string(tried_) + " were tried)";
    return decision;
  }
  const Plan plan = alternatives_.front();
  alternatives_.erase(alternatives_.begin());
  ++tried_;
  Apply(plan, config);
  failed_iteration_ = -1;
  decision.new_plan = true;
  decision.message = what + " again; from this step on: " + PlanText(plan) + " (" +
                     BytesText(plan.need) + " planned)";
  return decision;
}

Recovery::Decision Recovery::AfterValidation(const std::string& what, Config* config) {
  ReleaseCaches();
  Decision decision;
  decision.go_on = true;
  if (!validation_failed_) {
    validation_failed_ = true;
    decision.message = what + "; the validation is run again";
  } else if (config->eval.batch_size > 1 && config->memory.plan == "auto") {
    config->eval.batch_size = (config->eval.batch_size + 1) / 2;
    validation_failed_ = false;
    decision.message = what + " again; validating " + std::to_string(config->eval.batch_size) +
                       " clips at a time from now on, which changes no result";
  } else {
    decision.go_on = false;
    decision.message = what + " with " + std::to_string(config->eval.batch_size) +
                       " clips at a time (eval.batch_size)";
  }
  return decision;
}

void Recovery::FindAlternatives(const Config& config) {
  planned_ = true;
  if (config.memory.plan != "auto") return;
  Config open = config;
  open.memory.recompute = "auto";
  for (int attempt = 0; attempt < kPlanningAttempts; ++attempt) {
    try {
      PlanRequest request;
      request.exact = config.memory.exact;
      request.details = true;
      Plan current;
      current.precision = config.train.precision;
      const auto rehearse = [this](const Config& c) { return RehearseRankStep(c, world_); };
      current.need = rehearse(config).need();
      request.budget = static_cast<int64_t>(static_cast<double>(current.need) * kLess);
      const int64_t known = DefaultBudget(config);
      if (known > 0) request.budget = std::min(request.budget, known);
      alternatives_ = Fallbacks(MakePlan(open, request, rehearse), current);
      return;
    } catch (const c10::OutOfMemoryError&) {
      ReleaseCaches();
    }
  }
}

}  // namespace kinefit
