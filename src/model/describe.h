#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "model/layers.h"

namespace kinefit {

// Every layer of a network in the order in which they run, for one clip.
struct NetworkDescription {
  std::vector<LayerRecord> layers;
  int64_t parameters = 0;        // of the whole network
  int64_t macs = 0;              // of one forward pass
  int64_t activation_bytes = 0;  // float32, see LayerRecord
};

// Inputs of the network without data, on the meta device, as the training pipeline makes them:
// `batch` clips of data.crop pixels, heatmaps scaled by data.heatmap.scaling, float32.
NetworkInput TrainingInputOnMeta(const Config& config, int64_t batch);

// Follows the shapes of one training clip through the network itself; nothing of its size is ever
// allocated. Throws Error for a configuration that makes no network.
NetworkDescription DescribeNetwork(const Config& config);

// The description as a table with a line of totals.
std::string DescriptionText(const NetworkDescription& description);

}  // namespace kinefit
