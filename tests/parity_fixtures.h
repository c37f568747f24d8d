#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "files/npy.h"
#include "model/network.h"

namespace kinefit::testing {

// The reference's inputs and outputs; their README has the tolerances.
inline const std::string kFixtures = std::string(KINEFIT_SHARED) + "/parity/";

inline at::Tensor ToTensor(const NdArray& array) {
  at::ScalarType type = at::kFloat;
  if (array.dtype == DType::kInt64) type = at::kLong;
  if (array.dtype == DType::kFloat64) type = at::kDouble;
  at::Tensor tensor = at::empty(array.shape, type);
  EXPECT_EQ(array.bytes.size(), tensor.nbytes());
  std::copy(array.bytes.begin(), array.bytes.end(), static_cast<char*>(tensor.data_ptr()));
  return tensor;
}

// The network that the fixtures call "tiny".
inline ModelConfig TinyConfig() {
  ModelConfig config;
  config.num_classes = 7;
  config.rgb.base_channels = 8;
  config.pose.base_channels = 4;
  config.head.dropout = 0;
  return config;
}

// With the weights of a fixture.
inline std::unique_ptr<Network> TinyNetwork(const std::string& file,
                                            const at::TensorOptions& options = at::kFloat) {
  auto network = MakeNetwork(TinyConfig(), options);
  const std::string path = kFixtures + file;
  std::vector<std::pair<std::string, at::Tensor>> target;
  for (const auto& [name, tensor] : network->StateDict()) target.emplace_back(name, tensor);
  LoadInto(target, StateDictOf(ReadCheckpoint(path), path), /*strict=*/true, path);
  return network;
}

// Largest difference relative to the largest value of `want`.
inline double RelativeError(const at::Tensor& got, const at::Tensor& want) {
  EXPECT_EQ(got.sizes(), want.sizes());
  const double largest = want.abs().max().item<double>();
  const double difference = (got.to(want.device()) - want).abs().max().item<double>();
  return difference / std::max(largest, 1e-30);
}

}  // namespace kinefit::testing
