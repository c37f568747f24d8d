#include "train/initial_weights.h"

#include <utility>

#include "checkpoint/checkpoint.h"
#include "files/error.h"
#include "model/merge.h"
#include "model/weights_kind.h"

namespace kinefit {
namespace {

NamedTensors WeightsOf(const std::string& path) {
  if (path.empty()) return {};
  return StateDictOf(ReadCheckpoint(path), path, /*ema=*/true);
}

}  // namespace

std::vector<std::string> LoadInitialWeights(const Config& config, Network& network) {
  const TrainConfig& train = config.train;
  const bool merge = !train.init_rgb.empty() || !train.init_pose.empty();
  if (train.init.empty() && !merge) return {};
  if (!train.init.empty() && merge) {
    throw Error("train.init and train.init_rgb / train.init_pose exclude each other", train.init,
                "keep one of them");
  }
  NamedTensors targets;
  for (const NamedTensor& entry : network.StateDict()) {
    targets.emplace_back(entry.name, entry.tensor);
  }
  if (!merge) {
    const NamedTensors weights = WeightsOf(train.init);
    RequireKind(weights, config.model.type, train.init);
    const LoadReport report = LoadInto(targets, weights, train.init_strict, train.init);
    return {"initial weights from " + train.init + ": " + report.Summary()};
  }
  if (!config.model.has_rgb() || !config.model.has_pose()) {
    throw Error("train.init_rgb and train.init_pose are for two-stream networks; model.type is \"" +
                    config.model.type + "\"",
                train.init_rgb.empty() ? train.init_pose : train.init_rgb, "use train.init");
  }
  const bool both = !train.init_rgb.empty() && !train.init_pose.empty();
  const std::string files = train.init_rgb + (both ? " and " : "") + train.init_pose;
  const NamedTensors merged =
      MergeSingleStreams(WeightsOf(train.init_rgb), WeightsOf(train.init_pose), network);
  // Two files say nothing about what joins the streams, so a merge is never complete.
  const LoadReport report = LoadInto(targets, merged, train.init_strict, files);
  return {"initial weights merged from " + files + ": " + report.Summary()};
}

}  // namespace kinefit
