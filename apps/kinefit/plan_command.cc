#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/plan_files.h"
#include "apps/kinefit/plan_scaling.h"
#include "apps/kinefit/run_setup.h"
#include "config/load.h"
#include "config/validate.h"
#include "files/error.h"
#include "files/publish.h"
#include "memory/bytes.h"
#include "memory/cpu_allocator.h"
#include "memory/format_plan.h"
#include "memory/plan.h"
#include "train/measure_step.h"
#include "train/step_rehearsal.h"

namespace kinefit {
namespace {

struct Arguments {
  ConfigArguments config;
  std::string memory;
  std::string in_use;
  std::string margin;
  int64_t batch = 0;
  std::string svg;
  std::string html;
  bool exact = false;
  bool json = false;
  ScalingRequest scaling;
  bool scaling_asked = false;
  bool calibrate = false;
};

constexpr int kCalibrationSteps = 3;

// "5%" or "0.05".
double ParseShare(const std::string& text) {
  char* end = nullptr;
  double share = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  if (unit == "%") share /= 100;
  if (end == text.c_str() || (!unit.empty() && unit != "%") || !(share >= 0 && share < 1)) {
    throw Error("\"" + text + "\" is no share of the memory", "--margin",
                "write a percentage below 100, for example 5%");
  }
  return share;
}

int64_t Budget(const Arguments& arguments, const Config& config) {
  int64_t budget =
      arguments.memory.empty() ? DefaultBudget(config) : ParseBytes(arguments.memory, "--memory");
  if (budget <= 0) {
    throw Error("the memory of device \"" + config.device + "\" is not known here", "",
                "give it with --memory, e.g. --memory 39.39GiB");
  }
  if (!arguments.in_use.empty()) budget -= ParseBytes(arguments.in_use, "--in-use");
  if (budget <= 0) {
    throw Error("--in-use leaves nothing of the memory", "", "give the memory of the whole device");
  }
  return budget;
}

// Real steps of the plans, as much as this machine can hold of them.
std::vector<CalibratedPlan> CalibrateHere(Config config, const PlanReport& report) {
  config.memory.budget = "";  // that one is the plan's, which may be for another machine
  const int64_t memory = config.device == "cpu" ? DefaultBudget(config) : 0;
  SetMemoryBudget(memory);
  return Calibrate(config, report, memory, kCalibrationSteps);
}

std::string CalibrationText(const std::vector<CalibratedPlan>& plans) {
  std::string text =
      "\nMeasured here: real steps on random input, the largest peak and the median time of " +
      std::to_string(kCalibrationSteps) +
      "\n                 predicted       measured    error    s a step    time (predicted)\n";
  const double reference = plans.front().measured.seconds;
  for (const CalibratedPlan& entry : plans) {
    if (!entry.not_run.empty()) {
      text += "  " + entry.name + ": not run, " + entry.not_run + "\n";
      continue;
    }
    std::array<char, 200> row{};
    std::snprintf(row.data(), row.size(), "  %-11s %12s %14s %+6.2f %% %11.3f", entry.name.c_str(),
                  BytesText(entry.plan.peak).c_str(), BytesText(entry.measured.peak).c_str(),
                  100 * entry.error(), entry.measured.seconds);
    text += row.data();
    if (reference > 0) {
      std::snprintf(row.data(), row.size(), "      %4.2f (%4.2f)",
                    entry.measured.seconds / reference, entry.plan.time / plans.front().plan.time);
      text += row.data();
    }
    text += "\n";
  }
  return text;
}

int RunPlan(const Arguments& arguments) {
  LoadedConfig loaded = LoadConfig(arguments.config.path, arguments.config.overrides);
  Config& config = loaded.config;
  Validate(config, &loaded.provenance);
  SetThreads(config);
  if (arguments.batch > 0) config.train.batch_size = arguments.batch;
  PlanRequest request;
  request.budget = Budget(arguments, config);
  request.margin = arguments.margin.empty() ? config.memory.margin : ParseShare(arguments.margin);
  request.exact = arguments.exact || config.memory.exact;
  request.details = true;
  if (arguments.calibrate) NetworkOptions(config);  // throws if the device is not here
  const int64_t devices = arguments.scaling.devices;
  const PlanReport report = MakePlan(
      config, request, [devices](const Config& c) { return RehearseRankStep(c, devices); });
  if (!arguments.svg.empty()) PublishFile(arguments.svg, PlanSvg(report));
  if (!arguments.html.empty()) PublishFile(arguments.html, PlanHtml(report));
  std::vector<CalibratedPlan> calibration;
  if (arguments.calibrate) calibration = CalibrateHere(config, report);
  std::string text = arguments.json ? PlanJson(report, calibration) : FormatPlan(report);
  if (arguments.calibrate && !arguments.json) text += CalibrationText(calibration);
  if (arguments.scaling_asked && !arguments.json) {
    if (report.chosen >= 0) Apply(report.plans[static_cast<size_t>(report.chosen)], &config);
    text += "\n" + ScalingText(config, arguments.scaling);
  }
  std::fputs(text.c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddPlanCommand(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "plan",
      "what a training step needs in memory, and how to make it fit; allocates nothing "
      "of its size unless --calibrate is given");
  AddConfigArguments(command, &arguments->config);
  command->add_option("-m,--memory", arguments->memory,
                      "memory of the device, e.g. 39.39GiB (default: this machine's)");
  command->add_option("--in-use", arguments->in_use, "of which others already hold so much");
  command->add_option("-b,--batch", arguments->batch, "micro-batch instead of train.batch_size")
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--margin", arguments->margin,
                      "share of the memory to leave free, e.g. 5% (memory.margin)");
  command->add_flag("--exact", arguments->exact,
                    "choose only a plan that changes nothing in the mathematics (memory.exact)");
  command->add_flag("--json", arguments->json, "print the report as JSON, bytes as integers");
  command->add_option("--svg", arguments->svg, "also draw memory over the step into this file");
  command->add_option("--html", arguments->html, "also write picture and tables as one page");
  command->add_flag("--calibrate", arguments->calibrate,
                    "run a few real steps of the plan as written and of the chosen one here, and "
                    "print what they took beside what was predicted (CPU only)");
  const CLI::Option* devices =
      command
          ->add_option(
              "-d,--devices", arguments->scaling.devices,
              "train on so many devices: memory of the gradient buckets, and an estimate of "
              "how step time grows with devices")
          ->check(CLI::Range(1, 1 << 16));
  const CLI::Option* link =
      command->add_option("--link", arguments->scaling.link,
                          "speed of each device's link for that estimate (default 25GB/s)");
  command
      ->add_option("--step-time", arguments->scaling.step_seconds,
                   "measured seconds of a step on one device, for that estimate")
      ->check(CLI::PositiveNumber);
  command->callback([=] {
    arguments->scaling_asked = devices->count() > 0 || link->count() > 0;
    *exit_code = RunPlan(*arguments);
  });
}

}  // namespace kinefit
