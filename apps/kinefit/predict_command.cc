#include <cstdio>
#include <memory>

#include "apps/kinefit/commands.h"
#include "apps/kinefit/run_setup.h"
#include "predict/predictor.h"
#include "report/format.h"
#include "report/table.h"

namespace kinefit {
namespace {

struct Arguments {
  std::string checkpoint;
  std::string video;
  std::string pose;
  std::vector<std::string> overrides;
  int64_t clips = 1;
  int64_t top = 5;
};

int RunPredict(const Arguments& arguments) {
  Predictor predictor(arguments.checkpoint, arguments.overrides);
  SetThreads(predictor.config());
  ApplyMemoryBudget(predictor.config());
  ApplyGpuBudget(predictor.config(), 1);
  std::fprintf(stderr, "%s\n", predictor.DeviceText().c_str());
  if (!predictor.unusual().empty()) {
    std::fprintf(stderr, "%s: %s\n", arguments.checkpoint.c_str(), predictor.unusual().c_str());
  }
  const std::vector<Prediction> predictions =
      predictor.Predict(arguments.video, arguments.pose, arguments.clips, arguments.top);
  std::vector<std::vector<std::string>> rows = {{"class", "name", "score"}};
  for (const auto& [stream, score] : predictions.front().per_stream) rows[0].push_back(stream);
  for (const Prediction& prediction : predictions) {
    std::vector<std::string> row = {std::to_string(prediction.label), prediction.name,
                                    FormatPercent(prediction.score)};
    for (const auto& [stream, score] : prediction.per_stream) row.push_back(FormatPercent(score));
    rows.push_back(std::move(row));
  }
  std::fputs(FormatTable(rows).c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddPredictCommand(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("predict", "name the action in one clip");
  command->add_option("checkpoint", arguments->checkpoint, "a checkpoint kinefit wrote (.pth)")
      ->required();
  command->add_option("video", arguments->video,
                      "the clip; may be left out for a pose-only network");
  command->add_option("--pose", arguments->pose,
                      "its skeletons: an annotation pickle, or .npz with keypoint [M,T,V,2] and "
                      "keypoint_score [M,T,V]");
  command->add_option("-k,--clips", arguments->clips, "clips to average")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("-n,--top", arguments->top, "classes to print")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_option("-s,--set", arguments->overrides, "override an option of its configuration")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  AddNonfiniteFlag(command);
  command->callback([=] { *exit_code = RunPredict(*arguments); });
}

}  // namespace kinefit
