#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/run_setup.h"
#include "config/load.h"
#include "config/options.h"
#include "config/toml_tree.h"
#include "config/validate.h"
#include "dataset/annotations.h"
#include "evaluate/evaluate.h"
#include "evaluate/results.h"
#include "files/error.h"
#include "memory/format_plan.h"
#include "memory/plan.h"
#include "model/network.h"
#include "report/format.h"
#include "report/json_log.h"
#include "report/progress.h"
#include "train/agreement.h"
#include "train/step_rehearsal.h"
#include "train/trainer.h"

namespace kinefit {
namespace {

volatile bool g_interrupted = false;
volatile std::sig_atomic_t g_signal = 0;

// Whether a launcher watches this process. It passes signals on, and ends the ranks itself at its
// second one; a rank that got one and the same signal twice, from the launcher and from whoever
// signals whole groups of processes (systemd, Slurm), must not end before it has saved.
volatile bool g_launched = false;

// The first signal asks for a checkpoint after the current step; a second one of the same kind
// ends the process at once, as it would have without this handler.
void OnSignal(int number) {
  g_interrupted = true;
  g_signal = number;
  if (!g_launched) std::signal(number, SIG_DFL);
}

ProgressStep ToProgress(const StepReport& report) {
  ProgressStep step;
  step.epoch = report.epoch;
  step.step_in_epoch = report.step_in_epoch;
  step.steps_per_epoch = report.steps_per_epoch;
  step.iteration = report.iteration;
  step.total_iterations = report.total_iterations;
  step.loss = report.loss;
  step.losses = report.losses;
  step.top1 = report.top1;
  step.lr = report.lr;
  step.grad_norm = report.grad_norm;
  step.samples = report.samples;
  step.seconds = report.seconds;
  step.wait_seconds = report.wait_seconds;
  step.memory_bytes = report.memory_bytes;
  step.tensor_bytes = report.tensor_bytes;
  step.skipped = report.skipped;
  return step;
}

// Shows what the loop reports and, on the rank that has it, writes it to the run's log.
class RunReporter : public TrainObserver {
 public:
  RunReporter(Progress& progress, JsonLog* log) : progress_(progress), log_(log) {}

  void OnMessage(const std::string& text) override {
    progress_.Message(text);
    if (log_ != nullptr) log_->Message(text);
  }
  void OnStep(const StepReport& report) override {
    const ProgressStep step = ToProgress(report);
    progress_.Step(step);
    if (log_ != nullptr) log_->Step(step);
  }
  void OnValidation(int64_t epoch, const ValidationResult& result, bool best) override {
    std::string text = "epoch " + std::to_string(epoch + 1) + " validation: fused top-1 " +
                       FormatPercent(result.fused_top1);
    for (const auto& [name, value] : result.metrics) {
      if (name.rfind("top1/", 0) == 0 && name != "top1/fused") {
        text += ", " + name.substr(5) + " " + FormatPercent(value);
      }
    }
    progress_.Message(text + (best ? " (best so far)" : ""));
    if (log_ != nullptr) log_->Validation(epoch, result.metrics, best);
  }
  void OnBadClips(int64_t epoch, const std::vector<BadClip>& clips, int64_t samples) override {
    if (clips.empty()) return;
    std::vector<std::pair<std::string, std::string>> named;
    progress_.Message("epoch " + std::to_string(epoch + 1) + ": " + std::to_string(clips.size()) +
                      " of " + std::to_string(samples) + " clips could not be used:");
    for (const BadClip& clip : clips) {
      progress_.Message("  " + clip.id + ": " + clip.reason);
      named.emplace_back(clip.id, clip.reason);
    }
    if (log_ != nullptr) log_->BadClips(epoch, named, samples);
  }
  void OnCheckpoint(const std::string& path) override {
    if (log_ != nullptr) log_->Checkpoint(path);
  }

 private:
  Progress& progress_;
  JsonLog* log_;  // may be null
};

void ReportRejected(const Dataset& dataset, const std::string& what, double max_share,
                    RunReporter& reporter) {
  if (dataset.rejected.empty()) return;
  reporter.OnMessage(what + ": " + std::to_string(dataset.rejected.size()) +
                     " annotations cannot be used and are left out:");
  for (const auto& entry : dataset.rejected) {
    reporter.OnMessage("  " + entry.id + ": " + entry.reason);
  }
  const double total = static_cast<double>(dataset.samples.size() + dataset.rejected.size());
  if (static_cast<double>(dataset.rejected.size()) > max_share * total) {
    throw Error(std::to_string(dataset.rejected.size()) + " of " +
                    std::to_string(static_cast<int64_t>(total)) + " " + what +
                    " annotations cannot be used, first " + dataset.rejected[0].id + ": " +
                    dataset.rejected[0].reason,
                "", "repair the annotations or raise data.max_bad_share");
  }
}

Dataset LoadPart(const Config& config, Part part, const std::string& what, RunReporter& reporter) {
  Dataset dataset = LoadDataset(config, part);
  ReportRejected(dataset, what, config.data.max_bad_share, reporter);
  return dataset;
}

// Makes the run fit into memory as memory.plan says.
void PlanMemory(Config& config, int64_t world, RunReporter& reporter) {
  PlanRequest request;
  request.budget = DefaultBudget(config);
  request.margin = config.memory.margin;
  request.exact = config.memory.exact;
  if (config.memory.plan == "off" || request.budget <= 0) {
    if (config.memory.recompute == "auto") config.memory.recompute = "lean";
    return;
  }
  const PlanReport report =
      MakePlan(config, request, [world](const Config& c) { return RehearseRankStep(c, world); });
  const bool possible = report.fits() || (config.memory.plan == "auto" && report.chosen >= 0);
  if (!possible) {
    throw Error("the training step does not fit into memory: " + PlanParagraph(report),
                "memory.plan = \"" + config.memory.plan + "\"",
                config.memory.plan == "auto"
                    ? "give it more memory, or make the network, the clips or data.crop smaller"
                    : "set memory.plan = \"auto\", or see `kinefit plan` for what would fit");
  }
  reporter.OnMessage(PlanParagraph(report));
  Apply(report.plans[static_cast<size_t>(report.chosen)], &config);
}

// Rank 0 plans for all: another's memory may differ by a little.
void PlanTogether(Config& config, Group& group, RunReporter& reporter) {
  if (group.leads()) PlanMemory(config, group.world(), reporter);
  Recovery::Decision unused;
  ShareDecision(group, &unused, &config);
}

// Where a rank writes what it has to say: rank 0 to standard output, the others each to its log.
class RankOutput {
 public:
  RankOutput(const Group& group, const std::string& work_dir) {
    if (group.leads()) return;
    const std::string path = work_dir + "/rank_" + std::to_string(group.rank()) + ".log";
    log_.open(path, std::ios::app);
    if (!log_) throw Error("cannot write this rank's log", path, "free some space there");
  }
  std::ostream& stream() { return log_.is_open() ? log_ : std::cout; }
  Terminal terminal() const { return log_.is_open() ? Terminal() : DetectTerminal(STDOUT_FILENO); }

 private:
  std::ofstream log_;
};

// The validation of the loop, by all ranks together.
Validator MakeValidator(const Dataset& val_set, Group& group, Progress& progress,
                        RunReporter& reporter) {
  return [&val_set, &group, &progress, &reporter](Network& trained, const Config& now) {
    const EvaluationResult result = Evaluate(
        trained, val_set, now, now.eval.val_clips, false,
        [&](int64_t done, int64_t total) {
          if (g_interrupted) throw StopAsked();  // the loop knows and validates on resume
          progress.Note("validating " + std::to_string(done) + "/" + std::to_string(total));
        },
        &group);
    if (!result.bad_clips.empty()) {
      reporter.OnMessage("validation left out " + std::to_string(result.bad_clips.size()) +
                         " unreadable clips, first " + result.bad_clips[0].id + ": " +
                         result.bad_clips[0].reason);
    }
    ValidationResult validation;
    validation.fused_top1 = TopKAccuracy(result.fused(), 1);
    validation.metrics = NamedMetrics(result);
    return validation;
  };
}

void ReportEnd(const TrainResult& result) {
  std::cout << (result.end == TrainEnd::kEarlyStop ? "stopped early" : "finished") << " after "
            << result.iterations << " iterations; last checkpoint " << result.last_checkpoint;
  if (!result.best_checkpoint.empty()) {
    std::cout << "\nbest fused top-1 " << FormatPercent(result.best_top1) << ": "
              << result.best_checkpoint;
  }
  std::cout << "\n";
}

// What stopped the run, on all ranks alike: the signal of the first rank that got one.
int SignalOfAll(Group& group) {
  for (const std::string& number : group.Gather(std::to_string(g_signal))) {
    if (number != "0") return std::stoi(number);
  }
  return SIGTERM;
}

// This rank's part of the run.
int TrainOnRank(Config& config, Group& group) {
  const auto starting = [&group] { group.Tell(-1, RankPhase::kStarting); };  // a sign of life
  starting();
  PrepareWorkDir(config.train.work_dir, "--work-dir");
  std::optional<WorkDirLock> lock;
  if (group.leads()) lock.emplace(config.train.work_dir);
  RankOutput output(group, config.train.work_dir);
  Progress progress(output.stream(), output.terminal(), config.train.log_every);
  std::optional<JsonLog> log;
  if (group.leads()) log.emplace(config.train.work_dir + "/log.jsonl");
  RunReporter reporter(progress, log ? &*log : nullptr);

  const Dataset train_set = LoadPart(config, Part::kTrain, "training", reporter);
  Dataset val_set;
  if (config.train.val_every > 0) {
    val_set = LoadPart(config, Part::kVal, "validation", reporter);
  }
  starting();
  PlanTogether(config, group, reporter);
  starting();

  const std::unique_ptr<Network> network = MakeNetwork(config.model, NetworkOptions(config));
  InitialiseNetwork(*network, config.model, static_cast<uint64_t>(config.seed));
  network->SetRecompute(
      ParseRecompute(config.memory.recompute, network->Segments(), "memory.recompute"));
  Validator validator;
  if (config.train.val_every > 0) validator = MakeValidator(val_set, group, progress, reporter);

  g_launched = std::getenv("KINEFIT_STATUS_DIR") != nullptr;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    // What was started to ignore it (nohup, a background job) goes on ignoring it.
    if (std::signal(number, OnSignal) == SIG_IGN) std::signal(number, SIG_IGN);
  }
  const TrainResult result = Train(*network, config, train_set, validator, DumpConfig(config),
                                   reporter, &g_interrupted, &group);
  progress.Finish();
  group.Tell(result.iterations, RankPhase::kEnding);
  if (result.end == TrainEnd::kInterrupted) {
    const int stopped_by = SignalOfAll(group);
    if (group.leads()) {
      std::cout << "stopped by a signal; saved " << result.last_checkpoint
                << "; the same command continues\n";
    }
    return 128 + stopped_by;
  }
  if (group.leads()) ReportEnd(result);
  return kExitOk;
}

int RunTrain(const ConfigArguments& arguments) {
  LoadedConfig loaded = LoadConfig(arguments.path, arguments.overrides);
  Config& config = loaded.config;
  const RankEnvironment environment = ReadRankEnvironment();
  ChooseDevice(environment, &config);
  ValidateTraining(config, &loaded.provenance);
  PrepareRank(environment, &config);
  Ranks ranks(environment, config);
  return ranks.Run([&] { return TrainOnRank(config, ranks.group()); });
}

struct TrainArguments {
  ConfigArguments config;
  std::string work_dir;
  std::string resume;
  std::string budget;
  const CLI::Option* work_dir_given = nullptr;
  const CLI::Option* resume_given = nullptr;
  const CLI::Option* budget_given = nullptr;

  // With the flags that stand for options of the configuration.
  ConfigArguments All() const {
    ConfigArguments all = config;
    const auto set = [&](const CLI::Option* given, const char* key, const std::string& value) {
      if (given->count() > 0) all.overrides.push_back(std::string(key) + "=" + QuoteToml(value));
    };
    set(work_dir_given, "train.work_dir", work_dir);
    set(resume_given, "train.resume", resume);
    set(budget_given, "memory.budget", budget);
    return all;
  }
};

void AddTrainArguments(CLI::App* command, TrainArguments* arguments) {
  AddConfigArguments(command, &arguments->config);
  arguments->work_dir_given = command->add_option(
      "-w,--work-dir", arguments->work_dir, "folder for checkpoints and log (train.work_dir)");
  arguments->resume_given =
      command->add_option("--resume", arguments->resume,
                          "auto: newest valid checkpoint in the work dir; never; or a checkpoint "
                          "(train.resume)");
  arguments->budget_given = command->add_option(
      "--memory-budget", arguments->budget, "memory the run may use, e.g. 6GiB (memory.budget)");
}

}  // namespace

ConfigArguments ParseTrainCommand(const std::vector<std::string>& words) {
  CLI::App app("", "kinefit train");
  TrainArguments arguments;
  AddTrainArguments(&app, &arguments);
  app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them reversed
  return arguments.All();
}

void AddTrainCommand(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* command = app.add_subcommand(
      "train", "train a network; the same command continues a run that was stopped or killed");
  AddTrainArguments(command, arguments.get());
  command->callback([=] { *exit_code = RunTrain(arguments->All()); });
}

}  // namespace kinefit
