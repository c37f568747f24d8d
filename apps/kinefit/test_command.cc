#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <unordered_map>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/results_folder.h"
#include "apps/kinefit/run_setup.h"
#include "apps/kinefit/summary.h"
#include "apps/kinefit/version.h"
#include "config/load.h"
#include "config/validate.h"
#include "dataset/annotations.h"
#include "evaluate/evaluate.h"
#include "evaluate/results.h"
#include "files/error.h"
#include "model/network.h"
#include "report/progress.h"
#include "report/table.h"

namespace kinefit {
namespace {

struct Arguments {
  ConfigArguments config;
  std::string checkpoint;
  std::string split;
  std::string output;
  std::string submission;
  int64_t clips = 0;
  int64_t label_offset = 0;
  const CLI::Option* label_offset_given = nullptr;
  bool flip = false;
  bool force = false;
};

// At most so many clips that cannot be used are named each; of a wrong --label-offset there are
// thousands.
constexpr size_t kMostNamed = 20;

void PrintLeftOut(const std::vector<std::pair<std::string, std::string>>& clips) {
  for (size_t i = 0; i < std::min(clips.size(), kMostNamed); ++i) {
    std::cout << "left out " << clips[i].first << ": " << clips[i].second << "\n";
  }
  if (clips.size() > kMostNamed) {
    std::cout << "left out " << clips.size() - kMostNamed << " more\n";
  }
}

// The challenge calls clips by their video files.
std::vector<std::string> VideoNames(const EvaluationResult& result, const Dataset& dataset,
                                    const DataConfig& data) {
  std::unordered_map<std::string, std::string> videos;
  for (const Sample& sample : dataset.samples) videos[sample.id] = sample.video;
  std::vector<std::string> names;
  for (const std::string& id : result.ids) {
    const std::string& video = videos[id];
    const std::filesystem::path path = video.empty() ? id + data.video_suffix : video;
    names.push_back(path.filename().string());
  }
  return names;
}

AnnotationSource SourceOf(const Arguments& arguments, const DataConfig& data) {
  AnnotationSource source = TestAnnotations(data);
  if (!arguments.split.empty()) source.split = arguments.split;
  return source;
}

void Print(const Summary& summary, const EvaluationResult& result, const Dataset& dataset) {
  const TestedWith& with = summary.with;
  std::cout << summary.samples << " samples of "
            << (with.split.empty() ? with.annotations : "split \"" + with.split + "\"") << ", "
            << with.clips << (with.clips == 1 ? " clip" : " clips")
            << (with.flip ? " and its mirror image" : "") << " each\n\n"
            << FormatTable(SummaryRows(result)) << "\n";
  if (!result.coarse.empty()) std::cout << FormatTable(CoarseSummaryRows(result)) << "\n";
  std::cout << FormatTable(PerClassRows(result.fused(), dataset.class_names));
}

void WriteFiles(const Arguments& arguments, const Config& config, const Summary& summary,
                const EvaluationResult& result, const Dataset& dataset) {
  if (!arguments.output.empty()) {
    const std::vector<std::string> names = WriteResults(
        arguments.output, result, summary, dataset.class_names, config.model.group_names);
    std::cout << "\nwrote ";
    for (size_t i = 0; i < names.size(); ++i) {
      std::cout << (i == 0 ? "" : i + 1 == names.size() ? " and " : ", ") << names[i];
    }
    std::cout << " into " << arguments.output << "\n";
  }
  if (!arguments.submission.empty()) {
    WriteCsv(arguments.submission,
             SubmissionRows(result, VideoNames(result, dataset, config.data)));
    std::cout << "\nwrote " << arguments.submission << "\n";
  }
}

// Better before the set is gone through than after.
void CheckOutputs(const Arguments& arguments, const Config& config) {
  if (!arguments.output.empty()) PrepareResultsFolder(arguments.output, arguments.force);
  if (arguments.submission.empty()) return;
  if (config.model.groups.empty()) SubmissionRows({}, {});  // says what is missing
  const std::filesystem::path folder =
      std::filesystem::path(arguments.submission).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder)) {
    throw Error("there is no folder for --submission", arguments.submission,
                "make it, or give another file name");
  }
}

int TestOnRank(const Arguments& arguments, const Config& config, Group& group) {
  if (group.leads()) CheckOutputs(arguments, config);
  const AnnotationSource source = SourceOf(arguments, config.data);
  const Dataset dataset = LoadDataset(config, source);
  if (group.leads()) {
    std::vector<std::pair<std::string, std::string>> rejected;
    for (const auto& entry : dataset.rejected) rejected.emplace_back(entry.id, entry.reason);
    PrintLeftOut(rejected);
  }
  const std::unique_ptr<Network> network = MakeNetwork(config.model, NetworkOptions(config));
  LoadTrainedWeights(*network, config.model.type, arguments.checkpoint);

  const int64_t clips = arguments.clips > 0 ? arguments.clips : config.eval.test_clips;
  const bool flip = arguments.flip || config.eval.flip;
  Progress progress(std::cout, DetectTerminal(STDOUT_FILENO), 1);
  const EvaluationResult result = Evaluate(
      *network, dataset, config, clips, flip,
      [&](int64_t done, int64_t total) {
        if (!group.leads()) return;
        progress.Note("testing " + std::to_string(done) + "/" + std::to_string(total));
      },
      &group);
  progress.Finish();
  if (!group.leads()) return kExitOk;
  std::vector<std::pair<std::string, std::string>> bad;
  for (const BadClip& clip : result.bad_clips) bad.emplace_back(clip.id, clip.reason);
  PrintLeftOut(bad);
  const Summary summary = MakeSummary(
      result, {arguments.checkpoint, arguments.config.path, source.path, source.split, clips, flip,
               config.data.label_offset, StreamWeights(result, config.eval), VersionText()});
  Print(summary, result, dataset);
  WriteFiles(arguments, config, summary, result, dataset);
  return kExitOk;
}

int RunTest(const Arguments& arguments) {
  std::vector<std::string> overrides = arguments.config.overrides;
  if (arguments.label_offset_given->count() > 0) {
    overrides.push_back("data.label_offset=" + std::to_string(arguments.label_offset));
  }
  LoadedConfig loaded = LoadConfig(arguments.config.path, overrides);
  Config& config = loaded.config;
  const RankEnvironment environment = ReadRankEnvironment();
  ChooseDevice(environment, &config);
  Validate(config, &loaded.provenance);
  PrepareRank(environment, &config);
  Ranks ranks(environment, config);
  return ranks.Run([&] { return TestOnRank(arguments, config, ranks.group()); });
}

}  // namespace

void AddTestCommand(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "test", "evaluate a checkpoint: per stream and fused, per class, confusion matrix, scores");
  AddConfigArguments(command, &arguments->config);
  command->add_option("checkpoint", arguments->checkpoint, "weights to evaluate (.pth)")
      ->required();
  command
      ->add_option("-k,--clips", arguments->clips,
                   "clips per sample, averaged (default: eval.test_clips)")
      ->check(CLI::Range(1, 1000));
  command->add_flag("--flip", arguments->flip, "average with the mirrored clips (eval.flip)");
  command->add_option("--split", arguments->split, "split to evaluate (default: data.test_split)");
  command->add_option("-o,--out", arguments->output,
                      "folder for tables, confusion matrix and scores");
  command->add_flag("--force", arguments->force,
                    "write into --out even if it holds something else than a test's results");
  command->add_option("--submission", arguments->submission,
                      "file in the form of the micro-action challenge (.csv): each clip's five best "
                      "classes and best groups");
  arguments->label_offset_given =
      command
          ->add_option("--label-offset", arguments->label_offset,
                       "added to every annotation's label, for checkpoints that were trained on "
                       "shifted labels (data.label_offset)")
          ->check(CLI::Range(-99999, 99999));
  command->callback([=] { *exit_code = RunTest(*arguments); });
}

}  // namespace kinefit
