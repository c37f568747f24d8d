#include "train/precision.h"

#include "files/error.h"

namespace kinefit {

at::ScalarType ComputeType(const std::string& precision, const at::Device& device) {
  if (precision == "fp32") return at::kFloat;
  if (precision == "bf16") return at::kBFloat16;
  if (precision != "fp16") {
    throw Error("unknown precision \"" + precision + "\"", "train.precision",
                "use \"fp32\", \"bf16\" or \"fp16\"");
  }
  if (device.is_cpu()) {
    throw Error("fp16 training needs a GPU; the device is " + device.str(), "train.precision",
                "use \"bf16\" or \"fp32\" on the CPU");
  }
  return at::kHalf;
}

}  // namespace kinefit
