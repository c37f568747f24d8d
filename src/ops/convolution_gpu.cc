#include "ops/convolution_gpu.h"

#include <array>
#include <tuple>
#include <utility>
#include <vector>

#include "libtorch/versions.h"
#include "ops/channels_last.h"

namespace kinefit {
namespace {

// The layer's weight as its convolution of x takes it: in x's dtype, channels-last, with zeros for
// the channels that x has beyond the layer's. Made anew only when the weight has changed, which its
// version or the place of its memory tells.
at::Tensor WeightFor(const at::Tensor& x, const ConvNorm& layer) {
  const at::Tensor weight = layer.weight.detach();
  const int64_t missing = layer.geometry.transposed ? 0 : x.size(1) - weight.size(1);
  if (weight.scalar_type() == x.scalar_type() && missing == 0) return ChannelsLast(weight);
  const auto make = [&](const at::Tensor& into) {
    at::Tensor own = missing == 0 ? into : into.narrow(1, 0, weight.size(1));
    own.copy_(weight);
    return into;
  };
  const auto empty = [&] {
    std::vector<int64_t> sizes = weight.sizes().vec();
    sizes[1] += missing;
    const auto options = weight.options().dtype(x.scalar_type()).memory_format(kChannelsLast);
    return missing == 0 ? at::empty(sizes, options) : at::empty(sizes, options).zero_();
  };
  if (layer.computed == nullptr) return make(empty());
  ComputedWeight& known = *layer.computed;
  const void* const place = weight.is_meta() ? nullptr : weight.data_ptr();
  const auto version = static_cast<int64_t>(layer.weight._version());
  const bool fits = known.value.defined() && known.value.scalar_type() == x.scalar_type() &&
                    known.value.size(1) == weight.size(1) + missing;
  if (!fits) known.value = empty();
  if (!fits || known.place != place || known.version != version) make(known.value);
  known.place = place;
  known.version = version;
  return known.value;
}

enum class Way { kProduct, kPictures, kMoments, kVolume };

// A convolution as one of fewer dimensions.
struct Flat {
  Way way = Way::kVolume;
  std::vector<int64_t> stride, padding, output_padding, dilation;

  Flat(const ConvolutionGeometry& g, const at::Tensor& weight)
      : stride(g.stride), padding(g.padding), output_padding(g.output_padding) {
    const bool one_frame =
        weight.size(2) == 1 && stride[0] == 1 && padding[0] == 0 && output_padding[0] == 0;
    const bool one_pixel = weight.size(3) == 1 && weight.size(4) == 1 && stride[1] == 1 &&
                           stride[2] == 1 && padding[1] == 0 && padding[2] == 0 &&
                           output_padding[1] == 0 && output_padding[2] == 0;
    const auto keep = [](std::vector<int64_t>* of, size_t a, size_t b, int64_t none, bool moments) {
      *of =
          moments ? std::vector<int64_t>{(*of)[a], none} : std::vector<int64_t>{(*of)[a], (*of)[b]};
    };
    if (one_frame && one_pixel && !g.transposed) {
      way = Way::kProduct;
    } else if (one_frame || one_pixel) {
      way = one_frame ? Way::kPictures : Way::kMoments;
      const size_t a = one_frame ? 1 : 0;
      keep(&stride, a, 2, 1, !one_frame);
      keep(&padding, a, 2, 0, !one_frame);
      keep(&output_padding, a, 2, 0, !one_frame);
    }
    dilation.assign(stride.size(), 1);
  }

  // Views of a channels-last feature map or weight.
  at::Tensor View(const at::Tensor& x) const {
    const int64_t n = x.size(0);
    const int64_t c = x.size(1);
    const int64_t t = x.size(2);
    const int64_t h = x.size(3);
    const int64_t w = x.size(4);
    switch (way) {
      case Way::kProduct:
        return x.as_strided({n * t * h * w, c}, {c, 1});
      case Way::kPictures:
        return x.as_strided({n * t, c, h, w}, {h * w * c, 1, w * c, c});
      case Way::kMoments:
        return x.as_strided({n, c, t, h * w}, {t * h * w * c, 1, h * w * c, c});
      default:
        return x;
    }
  }
  at::Tensor WeightView(const at::Tensor& x) const {
    const int64_t c = x.size(1);
    switch (way) {
      case Way::kProduct:
        return x.as_strided({x.size(0), c}, {c, 1});
      case Way::kPictures:
        return x.as_strided({x.size(0), c, x.size(3), x.size(4)},
                            {x.size(3) * x.size(4) * c, 1, x.size(4) * c, c});
      case Way::kMoments:
        return x.as_strided({x.size(0), c, x.size(2), 1}, {x.size(2) * c, 1, c, c});
      default:
        return x;
    }
  }
};

// `flat`, made by a convolution of fewer dimensions, as a channels-last map of `sizes`.
at::Tensor Volume(const at::Tensor& flat, at::IntArrayRef sizes) {
  at::Tensor dense = flat;
  if (flat.dim() == 4) dense = flat.contiguous(at::MemoryFormat::ChannelsLast);
  if (flat.dim() == 5) return ChannelsLast(flat);
  const int64_t c = sizes[1];
  const int64_t pixels = sizes[3] * sizes[4];
  return dense.as_strided(sizes, {sizes[2] * pixels * c, 1, pixels * c, sizes[4] * c, c});
}

std::vector<int64_t> OutputSizes(const at::Tensor& x, const ConvNorm& layer) {
  const ConvolutionGeometry& g = layer.geometry;
  const at::Tensor& w = layer.weight;
  std::vector<int64_t> sizes = {x.size(0), w.size(g.transposed ? 1 : 0)};
  for (size_t i = 0; i < 3; ++i) {
    const auto d = static_cast<int64_t>(i) + 2;
    sizes.push_back(g.transposed ? (x.size(d) - 1) * g.stride[i] - 2 * g.padding[i] + w.size(d) +
                                       g.output_padding[i]
                                 : (x.size(d) + 2 * g.padding[i] - w.size(d)) / g.stride[i] + 1);
  }
  return sizes;
}

// A gradient of `weight` as LibTorch's autograd takes it over without a copy: of its dtype, sizes
// and strides.
at::Tensor WeightGradient(const at::Tensor& of_computed, const at::Tensor& weight) {
  at::Tensor own = of_computed.narrow(1, 0, weight.size(1));
  if (own.scalar_type() == weight.scalar_type() && own.strides() == weight.strides()) return own;
  at::Tensor result = at::empty_like(weight);
  return result.copy_(own);
}

}  // namespace

at::Tensor GpuConvolve(const at::Tensor& input, const ConvNorm& layer) {
  const at::Tensor x = ChannelsLast(input);
  const at::Tensor weight = WeightFor(x, layer);
  const std::vector<int64_t> sizes = OutputSizes(x, layer);
  if (x.is_meta()) return at::empty(sizes, x.options().memory_format(kChannelsLast));
  const Flat flat(layer.geometry, weight);
  if (flat.way == Way::kProduct) {
    return Volume(at::mm(flat.View(x), flat.WeightView(weight).t()), sizes);
  }
  return Volume(
      at::convolution(flat.View(x), flat.WeightView(weight), {}, flat.stride, flat.padding,
                      flat.dilation, layer.geometry.transposed, flat.output_padding, /*groups=*/1),
      sizes);
}

ConvolutionGradients GpuConvolveBackward(const at::Tensor& given_grad, const at::Tensor& input,
                                         const ConvNorm& layer, bool want_input,
                                         at::Tensor add_to) {
  const at::Tensor x = ChannelsLast(input);
  const at::Tensor grad = ChannelsLast(given_grad);
  const at::Tensor weight = WeightFor(x, layer);
  const Flat flat(layer.geometry, weight);
  ConvolutionGradients result;
  if (x.is_meta()) {
    result.weight = WeightGradient(at::empty_like(weight), layer.weight.detach());
    const bool in_place = flat.way == Way::kProduct && add_to.defined();
    if (want_input && !in_place) result.input = at::empty_like(x);
    if (want_input && add_to.defined()) result.input = add_to;
    return result;
  }
  if (flat.way == Way::kProduct) {
    const at::Tensor g = flat.View(grad);
    const at::Tensor products = at::mm(g.t(), flat.View(x));
    result.weight = WeightGradient(products.as_strided(weight.sizes(), weight.strides()),
                                   layer.weight.detach());
    if (!want_input) return result;
    if (add_to.defined() && IsChannelsLast(add_to)) {
      flat.View(add_to).addmm_(g, flat.WeightView(weight));
      result.input = add_to;
      return result;
    }
    result.input = Volume(at::mm(g, flat.WeightView(weight)), x.sizes());
  } else {
    at::Tensor of_input;
    at::Tensor of_weight;
    std::tie(of_input, of_weight, std::ignore) = at::convolution_backward(
        flat.View(grad), flat.View(x), flat.WeightView(weight), {}, flat.stride, flat.padding,
        flat.dilation, layer.geometry.transposed, flat.output_padding, /*groups=*/1,
        {want_input, true, false});
    if (of_weight.dim() == 4) {
      of_weight = of_weight.contiguous(at::MemoryFormat::ChannelsLast)
                      .as_strided(weight.sizes(), weight.strides());
    }
    result.weight = WeightGradient(of_weight, layer.weight.detach());
    if (want_input) result.input = Volume(of_input, x.sizes());
  }
  if (want_input && add_to.defined()) result.input = add_to.add_(result.input);
  return result;
}

}  // namespace kinefit
