#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/run_setup.h"
#include "apps/kinefit/summary.h"
#include "config/load.h"
#include "config/validate.h"
#include "dataset/annotations.h"
#include "evaluate/confusion_plot.h"
#include "evaluate/evaluate.h"
#include "evaluate/results.h"
#include "files/error.h"
#include "model/network.h"
#include "report/format.h"
#include "report/progress.h"
#include "report/table.h"

namespace kinefit {
namespace {

struct Arguments {
  ConfigArguments config;
  std::string checkpoint;
  std::string split;
  std::string output;
  int64_t clips = 0;
  bool flip = false;
};

void WriteResults(const std::string& folder, const EvaluationResult& result,
                  const Dataset& dataset) {
  WriteCsv(folder + "/per_class.csv", PerClassRows(result.fused(), dataset.class_names));
  WriteCsv(folder + "/per_sample.csv", PerSampleRows(result, dataset.class_names));
  WriteCsv(folder + "/confusion.csv", ConfusionRows(result.fused(), dataset.class_names));
  WriteConfusionPng(folder + "/confusion.png", ConfusionMatrix(result.fused()), dataset.class_names,
                    "fused top-1 " + FormatPercent(TopKAccuracy(result.fused(), 1)));
  WriteScores(folder + "/scores.npz", result);
  WriteSummary(folder + "/summary.json", Summarise(result), result.ids.size());
}

int TestOnRank(const Arguments& arguments, const Config& config, Group& group) {
  if (!arguments.output.empty() && group.leads()) PrepareWorkDir(arguments.output, "--out");
  std::string split = arguments.split;
  if (split.empty()) split = config.data.test_split;
  if (split.empty()) split = config.data.val_split;
  const Dataset dataset = LoadDataset(config, split);
  for (const auto& entry : dataset.rejected) {
    if (!group.leads()) break;
    std::cout << "left out " << entry.id << ": " << entry.reason << "\n";
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
  for (const BadClip& clip : result.bad_clips) {
    std::cout << "left out " << clip.id << ": " << clip.reason << "\n";
  }
  std::cout << result.ids.size() << " samples of split \"" << split << "\", " << clips
            << (clips == 1 ? " clip" : " clips") << (flip ? " and its mirror image" : "")
            << " each\n\n"
            << FormatTable(SummaryRows(result)) << "\n"
            << FormatTable(PerClassRows(result.fused(), dataset.class_names));
  if (!arguments.output.empty()) {
    WriteResults(arguments.output, result, dataset);
    std::cout << "\nwrote summary.json, per_class.csv, per_sample.csv, confusion.csv, "
                 "confusion.png and scores.npz into "
              << arguments.output << "\n";
  }
  return kExitOk;
}

int RunTest(const Arguments& arguments) {
  LoadedConfig loaded = LoadConfig(arguments.config.path, arguments.config.overrides);
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
  command->callback([=] { *exit_code = RunTest(*arguments); });
}

}  // namespace kinefit
