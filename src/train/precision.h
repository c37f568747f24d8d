#pragma once

#include <ATen/ATen.h>

#include <string>

namespace kinefit {

// What the backbone computes in for config.train.precision on `device`: kFloat for "fp32",
// kBFloat16 for "bf16", kHalf for "fp16". Weights, batch statistics, heads, loss and the optimizer
// stay float32. Throws Error for an unknown name and for fp16 on a device that has no fp16
// arithmetic (the CPU).
at::ScalarType ComputeType(const std::string& precision, const at::Device& device);

}  // namespace kinefit
