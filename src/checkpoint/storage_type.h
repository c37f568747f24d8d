#pragma once

#include <ATen/ATen.h>

#include <string>

// Internal to src/checkpoint: how torch.save names element types.
namespace kinefit {

struct StorageType {
  at::ScalarType dtype;
  const char* storage;  // class of module torch: "FloatStorage"
  const char* name;     // attribute of module torch: "float32"
};

// nullptr if checkpoints cannot hold this type.
const StorageType* FindStorageType(at::ScalarType dtype);
// By "torch.FloatStorage" or "torch.float32".
const StorageType* FindStorageType(const std::string& full_name);

// All Python floats of a checkpoint lie in one storage of this name, as 0-dimensional float64
// tensors: the weights_only reader of PyTorch 1.13 knows no float.
inline constexpr char kFloatsKey[] = "floats";

}  // namespace kinefit
