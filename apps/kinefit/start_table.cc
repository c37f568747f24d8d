#include "apps/kinefit/start_table.h"

#include <ATen/Parallel.h>

#include <cstdio>

#include "apps/kinefit/version.h"
#include "report/table.h"

namespace kinefit {
namespace {

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

// "36,147,928".
std::string Grouped(int64_t number) {
  std::string text = std::to_string(number);
  for (auto at = static_cast<int64_t>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

std::string Batch(const TrainConfig& train, int64_t world) {
  return std::to_string(train.batch_size * train.accumulate * world) + " clips a step = " +
         std::to_string(train.batch_size) + " at once x " + std::to_string(train.accumulate) +
         " accumulated x " + std::to_string(world) + (world == 1 ? " rank" : " ranks");
}

std::string Rate(const TrainConfig& train, int64_t world) {
  const double lr = train.optimizer.lr;
  if (train.base_batch_size <= 0) return Number(lr);
  const auto effective = static_cast<double>(train.batch_size * train.accumulate * world);
  return Number(lr * effective / static_cast<double>(train.base_batch_size)) + ", scaled from " +
         Number(lr) + " for " + std::to_string(train.base_batch_size) + " clips";
}

}  // namespace

std::string StartTable(const Config& config, const Network& network,
                       const std::vector<std::pair<std::string, const Dataset*>>& sets,
                       int64_t world, bool trains) {
  int64_t parameters = 0;
  for (const NamedTensor& parameter : network.parameters()) parameters += parameter.tensor.numel();
  const std::string version = VersionText();
  std::string device = config.device;
  if (device == "cpu") device += ", " + std::to_string(at::get_num_threads()) + " threads";
  if (world > 1) device += ", on each of " + std::to_string(world) + " ranks";
  std::vector<std::vector<std::string>> rows = {
      {"version", version.substr(0, version.find('\n'))},
      {"device", device},
      {"network", config.model.type + ", " + Grouped(parameters) + " parameters, " +
                      std::to_string(config.model.num_classes) + " classes"}};
  for (const auto& [what, set] : sets) {
    rows.push_back({what, std::to_string(set->samples.size()) + " clips"});
  }
  if (trains) {
    rows.push_back({"batch", Batch(config.train, world)});
    rows.push_back({"learning rate", Rate(config.train, world)});
    rows.push_back({"precision", config.train.precision});
    rows.push_back({"recompute", config.memory.recompute});
    rows.push_back({"work dir", config.train.work_dir});
  }
  return FormatTable(rows);
}

}  // namespace kinefit
