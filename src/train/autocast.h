#pragma once

#include <ATen/ATen.h>

#include <string>

namespace kinefit {

// How the forward pass computes: "fp32" (as written), "bf16" or "fp16" (autocast: convolutions and
// matrix products in 16 bits, the rest and the weights in float32).
enum class Precision { kFp32, kBf16, kFp16 };

// Parses config.train.precision for a run on `device`. Throws Error for an unknown name and for
// fp16 on a device that has no fp16 arithmetic (the CPU).
Precision ParsePrecision(const std::string& name, const at::Device& device);

// Autocast for the lifetime of the object, on the device's kind; nothing for kFp32. Put it around
// the forward pass only: backward follows the types that forward chose. The cast copies of the
// weights are dropped when the outermost scope ends, so each step casts the weights it has.
class AutocastScope {
 public:
  AutocastScope(Precision precision, const at::Device& device);
  ~AutocastScope();
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  bool active_;
  bool cuda_;
  bool was_enabled_ = false;
  at::ScalarType was_dtype_ = at::kFloat;
};

}  // namespace kinefit
