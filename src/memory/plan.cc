#include "memory/plan.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <map>
#include <sstream>

#include "files/error.h"

namespace kinefit {
namespace {

// Larger micro-batches than this many times the one as written are not looked for.
constexpr int64_t kSearchFactor = 8;
constexpr size_t kLayersShown = 10;

// Rehearsals of one configuration at several batch sizes, each made once.
class Rehearsals {
 public:
  explicit Rehearsals(Config config) : config_(std::move(config)) {}

  const Rehearsal& At(int64_t batch) {
    const auto [entry, added] = known_.try_emplace(batch);
    if (added) entry->second = Rehearse(config_, batch);
    return entry->second;
  }
  const std::map<int64_t, Rehearsal>& known() const { return known_; }

 private:
  Config config_;
  std::map<int64_t, Rehearsal> known_;
};

// The largest divisor of the effective batch that fits with as many accumulations as it then takes.
BatchPlan ChooseBatch(const Config& config, int64_t budget) {
  const int64_t effective = config.train.batch_size * config.train.accumulate;
  Config accumulating = config;
  accumulating.train.accumulate = 2;  // memory is the same from two on
  Rehearsals rehearsals(accumulating);
  const int64_t limit = LargestFitting([&](int64_t batch) { return rehearsals.At(batch).peak; },
                                       budget, std::min(config.train.batch_size, effective - 1));
  for (int64_t batch = limit; batch > 0; --batch) {
    if (effective % batch != 0) continue;
    return {batch, effective / batch, rehearsals.At(batch).peak};
  }
  return {};
}

std::string Gib(int64_t bytes) {
  std::array<char, 32> text{};
  const auto value = static_cast<double>(bytes);
  if (bytes < int64_t{1} << 30) {
    std::snprintf(text.data(), text.size(), "%.1f MiB", value / 0x1p20);
  } else {
    std::snprintf(text.data(), text.size(), "%.2f GiB", value / 0x1p30);
  }
  return text.data();
}

std::string Row(const std::string& name, int64_t bytes, int64_t of) {
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(), "  %-44s %12s %5.1f %%\n", name.c_str(),
                Gib(bytes).c_str(), 100.0 * static_cast<double>(bytes) / static_cast<double>(of));
  return text.data();
}

std::string Batch(const BatchPlan& plan) {
  std::string text = "batch " + std::to_string(plan.batch_size);
  if (plan.accumulate > 1) text += " x " + std::to_string(plan.accumulate) + " accumulated";
  return text;
}

std::string Breakdown(const Rehearsal& rehearsal) {
  std::string text = Row("activations and temporaries", rehearsal.activations, rehearsal.peak);
  text += Row("weights and buffers", rehearsal.weights, rehearsal.peak);
  text += Row("gradients (at that moment)", rehearsal.gradients, rehearsal.peak);
  text += Row("optimizer state", rehearsal.optimizer, rehearsal.peak);
  text += Row("input and prefetched batches", rehearsal.input, rehearsal.peak);
  return text;
}

std::string Verdict(const PlanReport& report) {
  if (report.fits()) return "It fits as written.\n";
  if (report.chosen.batch_size == 0) {
    return "It does not fit, and neither does a single clip.\n";
  }
  return "It does not fit as written. The same training that fits: " + Batch(report.chosen) +
         ", peak " + Gib(report.chosen.peak) +
         ".\nEffective batch and learning rate stay as they are; batch-norm statistics are then "
         "taken per micro-batch of " +
         std::to_string(report.chosen.batch_size) + ".\n";
}

}  // namespace

PlanReport MakePlan(const Config& config, int64_t budget) {
  const auto start = std::chrono::steady_clock::now();
  PlanReport report;
  report.device = config.device;
  report.precision = config.train.precision;
  report.budget = budget;
  Rehearsals rehearsals(config);
  report.rehearsal = rehearsals.At(config.train.batch_size);
  report.as_written = {config.train.batch_size, config.train.accumulate, report.rehearsal.peak};
  report.chosen = report.fits() ? report.as_written : ChooseBatch(config, budget);
  report.largest_tried = config.train.batch_size * kSearchFactor;
  report.largest_batch =
      LargestFitting([&](int64_t batch) { return rehearsals.At(batch).peak; }, budget,
                     report.fits() ? report.largest_tried : config.train.batch_size - 1);
  for (const auto& [batch, rehearsal] : rehearsals.known()) {
    report.peaks.emplace_back(batch, rehearsal.peak);
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  report.seconds = elapsed.count();
  return report;
}

std::string FormatPlan(const PlanReport& report) {
  std::ostringstream text;
  text << Batch(report.as_written) << " on " << report.device << ", " << report.precision
       << ": peak " << Gib(report.as_written.peak) << " of " << Gib(report.budget) << "\n";
  text << Breakdown(report.rehearsal);
  const auto& layers = report.rehearsal.layers;
  text << "\nLargest layers at the peak\n";
  for (size_t i = 0; i < std::min(kLayersShown, layers.size()); ++i) {
    text << Row(layers[i].name, layers[i].bytes, report.rehearsal.peak);
  }
  text << "\nPeak by micro-batch\n";
  for (const auto& [batch, peak] : report.peaks)
    text << Row(std::to_string(batch), peak, report.budget);
  text << "\nLargest micro-batch that fits: " << report.largest_batch
       << (report.largest_batch == report.largest_tried ? " or more" : "") << "\n";
  text << Verdict(report);
  if (report.precision != "fp32") {
    text << "16-bit precision is not modelled yet: the figures are those of fp32.\n";
  }
  if (report.device != "cpu") {
    text << "Not included on a GPU: its context, the library's workspaces and the allocator's "
            "cache.\n";
  }
  char seconds[64];
  std::snprintf(seconds, sizeof seconds, "Planned in %.2f s.\n", report.seconds);
  text << seconds;
  return text.str();
}

std::string ApplyPlan(Config& config, int64_t budget) {
  const Rehearsal as_written = Rehearse(config, config.train.batch_size);
  const BatchPlan written = {config.train.batch_size, config.train.accumulate, as_written.peak};
  const std::string need = Batch(written) + " needs " + Gib(written.peak) + " of " + Gib(budget);
  if (written.peak <= budget) return "memory: " + need + "; it fits as written.";
  const BatchPlan chosen = ChooseBatch(config, budget);
  if (chosen.batch_size == 0) {
    throw Error(
        "the training step does not fit into memory, not even with one clip at a time: " + need,
        "memory.budget",
        "give it more memory, or make the network, the clips or data.crop smaller");
  }
  config.train.batch_size = chosen.batch_size;
  config.train.accumulate = chosen.accumulate;
  return "memory: " + need + " and would not fit. Training " + Batch(chosen) +
         " instead, which needs " + Gib(chosen.peak) + ": effective batch " +
         std::to_string(chosen.batch_size * chosen.accumulate) +
         " and learning rate are as configured. What differs: batch-norm statistics are taken "
         "over " +
         std::to_string(chosen.batch_size) + " clips at a time instead of " +
         std::to_string(written.batch_size) + ".";
}

}  // namespace kinefit
