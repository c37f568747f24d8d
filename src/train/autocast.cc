#include "train/autocast.h"

#include <ATen/autocast_mode.h>

#include "files/error.h"

namespace kinefit {

namespace autocast = at::autocast;

Precision ParsePrecision(const std::string& name, const at::Device& device) {
  if (name == "fp32") return Precision::kFp32;
  if (name == "bf16") return Precision::kBf16;
  if (name != "fp16") {
    throw Error("unknown precision \"" + name + "\"", "train.precision",
                "use \"fp32\", \"bf16\" or \"fp16\"");
  }
  if (!device.is_cuda()) {
    throw Error("fp16 training needs a GPU; the device is " + device.str(), "train.precision",
                "use \"bf16\" or \"fp32\" on the CPU");
  }
  return Precision::kFp16;
}

AutocastScope::AutocastScope(Precision precision, const at::Device& device)
    : active_(precision != Precision::kFp32), cuda_(device.is_cuda()) {
  if (!active_) return;
  const at::ScalarType dtype = precision == Precision::kBf16 ? at::kBFloat16 : at::kHalf;
  autocast::increment_nesting();
  if (cuda_) {
    was_enabled_ = autocast::is_enabled();
    was_dtype_ = autocast::get_autocast_gpu_dtype();
    autocast::set_autocast_gpu_dtype(dtype);
    autocast::set_enabled(true);
  } else {
    was_enabled_ = autocast::is_cpu_enabled();
    was_dtype_ = autocast::get_autocast_cpu_dtype();
    autocast::set_autocast_cpu_dtype(dtype);
    autocast::set_cpu_enabled(true);
  }
}

AutocastScope::~AutocastScope() {
  if (!active_) return;
  if (autocast::decrement_nesting() == 0) autocast::clear_cache();
  if (cuda_) {
    autocast::set_enabled(was_enabled_);
    autocast::set_autocast_gpu_dtype(was_dtype_);
  } else {
    autocast::set_cpu_enabled(was_enabled_);
    autocast::set_autocast_cpu_dtype(was_dtype_);
  }
}

}  // namespace kinefit
