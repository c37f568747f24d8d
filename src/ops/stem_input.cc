#include "ops/stem_input.h"

#include <vector>

#include "ops/batch_norm.h"
#include "ops/channels_last.h"
#include "ops/norm_gpu.h"

namespace kinefit {
namespace {

at::Tensor NormalisedBytes(const at::Tensor& x, const ByteNormalisation& bytes) {
  const auto options = x.options().dtype(at::kFloat);
  at::Tensor mean = at::empty({3}, options);
  at::Tensor std = at::empty({3}, options);
  for (int64_t c = 0; c < 3; ++c) {
    const auto i = static_cast<size_t>(c);
    mean.narrow(0, c, 1).fill_(bytes.mean[i]);
    std.narrow(0, c, 1).fill_(static_cast<double>(1.0F / static_cast<float>(bytes.std[i])));
  }
  return x.to(at::kFloat).sub_(mean).mul_(std).permute({0, 4, 1, 2, 3}).contiguous();
}

}  // namespace

at::Tensor StemInput(const at::Tensor& x, at::ScalarType type, const ByteNormalisation& bytes) {
  const bool are_bytes = x.scalar_type() == at::kByte;
  if (RunsOnGpu(x)) {
    if (are_bytes) return GpuStemInput(x, type, bytes);
    const bool doubles = x.scalar_type() == at::kDouble || type == at::kDouble;
    const at::ScalarType wide = doubles ? at::kDouble : at::kFloat;
    return GpuStemInput(x.to(wide), doubles ? at::kDouble : type, bytes);
  }
  const at::Tensor floats = are_bytes ? NormalisedBytes(x, bytes) : x;
  return type == at::kFloat ? floats : floats.to(type);
}

}  // namespace kinefit
