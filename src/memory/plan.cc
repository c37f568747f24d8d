#include "memory/plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "memory/solver.h"
#include "model/network.h"

namespace kinefit {
namespace {

// Larger micro-batches than this many times the one as written are not looked for.
constexpr int64_t kSearchFactor = 8;
// A plan that changes something in the mathematics must be faster than one that does not by more
// than the estimate can tell.
constexpr double kChangesMustGain = 1.03;
// So many candidates are rehearsed before one is believed to fit.
constexpr int kMostChecked = 8;

std::vector<std::string> SegmentsOf(const Config& config) {
  return MakeNetwork(config.model, at::TensorOptions().device(at::kMeta))->Segments();
}

// Makes the plans of one configuration.
class Planner {
 public:
  Planner(const Config& config, const PlanRequest& request, const Rehearse& rehearse)
      : config_(config),
        request_(request),
        rehearse_(rehearse),
        segments_(SegmentsOf(config)),
        costs_(CostsOf(config, segments_)) {
    report_.device = config.device;
    report_.request = request;
    report_.budget = static_cast<int64_t>(
        std::floor(static_cast<double>(request.budget) * (1 - request.margin)));
    report_.lr = config.train.optimizer.lr;
    report_.effective_batch = config.train.batch_size * config.train.accumulate;
  }

  PlanReport Run() {
    const auto start = std::chrono::steady_clock::now();
    report_.as_written =
        MakeCandidate(config_.train.batch_size, AsWritten(), config_.train.precision);
    report_.rehearsal = Check(&report_.as_written);
    // Fewer samples at once change nothing in a validation.
    while (report_.rehearsal.validation_peak > report_.budget && config_.eval.batch_size > 1) {
      config_.eval.batch_size /= 2;
      report_.rehearsal = Check(&report_.as_written);
      report_.as_written.eval_batch_size = config_.eval.batch_size;
    }
    report_.plans = {report_.as_written};
    if (report_.fits()) {
      report_.chosen = 0;
      report_.chosen_rehearsal = report_.rehearsal;
    }
    if (!report_.fits() || request_.details) FindPlans();
    if (request_.details) FindLargestBatch();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    report_.seconds = elapsed.count();
    return std::move(report_);
  }

 private:
  bool chooses() const { return config_.memory.recompute == "auto"; }
  std::string AsWritten() const { return chooses() ? "lean" : config_.memory.recompute; }

  Rehearsal Ask(int64_t batch, int64_t accumulate, const std::string& recompute,
                const std::string& precision) {
    Config config = config_;
    config.train.batch_size = batch;
    config.train.accumulate = accumulate;
    config.train.precision = precision;
    config.memory.recompute = recompute;
    ++report_.rehearsals;
    return rehearse_(config);
  }

  SegmentCosts CostsIn(const std::string& precision) const {
    if (precision == config_.train.precision) return costs_;
    Config config = config_;
    config.train.precision = precision;
    return CostsOf(config, segments_);
  }

  Plan MakeCandidate(int64_t batch, const std::string& recompute, const std::string& precision) {
    Plan plan;
    plan.batch_size = batch;
    plan.accumulate = report_.effective_batch / batch;
    plan.recompute = recompute;
    plan.precision = precision;
    plan.eval_batch_size = config_.eval.batch_size;
    Recompute plain;
    plain.plain = true;
    const Recompute ways = ParseRecompute(recompute, segments_, "memory.recompute");
    plan.time = TimePerClip(CostsIn(precision), ways, segments_, batch) /
                TimePerClip(costs_, plain, segments_, config_.train.batch_size);
    if (batch != config_.train.batch_size) {
      plan.changes.push_back("batch-norm statistics over " + std::to_string(batch) +
                             " clips at a time instead of " +
                             std::to_string(config_.train.batch_size));
    }
    if (precision != config_.train.precision) plan.changes.push_back("computes in " + precision);
    return plan;
  }

  // Rehearses a plan as it is and says whether it fits.
  Rehearsal Check(Plan* plan) {
    Rehearsal rehearsal = Ask(plan->batch_size, plan->accumulate, plan->recompute, plan->precision);
    plan->peak = rehearsal.peak;
    plan->need = rehearsal.need();
    plan->fits = plan->need <= report_.budget;
    return rehearsal;
  }

  void Estimate(const Rehearsal& rehearsal, Plan* plan) {
    plan->peak = rehearsal.peak;
    plan->need = rehearsal.need();
    plan->fits = plan->need <= report_.budget;
  }

  std::vector<int64_t> MicroBatches() const {
    std::vector<int64_t> sizes;
    for (int64_t b = config_.train.batch_size; b > 0; --b) {
      if (report_.effective_batch % b == 0) sizes.push_back(b);
    }
    if (sizes.empty() || sizes[0] != config_.train.batch_size) {
      sizes.insert(sizes.begin(), config_.train.batch_size);
    }
    return sizes;
  }

  // All uniform ways of recomputing at some micro-batch: rehearsed at the largest and at two clips,
  // a straight line in between. One clip is not on it: LibTorch's CPU takes another convolution
  // there.
  UniformRehearsals UniformAt(int64_t batch) {
    const int64_t written = config_.train.batch_size;
    UniformRehearsals result;
    for (const Keep keep : kAllKeeps) {
      if (batch == written) {
        result[keep] = Known(keep, written, config_.train.accumulate);
      } else if (batch == 1) {
        result[keep] = Known(keep, 1, 2);
      } else {
        result[keep] = Interpolated(Known(keep, 2, 2), 2, Known(keep, written, 2), written, batch);
      }
    }
    return result;
  }

  const Rehearsal& Known(Keep keep, int64_t batch, int64_t accumulate) {
    // Memory is the same from two micro-batches on.
    const auto key = std::make_pair(keep, std::make_pair(batch, std::min<int64_t>(accumulate, 2)));
    const auto [entry, added] = known_.try_emplace(key);
    if (added)
      entry->second = Ask(batch, key.second.second, KeepText(keep), config_.train.precision);
    return entry->second;
  }

  void FindPlans() {
    for (const int64_t batch : MicroBatches()) {
      if (chooses()) {
        AddRecomputing(batch);
      } else if (batch != config_.train.batch_size) {
        Plan plan = MakeCandidate(batch, AsWritten(), config_.train.precision);
        Check(&plan);
        report_.plans.push_back(plan);
      }
    }
    Choose();
    if (request_.details && config_.train.precision == "fp32") AddBfloat16();
    Sort();
  }

  void AddRecomputing(int64_t batch) {
    const UniformRehearsals uniform = UniformAt(batch);
    for (const Keep keep : kAllKeeps) {
      if (batch == config_.train.batch_size && keep == Keep::kConvolutions) continue;  // as written
      Plan plan = MakeCandidate(batch, KeepText(keep), config_.train.precision);
      Estimate(uniform.at(keep), &plan);
      report_.plans.push_back(plan);
    }
    AddSolved(batch, uniform);
  }

  // The solver's plan if it is not a uniform one. Its model is checked by a rehearsal; where that
  // says more, the budget it is given shrinks by as much.
  void AddSolved(int64_t batch, const UniformRehearsals& uniform) {
    const Rehearsal& lean = uniform.at(Keep::kConvolutions);
    if (lean.need() <= report_.budget) return;
    // On a GPU cache and context come on top of what is allocated.
    int64_t budget = report_.budget - (lean.need() - lean.peak);
    for (int attempt = 0; attempt < 3; ++attempt) {
      Recompute best;
      if (!Solve(uniform, costs_, segments_, budget, &best)) return;
      Plan plan = MakeCandidate(batch, RecomputeText(best, segments_), config_.train.precision);
      Check(&plan);
      if (plan.fits || attempt == 2) {
        report_.plans.push_back(plan);
        return;
      }
      budget -= plan.need - report_.budget;
    }
  }

  void AddBfloat16() {
    Plan plan = MakeCandidate(config_.train.batch_size, AsWritten(), "bf16");
    Check(&plan);
    report_.plans.push_back(plan);
  }

  void Sort() {
    const Plan chosen =
        report_.chosen < 0 ? Plan() : report_.plans[static_cast<size_t>(report_.chosen)];
    std::stable_sort(report_.plans.begin(), report_.plans.end(), [](const Plan& a, const Plan& b) {
      return a.time != b.time ? a.time < b.time : a.changes.size() < b.changes.size();
    });
    for (size_t i = 0; report_.chosen >= 0 && i < report_.plans.size(); ++i) {
      const Plan& plan = report_.plans[i];
      if (plan.batch_size == chosen.batch_size && plan.recompute == chosen.recompute &&
          plan.precision == chosen.precision) {
        report_.chosen = static_cast<int>(i);
      }
    }
  }

  // The fastest plan that fits, the estimate confirmed by a rehearsal. As written, if that fits.
  void Choose() {
    if (report_.fits()) return;
    Sort();
    std::vector<size_t> order(report_.plans.size());
    std::iota(order.begin(), order.end(), 0);
    const auto weighed = [&](size_t i) {
      return report_.plans[i].time * (report_.plans[i].changes.empty() ? 1 : kChangesMustGain);
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return weighed(a) < weighed(b); });
    int checked = 0;
    for (const size_t i : order) {
      Plan& plan = report_.plans[i];
      if (!plan.fits || (request_.exact && !plan.changes.empty())) continue;
      if (++checked > kMostChecked) return;
      Rehearsal rehearsal = Check(&plan);
      if (!plan.fits) continue;
      report_.chosen = static_cast<int>(i);
      report_.chosen_rehearsal = std::move(rehearsal);
      return;
    }
  }

  void FindLargestBatch() {
    report_.largest_tried = config_.train.batch_size * kSearchFactor;
    std::map<int64_t, int64_t> needs = {{config_.train.batch_size, report_.as_written.need}};
    const auto need = [&](int64_t batch) {
      const auto [entry, added] = needs.try_emplace(batch);
      if (added) {
        entry->second =
            Ask(batch, config_.train.accumulate, AsWritten(), config_.train.precision).need();
      }
      return entry->second;
    };
    report_.largest_batch =
        LargestFitting(need, report_.budget,
                       report_.fits() ? report_.largest_tried : config_.train.batch_size - 1);
  }

  Config config_;
  const PlanRequest& request_;
  const Rehearse& rehearse_;
  std::vector<std::string> segments_;
  SegmentCosts costs_;
  std::map<std::pair<Keep, std::pair<int64_t, int64_t>>, Rehearsal> known_;
  PlanReport report_;
};

}  // namespace

PlanReport MakePlan(const Config& config, const PlanRequest& request, const Rehearse& rehearse) {
  return Planner(config, request, rehearse).Run();
}

void Apply(const Plan& plan, Config* config) {
  config->train.batch_size = plan.batch_size;
  config->train.accumulate = plan.accumulate;
  config->train.precision = plan.precision;
  config->memory.recompute = plan.recompute;
  config->eval.batch_size = plan.eval_batch_size;
}

std::vector<Plan> Fallbacks(const PlanReport& report, const Plan& current) {
  // Each is the fastest of those that need a tenth less than the one before.
  constexpr double kStep = 0.9;
  std::vector<Plan> sorted;
  for (const Plan& plan : report.plans) {
    if (plan.precision != current.precision) continue;
    if (report.request.exact && !plan.changes.empty()) continue;
    sorted.push_back(plan);
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Plan& a, const Plan& b) { return a.time < b.time; });
  std::vector<Plan> chain;
  double limit = static_cast<double>(current.need) * kStep;
  for (const Plan& plan : sorted) {
    if (static_cast<double>(plan.need) > limit) continue;
    chain.push_back(plan);
    limit = static_cast<double>(plan.need) * kStep;
  }
  // The last resort is whatever needs least.
  const auto least = std::min_element(sorted.begin(), sorted.end(),
                                      [](const Plan& a, const Plan& b) { return a.need < b.need; });
  const int64_t last = chain.empty() ? current.need : chain.back().need;
  if (least != sorted.end() && least->need < last) chain.push_back(*least);
  return chain;
}

}  // namespace kinefit
