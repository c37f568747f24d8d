#include "ops/dropout.h"

#include <algorithm>

#include "ops/batch_norm.h"
#include "ops/norm_gpu.h"

namespace kinefit {

at::Tensor DropoutMask(const at::Tensor& x, int64_t first_row, double dropout,
                       RandomStream& random) {
  const uint64_t seed = random.Bits();
  if (x.is_meta()) return at::empty_like(x);
  RandomStream stream(seed, "dropout");
  const int64_t skipped = first_row * x.numel() / std::max<int64_t>(x.size(0), 1);
  const float kept = dropout < 1 ? static_cast<float>(1 / (1 - dropout)) : 0.0F;
  if (RunsOnGpu(x)) {
    const at::Tensor mask = at::empty(x.sizes(), x.options().dtype(at::kFloat));
    GpuDropoutMask(stream, skipped, dropout, kept, mask);
    return mask.to(x.scalar_type());
  }
  for (int64_t i = skipped; i > 0; --i) stream.Chance(dropout);  // the rows of others
  at::Tensor mask = at::empty(x.sizes(), at::kFloat);
  float* values = mask.data_ptr<float>();
  for (int64_t i = 0; i < mask.numel(); ++i) values[i] = stream.Chance(dropout) ? 0.0F : kept;
  return mask.to(x.options());
}

}  // namespace kinefit
