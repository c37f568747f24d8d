#include "apps/kinefit/arrays.h"

#include "files/error.h"

namespace kinefit {

at::Tensor RequireArray(const NpzArrays& arrays, const std::string& name, int64_t channels,
                        const std::string& file) {
  const auto found = arrays.find(name);
  if (found == arrays.end()) {
    throw Error("the file holds no array `" + name + "`", file,
                "save it with numpy.savez(file, " + name + "=...)");
  }
  const NdArray& array = found->second;
  if (array.shape.size() != 5 || array.shape[1] != channels || array.numel() == 0) {
    throw Error("`" + name + "` has shape " + array.ShapeText() + ", the network takes [N, " +
                    std::to_string(channels) + ", T, H, W]",
                file, "give it that shape, or use the configuration of the network it is for");
  }
  std::vector<float> values = array.ToFloats();
  return at::from_blob(values.data(), array.shape, at::TensorOptions(at::kFloat)).clone();
}

NdArray ToNdArray(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  const float* data = flat.data_ptr<float>();
  return NdArray::FromFloats(flat.sizes().vec(), std::vector<float>(data, data + flat.numel()));
}

}  // namespace kinefit
