#include "memory/format_plan.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>

namespace kinefit {
namespace {

constexpr size_t kLayersShown = 10;
constexpr size_t kPlansShown = 14;

std::string Formatted(const char* format, double value) {
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

std::string Row(const std::string& name, int64_t bytes, int64_t of) {
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(), "  %-44s %12s %5.1f %%\n", name.c_str(),
                BytesText(bytes).c_str(),
                100.0 * static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(of, 1)));
  return text.data();
}

std::string BatchText(const Plan& plan) {
  std::string text = "batch " + std::to_string(plan.batch_size);
  if (plan.accumulate > 1) text += " x " + std::to_string(plan.accumulate) + " accumulated";
  return text;
}

std::string Breakdown(const Rehearsal& r) {
  std::string text = "\nAt the peak\n";
  text += Row("activations kept for the backward pass", r.saved, r.peak);
  text += Row("temporaries", r.temporaries, r.peak);
  text += Row("convolutions' workspace", r.workspace, r.peak);
  text += Row("weights and batch-norm statistics", r.weights, r.peak);
  text += Row("gradients", r.gradients, r.peak);
  text += Row("optimizer state and averaged weights", r.optimizer, r.peak);
  text += Row("input batch", r.input, r.peak);
  text += Row("prefetched batches", r.prefetch, r.peak);
  if (r.reserved > 0) {
    text += "On the GPU the caching allocator then holds " + BytesText(r.reserved) +
            ", and context and workspaces take " + BytesText(r.outside) + " beside it.\n";
  }
  if (r.validation_peak > 0) {
    text += "Validation takes " + BytesText(r.validation_peak) + ".\n";
  }
  return text;
}

std::string Curve(const Rehearsal& r) {
  static const std::array<const char*, 8> kBars = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string text = "\nMemory over the step (forward, backward, update)\n  ";
  for (size_t i = 0; i < r.curve.size(); i += 2) {
    const int64_t most = std::max(r.curve[i], i + 1 < r.curve.size() ? r.curve[i + 1] : 0);
    const int64_t level = most * 8 / std::max<int64_t>(r.peak + 1, 1);
    text += kBars[static_cast<size_t>(std::clamp<int64_t>(level, 0, 7))];
  }
  return text + "\n";
}

std::string Changes(const Plan& plan) {
  std::string text;
  for (const std::string& change : plan.changes) text += (text.empty() ? "" : "; ") + change;
  return text.empty() ? "nothing" : text;
}

std::string Table(const PlanReport& report) {
  std::string text =
      "\nPlans with the same effective batch, learning rate and order of data, fastest first\n"
      "     micro-batch  recompute                          precision      needs   time  what it "
      "changes\n";
  for (size_t i = 0; i < report.plans.size(); ++i) {
    const Plan& plan = report.plans[i];
    const bool chosen = static_cast<int>(i) == report.chosen;
    if (i >= kPlansShown && !chosen) continue;
    const std::string batch =
        std::to_string(plan.batch_size) + " x " + std::to_string(plan.accumulate);
    std::array<char, 400> row{};
    std::snprintf(row.data(), row.size(), "  %s%s %10s  %-34s %-9s %10s %6.2f  ",
                  chosen ? ">" : " ", plan.fits ? "+" : "-", batch.c_str(), plan.recompute.c_str(),
                  plan.precision.c_str(), BytesText(plan.need).c_str(), plan.time);
    text += row.data() + Changes(plan) + "\n";
  }
  if (report.plans.size() > kPlansShown) {
    text += "  (" + std::to_string(report.plans.size() - kPlansShown) + " slower ones not shown)\n";
  }
  return text +
         "  > chosen, + fits, - does not; time is an estimate, 1 = the plain step as written\n";
}

std::string Verdict(const PlanReport& report) {
  if (report.fits()) return "\nIt fits as written.\n";
  if (report.chosen < 0) {
    return report.request.exact
               ? "\nIt does not fit, and no plan that changes nothing does.\n"
               : "\nIt does not fit, and neither does a single clip with everything recomputed.\n";
  }
  const Plan& plan = report.plans[static_cast<size_t>(report.chosen)];
  return "\nIt does not fit as written. The fastest plan that does: " + BatchText(plan) +
         ", recompute \"" + plan.recompute + "\", which needs " + BytesText(plan.need) +
         ". Effective batch and learning rate stay as they are; what it changes: " + Changes(plan) +
         ".\n";
}

std::string LearningRates(const PlanReport& report) {
  std::string text = "\nIf you want another effective batch, scale the learning rate with it:";
  for (const double factor : {0.5, 0.8, 2.0, 4.0}) {
    const double batch = static_cast<double>(report.effective_batch) * factor;
    if (batch < 1 || batch != static_cast<double>(static_cast<int64_t>(batch))) continue;
    text += " " + Formatted("%.0f", batch) + ": " + Formatted("%g", report.lr * factor) + ",";
  }
  text.back() = '.';
  return text + " (now " + std::to_string(report.effective_batch) + ": " +
         Formatted("%g", report.lr) + ")\n";
}

}  // namespace

std::string BytesText(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return bytes < int64_t{1} << 30 ? Formatted("%.1f MiB", value / 0x1p20)
                                  : Formatted("%.2f GiB", value / 0x1p30);
}

std::string FormatPlan(const PlanReport& report) {
  const Rehearsal& r = report.rehearsal;
  std::ostringstream text;
  text << BatchText(report.as_written) << " on " << report.device << ", "
       << report.as_written.precision << ", recompute \"" << report.as_written.recompute
       << "\": needs " << BytesText(report.as_written.need) << " of " << BytesText(report.budget);
  if (report.request.margin > 0) {
    text << " (" << BytesText(report.request.budget) << " less "
         << Formatted("%g", 100 * report.request.margin) << " % margin)";
  }
  text << "\n" << Breakdown(r) << "\nLargest layers at the peak\n";
  for (size_t i = 0; i < std::min(kLayersShown, r.layers.size()); ++i) {
    text << Row(r.layers[i].name, r.layers[i].bytes, r.peak);
  }
  text << Curve(r);
  if (report.largest_tried > 0) {
    text << "\nLargest micro-batch that fits as written otherwise: " << report.largest_batch
         << (report.largest_batch == report.largest_tried ? " or more" : "") << "\n";
  }
  text << Table(report) << Verdict(report) << LearningRates(report);
  text << "Planned in " << Formatted("%.2f", report.seconds) << " s with " << report.rehearsals
       << " rehearsals of the step.\n";
  return text.str();
}

std::string PlanParagraph(const PlanReport& report) {
  std::string text = "memory: " + BatchText(report.as_written) + ", recompute " +
                     report.as_written.recompute + ", needs " + BytesText(report.as_written.need) +
                     " of " + BytesText(report.budget);
  if (report.fits()) return text + "; it fits as written";
  if (report.chosen < 0) return text + " and does not fit in any way";
  const Plan& plan = report.plans[static_cast<size_t>(report.chosen)];
  return text + " and would not fit. Training " + BatchText(plan) + ", recompute " +
         plan.recompute + ", instead, which needs " + BytesText(plan.need) + ": effective batch " +
         std::to_string(report.effective_batch) +
         " and learning rate are as configured. What differs: " + Changes(plan);
}

}  // namespace kinefit
