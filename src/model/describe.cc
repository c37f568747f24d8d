#include "model/describe.h"

#include <algorithm>
#include <cstdio>

#include "model/network.h"

namespace kinefit {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text;
}

// "36,147,928".
std::string WithCommas(int64_t value) {
  std::string text = std::to_string(value);
  for (int64_t i = static_cast<int64_t>(text.size()) - 3; i > 0; i -= 3) {
    text.insert(static_cast<size_t>(i), 1, ',');
  }
  return text;
}

std::string Scaled(int64_t value, double unit) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f", static_cast<double>(value) / unit);
  return text;
}

constexpr double kMega = 1e6;
constexpr double kGiga = 1e9;
constexpr double kMebi = 1024.0 * 1024.0;

// First two columns to the left, the numbers to the right, two spaces between.
std::string Aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      text += (i == 0 ? "" : "  ") + (i < 2 ? row[i] + padding : padding + row[i]);
    }
    text += "\n";
  }
  return text;
}

}  // namespace

NetworkInput TrainingInputOnMeta(const Config& config, int64_t batch) {
  const auto options = at::TensorOptions().device(at::kMeta).dtype(at::kFloat);
  const DataConfig& data = config.data;
  NetworkInput input;
  if (config.model.has_rgb()) {
    input.imgs = at::empty(
        {batch, config.model.rgb.in_channels, data.rgb_frames, data.crop, data.crop}, options);
  }
  if (config.model.has_pose()) {
    // mmaction2's GeneratePoseTarget rounds the scaled size this way.
    const auto size =
        static_cast<int64_t>(static_cast<double>(data.crop) * data.heatmap.scaling + 0.5);
    input.heatmap_imgs =
        at::empty({batch, config.model.pose.in_channels, data.pose_frames, size, size}, options);
  }
  return input;
}

NetworkDescription DescribeNetwork(const Config& config) {
  const at::NoGradGuard no_grad;
  const auto network = MakeNetwork(config.model, at::TensorOptions().device(at::kMeta));
  LayerTrace trace;
  RandomStream unused(0, "describe");
  network->SetTrace(&trace);
  network->Forward(TrainingInputOnMeta(config, 1), unused);
  NetworkDescription description;
  description.layers = trace.records();
  for (const auto& [name, tensor] : network->parameters()) description.parameters += tensor.numel();
  for (const LayerRecord& layer : description.layers) {
    description.macs += layer.macs;
    description.activation_bytes += layer.activation_bytes;
  }
  return description;
}

std::string DescriptionText(const NetworkDescription& description) {
  std::vector<std::vector<std::string>> rows = {
      {"layer", "kind", "output", "parameters", "MMAC", "activations MiB"}};
  for (const LayerRecord& layer : description.layers) {
    rows.push_back({layer.name, layer.kind, ShapeText(layer.output), WithCommas(layer.parameters),
                    Scaled(layer.macs, kMega), Scaled(layer.activation_bytes, kMebi)});
  }
  return Aligned(rows) + "total: " + WithCommas(description.parameters) + " parameters, " +
         Scaled(description.macs, kGiga) + " GMAC forward and " +
         Scaled(description.activation_bytes, kMebi) + " MiB of activations per clip\n";
}

}  // namespace kinefit
