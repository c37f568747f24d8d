#include "ops/max_pool.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "ops/batch_norm.h"
#include "ops/gradient_node.h"
#include "ops/max_pool_rows.h"
#include "ops/norm_gpu.h"

namespace kinefit {
namespace {

constexpr int64_t kWindow = kPoolWindow;
constexpr int64_t kPadding = kPoolPadding;

// All frames of all channels, one plane after the other.
struct Planes : PoolPlane {
  int64_t count;

  int64_t pixels() const { return height * width; }
  int64_t out_pixels() const { return out_height * out_width; }
  // Planes that are worth a thread.
  int64_t grain() const { return std::max<int64_t>(1, 16384 / std::max<int64_t>(pixels(), 1)); }
};

template <typename T>
void PoolPlanes(const at::Tensor& x, const Planes& p, const at::Tensor& out,
                const at::Tensor& places) {
  at::parallel_for(0, p.count, p.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      MaxOfWindows(static_cast<const T*>(x.data_ptr()) + i * p.pixels(), p,
                   static_cast<T*>(out.data_ptr()) + i * p.out_pixels(),
                   places.data_ptr<uint8_t>() + i * p.out_pixels());
    }
  });
}

template <typename T>
void UnpoolPlane(const T* grad, const uint8_t* places, const Planes& p, T* out) {
  std::fill(out, out + p.height * p.width, T(0));
  for (int64_t y = 0; y < p.out_height; ++y) {
    for (int64_t x = 0; x < p.out_width; ++x) {
      const int64_t place = *places++;
      const int64_t row = y * p.stride - kPadding + place / kWindow;
      const int64_t column = x * p.stride - kPadding + place % kWindow;
      T& target = out[row * p.width + column];
      target = static_cast<T>(target + *grad++);
    }
  }
}

// ATen's places are row * width + column in the input; ours are relative to the window.
at::Tensor Origins(const Planes& p, const at::TensorOptions& options) {
  const auto longs = options.dtype(at::kLong);
  const at::Tensor tops = at::arange(p.out_height, longs).mul_(p.stride).sub_(kPadding);
  const at::Tensor lefts = at::arange(p.out_width, longs).mul_(p.stride).sub_(kPadding);
  return tops.mul(p.width).unsqueeze(1) + lefts.unsqueeze(0);
}

std::pair<at::Tensor, at::Tensor> Pool(const at::Tensor& x, const Planes& p) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[3] = p.out_height;
  sizes[4] = p.out_width;
  if (RunsCpuLoops(x)) {
    at::Tensor out = at::empty(sizes, x.options());
    at::Tensor places = at::empty(sizes, x.options().dtype(at::kByte));
    if (x.is_meta()) return {out, places};
    if (x.scalar_type() == at::kBFloat16) {
      PoolPlanes<BFloat16Bits>(x, p, out, places);
    } else {
      AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "MaxPool3x3",
                                 [&] { PoolPlanes<scalar_t>(x, p, out, places); });
    }
    return {out, places};
  }
  auto [out, indices] =
      at::max_pool2d_with_indices(x.view({1, p.count, p.height, p.width}), {kWindow, kWindow},
                                  {p.stride, p.stride}, {kPadding, kPadding});
  at::Tensor place = indices.sub_(Origins(p, x.options()));  // row * width + column in the window
  place.sub_(place.div(p.width, "floor").mul_(p.width - kWindow));
  return {out.view(sizes), place.to(at::kByte).view(sizes)};
}

at::Tensor Unpool(const at::Tensor& grad, const at::Tensor& places, const Planes& p,
                  at::IntArrayRef sizes) {
  if (RunsCpuLoops(grad)) {
    at::Tensor out = at::empty(sizes, grad.options());
    if (grad.is_meta()) return out;
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, grad.scalar_type(), "MaxPool3x3Backward", [&] {
      at::parallel_for(0, p.count, p.grain(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t at = i * p.out_pixels();
          UnpoolPlane(grad.data_ptr<scalar_t>() + at, places.data_ptr<uint8_t>() + at, p,
                      out.data_ptr<scalar_t>() + i * p.pixels());
        }
      });
    });
    return out;
  }
  const at::Tensor indices = places.view({1, p.count, p.out_height, p.out_width}).to(at::kLong);
  indices.add_(indices.div(kWindow, "floor").mul_(p.width - kWindow));
  indices.add_(Origins(p, grad.options()));
  const at::Tensor like = at::empty({1, p.count, p.height, p.width}, grad.options());
  return at::max_pool2d_with_indices_backward(grad.view({1, p.count, p.out_height, p.out_width}),
                                              like, {kWindow, kWindow}, {p.stride, p.stride},
                                              {kPadding, kPadding}, {1, 1}, false, indices)
      .view(sizes);
}

class MaxPoolNode : public GradientNode {
 public:
  MaxPoolNode(at::Tensor places, const Planes& planes, at::IntArrayRef sizes)
      : places_(std::move(places)), planes_(planes), sizes_(sizes.vec()) {}

 private:
  Tensors Backward(at::Tensor grad) override { return {Unpool(grad, places_, planes_, sizes_)}; }
  void Release() override { places_ = at::Tensor(); }

  at::Tensor places_;
  Planes planes_;
  std::vector<int64_t> sizes_;
};

// On a GPU.
class GpuMaxPoolNode : public GradientNode {
 public:
  GpuMaxPoolNode(at::Tensor places, at::IntArrayRef sizes, int64_t stride)
      : places_(std::move(places)), sizes_(sizes.vec()), stride_(stride) {}

 private:
  Tensors Backward(at::Tensor grad) override {
    return {GpuMaxPoolBackward(grad, places_, sizes_, stride_)};
  }
  void Release() override { places_ = at::Tensor(); }

  at::Tensor places_;
  std::vector<int64_t> sizes_;
  int64_t stride_;
};

at::Tensor PoolOnGpu(const at::Tensor& x, int64_t stride) {
  GpuPooled pooled;
  {
    const at::NoGradGuard no_grad;
    pooled = GpuMaxPool(x, stride);
  }
  if (NeedsGradient({x})) {
    Attach(new GpuMaxPoolNode(pooled.places, x.sizes(), stride), {x}, pooled.value);
  }
  return pooled.value;
}

}  // namespace

at::Tensor MaxPool3x3(const at::Tensor& input, int64_t stride) {
  TORCH_CHECK(input.dim() == 5 && input.size(3) > 0 && input.size(4) > 0,
              "MaxPool3x3 takes [N, C, T, H, W]");
  if (RunsOnGpu(input)) return PoolOnGpu(input, stride);
  const auto out = [&](int64_t size) { return (size + 2 * kPadding - kWindow) / stride + 1; };
  const at::Tensor x = input.contiguous();
  const Planes planes{{x.size(3), x.size(4), out(x.size(3)), out(x.size(4)), stride},
                      x.size(0) * x.size(1) * x.size(2)};
  at::Tensor result;
  at::Tensor places;
  {
    const at::NoGradGuard no_grad;
    std::tie(result, places) = Pool(x, planes);
  }
  if (NeedsGradient({x})) Attach(new MaxPoolNode(places, planes, x.sizes()), {x}, result);
  return result;
}

}  // namespace kinefit
