#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/log_input.h"
#include "apps/kinefit/run_setup.h"
#include "config/load.h"
#include "config/validate.h"
#include "files/error.h"
#include "memory/bytes.h"
#include "memory/diagnosis.h"
#include "memory/format_plan.h"
#include "memory/plan.h"
#include "train/step_rehearsal.h"

namespace kinefit {
namespace {

// Further messages of a log are listed by line only.
constexpr size_t kExplainedInFull = 8;
constexpr size_t kWidth = 96;

struct Arguments {
  std::string input = "-";
  ConfigArguments config;
  bool json = false;
};

// What the configuration needs, planned for the memory that the messages leave it.
struct Planned {
  PlanReport now;                   // with what others hold
  std::optional<PlanReport> alone;  // if nobody else held anything; absent: no difference
  std::string basis;                // where the budget comes from, one sentence
};

PlanReport PlanWithin(const Config& config, int64_t budget) {
  PlanRequest request;
  request.budget = budget;
  request.margin = config.memory.margin;
  request.exact = config.memory.exact;
  request.details = true;
  return MakePlan(config, request, RehearseStep);
}

// The diagnosis whose process has the least memory to plan with: all ranks need the same.
const Diagnosis* Tightest(const std::vector<Diagnosis>& diagnoses) {
  const Diagnosis* least = nullptr;
  for (const Diagnosis& d : diagnoses) {
    if (d.available && (least == nullptr || *d.available < *least->available)) least = &d;
  }
  return least;
}

bool IsHostMemory(const Diagnosis& d) { return d.cause == OomCause::kHostMemory; }

// Throws Error for a bad configuration. Absent: no message says how much memory there is.
std::optional<Planned> PlanFor(const Arguments& arguments,
                               const std::vector<Diagnosis>& diagnoses) {
  LoadedConfig loaded = LoadConfig(arguments.config.path, arguments.config.overrides);
  Config& config = loaded.config;
  Validate(config, &loaded.provenance);
  SetThreads(config);
  Planned planned;
  const Diagnosis* d = Tightest(diagnoses);
  if (d == nullptr) {
    if (!std::any_of(diagnoses.begin(), diagnoses.end(), IsHostMemory)) return std::nullopt;
    config.device = "cpu";
    planned.now = PlanWithin(config, DefaultBudget(config));
    planned.basis =
        "The budget is this machine's memory; on the one where it failed it may differ.";
    return planned;
  }
  if (d->cause == OomCause::kBudget) {
    planned.now = PlanWithin(config, *d->available);
    planned.basis = "The budget is the one in the message.";
    return planned;
  }
  config.device = "cuda";
  planned.now = PlanWithin(config, *d->available);
  planned.basis = "The budget is what the message of line " + std::to_string(d->message.line) +
                  " leaves this process: " + FormatAmount(*d->message.capacity) + " less " +
                  FormatAmount(*d->message.capacity - *d->available) +
                  " in which it has no tensors.";
  if (d->if_alone && *d->if_alone > *d->available + *d->message.capacity / 100) {
    planned.alone = PlanWithin(config, *d->if_alone);
  }
  return planned;
}

// `text` in lines of at most kWidth columns, each after `indent` blanks, the first after `lead`.
std::string Wrap(const std::string& text, size_t indent, const std::string& lead = "") {
  std::string wrapped = lead + std::string(indent - std::min(indent, lead.size()), ' ');
  size_t column = wrapped.size();
  size_t begin = 0;
  bool first = true;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const size_t length = end - begin;
    if (!first && column + 1 + length > kWidth) {
      wrapped += "\n" + std::string(indent, ' ');
      column = indent;
      first = true;
    }
    if (!first) wrapped += ' ', ++column;
    wrapped.append(text, begin, length);
    column += length;
    first = false;
    begin = end + 1;
  }
  return wrapped + "\n";
}

// Hundredths of `unit`, which add up to those of the total: what rounding leaves over goes to the
// largest share that the message does not state itself.
std::vector<int64_t> Hundredths(const std::vector<MemoryShare>& shares, int64_t total,
                                double unit) {
  const auto round = [&](int64_t bytes) {
    return std::llround(100 * static_cast<double>(bytes) / unit);
  };
  std::vector<int64_t> parts;
  int64_t sum = 0;
  size_t takes = 0;
  const auto derived = [&](size_t i) {
    const Holder h = shares[i].holder;
    return h != Holder::kTensors && h != Holder::kFree && h != Holder::kOtherProcess;
  };
  for (size_t i = 0; i < shares.size(); ++i) {
    parts.push_back(round(shares[i].bytes));
    sum += parts.back();
    if (std::make_pair(derived(i), shares[i].bytes) >
        std::make_pair(derived(takes), shares[takes].bytes)) {
      takes = i;
    }
  }
  if (!parts.empty()) parts[takes] += round(total) - sum;
  return parts;
}

std::string SharesText(const Diagnosis& d) {
  if (d.shares.empty() || !d.message.capacity) return "";
  const int64_t total = *d.message.capacity;
  const bool gib = total >= int64_t{1} << 30;
  const double unit = gib ? 0x1p30 : 0x1p20;
  const auto row = [&](const std::string& what, int64_t hundredths, double percent) {
    std::array<char, 200> text{};
    std::snprintf(text.data(), text.size(), "  %-64s %10.2f %s %6.1f %%\n", what.c_str(),
                  static_cast<double>(hundredths) / 100, gib ? "GiB" : "MiB", percent);
    return std::string(text.data());
  };
  const std::vector<int64_t> parts = Hundredths(d.shares, total, unit);
  std::string text;
  int64_t sum = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    sum += parts[i];
    text += row(d.shares[i].what, parts[i],
                100 * static_cast<double>(d.shares[i].bytes) / static_cast<double>(total));
  }
  return text + row(d.cause == OomCause::kBudget ? "the budget" : "capacity", sum, 100) + "\n";
}

std::string Where(const OomMessage& m) {
  std::string where = "line " + std::to_string(m.line);
  if (m.rank) where += ", rank " + std::to_string(*m.rank);
  if (m.count > 1) where += ", " + std::to_string(m.count) + " times";
  return where;
}

std::string DiagnosisText(const Diagnosis& d) {
  std::string text = Wrap(d.headline + " (" + Where(d.message) + ")", 0);
  text += "  | " + d.message.excerpt + "\n\n" + SharesText(d);
  text += "Why\n" + Wrap(d.why, 2);
  for (const std::string& note : d.notes) text += Wrap("Note: " + note, 2);
  text += "What to do\n";
  for (size_t i = 0; i < d.advice.size(); ++i) {
    text += Wrap(d.advice[i], 5, "  " + std::to_string(i + 1) + ".");
  }
  return text;
}

std::string PlannedText(const Arguments& arguments, const std::optional<Planned>& planned) {
  std::string text = "\nWhat " + arguments.config.path + " really needs\n";
  if (!planned) {
    return text + Wrap("No message says how much memory the GPU has: `kinefit plan " +
                           arguments.config.path +
                           " -s device=cuda --memory 40GiB` takes it from "
                           "you.",
                       2);
  }
  text += Wrap(planned->basis, 2);
  if (planned->alone) {
    text += Wrap("With the GPU to itself, " + PlanParagraph(*planned->alone) + ".", 2);
  }
  return text + "\n" + FormatPlan(planned->now);
}

std::string ReportText(const LogInput& input, const std::vector<Diagnosis>& diagnoses,
                       int64_t left_out) {
  std::string text;
  if (input.left_out > 0) {
    text += Wrap("Only the last " + FormatAmount(static_cast<int64_t>(input.text.size())) + " of " +
                     input.name + " were read; lines are counted from there.",
                 0) +
            "\n";
  }
  if (diagnoses.size() > 1) {
    text += std::to_string(diagnoses.size()) + " different messages in " + input.name + ".\n\n";
  }
  for (size_t i = 0; i < std::min(diagnoses.size(), kExplainedInFull); ++i) {
    text += (i > 0 ? "\n" : "") + DiagnosisText(diagnoses[i]);
  }
  if (diagnoses.size() > kExplainedInFull) text += "\nAlso found\n";
  for (size_t i = kExplainedInFull; i < diagnoses.size(); ++i) {
    const Diagnosis& d = diagnoses[i];
    text += Wrap(d.headline + " (" + Where(d.message) + "): " + NameOf(d.cause), 2);
  }
  if (left_out > 0) text += "and " + std::to_string(left_out) + " more\n";
  const std::vector<std::string> together = DiagnoseTogether(diagnoses);
  if (!together.empty()) text += "\nTogether\n";
  for (const std::string& sentence : together) text += Wrap(sentence, 2);
  return text;
}

using Json = nlohmann::ordered_json;

template <typename T>
void PutIf(Json* json, const char* key, const std::optional<T>& value) {
  if (value) (*json)[key] = *value;
}

Json FiguresJson(const OomMessage& m) {
  Json json = Json::object();
  PutIf(&json, "requested", m.requested);
  PutIf(&json, "capacity", m.capacity);
  PutIf(&json, "free", m.free);
  PutIf(&json, "allowed", m.allowed);
  PutIf(&json, "largest", m.largest);
  PutIf(&json, "allocated", m.allocated);
  PutIf(&json, "graphs", m.graphs);
  PutIf(&json, "unused", m.unused);
  PutIf(&json, "process", m.process);
  for (const GpuProcess& process : m.others) {
    Json entry = {{"pid", process.pid}};
    PutIf(&entry, "bytes", process.bytes);
    json["others"].push_back(entry);
  }
  if (!m.program.empty()) json["program"] = m.program;
  PutIf(&json, "pid", m.pid);
  PutIf(&json, "memory", m.memory);
  return json;
}

Json DiagnosisJson(const Diagnosis& d) {
  const OomMessage& m = d.message;
  Json json = {{"headline", d.headline}, {"cause", NameOf(d.cause)}, {"source", m.source}};
  json["line"] = m.line;
  json["count"] = m.count;
  PutIf(&json, "rank", m.rank);
  PutIf(&json, "gpu", m.gpu);
  json["bytes"] = FiguresJson(m);
  json["shares"] = Json::array();
  for (const MemoryShare& share : d.shares) {
    json["shares"].push_back(
        {{"holder", NameOf(share.holder)}, {"what", share.what}, {"bytes", share.bytes}});
  }
  PutIf(&json, "available", d.available);
  PutIf(&json, "if_alone", d.if_alone);
  json["why"] = d.why;
  json["advice"] = d.advice;
  json["notes"] = d.notes;
  json["excerpt"] = m.excerpt;
  return json;
}

Json PlanJson(const PlanReport& report) {
  const auto way = [](const Plan& plan) {
    return Json{{"batch_size", plan.batch_size},
                {"accumulate", plan.accumulate},
                {"recompute", plan.recompute},
                {"precision", plan.precision},
                {"peak", plan.peak},
                {"need", plan.need},
                {"changes", plan.changes}};
  };
  Json json = {{"device", report.device},
               {"budget", report.request.budget},
               {"fits", report.fits()},
               {"as_written", way(report.as_written)},
               {"chosen", nullptr}};
  if (report.chosen >= 0) json["chosen"] = way(report.plans.at(static_cast<size_t>(report.chosen)));
  return json;
}

std::string ReportJson(const Arguments& arguments, const LogInput& input,
                       const std::vector<Diagnosis>& diagnoses, int64_t left_out,
                       const std::optional<Planned>& planned) {
  Json json = {{"input", input.name},
               {"bytes_read", input.text.size()},
               {"bytes_left_out", input.left_out},
               {"messages_left_out", left_out}};
  json["messages"] = Json::array();
  for (const Diagnosis& d : diagnoses) json["messages"].push_back(DiagnosisJson(d));
  json["together"] = DiagnoseTogether(diagnoses);
  if (!arguments.config.path.empty()) {
    json["plan"] = nullptr;
    if (planned) json["plan"] = {{"basis", planned->basis}, {"now", PlanJson(planned->now)}};
    if (planned && planned->alone) json["plan"]["alone"] = PlanJson(*planned->alone);
  }
  // Whatever bytes a log holds, the output is valid.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

int RunExplainOom(const Arguments& arguments) {
  if (arguments.config.path.empty() && !arguments.config.overrides.empty()) {
    throw Error("--set changes a configuration, and none is given", "",
                "name it with --config CONFIG");
  }
  const LogInput input = ReadLog(arguments.input);
  int64_t left_out = 0;
  std::vector<Diagnosis> diagnoses;
  for (const OomMessage& message : FindOomMessages(input.text, &left_out)) {
    diagnoses.push_back(Diagnose(message));
  }
  if (diagnoses.empty()) {
    std::string known;
    for (const std::string& line : KnownOomMessages()) known += "\n    " + line;
    throw Error("no out-of-memory message was found", input.name,
                "give the whole message or log; these are known:" + known);
  }
  std::optional<Planned> planned;
  if (!arguments.config.path.empty()) planned = PlanFor(arguments, diagnoses);
  if (arguments.json) {
    std::fputs(ReportJson(arguments, input, diagnoses, left_out, planned).c_str(), stdout);
    return kExitOk;
  }
  std::fputs(ReportText(input, diagnoses, left_out).c_str(), stdout);
  if (!arguments.config.path.empty()) {
    std::fputs(PlannedText(arguments, planned).c_str(), stdout);
  }
  return kExitOk;
}

}  // namespace

void AddExplainOomCommand(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "explain-oom",
      "where the memory went, from an out-of-memory message of any PyTorch program or of kinefit");
  command->add_option("input", arguments->input,
                      "log or pasted message; - or nothing: standard input");
  command->add_option("-c,--config", arguments->config.path,
                      "also plan this configuration for the memory that was left");
  command
      ->add_option("-s,--set", arguments->config.overrides,
                   "override one option of it, e.g. --set train.batch_size=8 (repeatable)")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_flag("--json", arguments->json, "print JSON; amounts in bytes");
  command->callback([=] { *exit_code = RunExplainOom(*arguments); });
}

}  // namespace kinefit
