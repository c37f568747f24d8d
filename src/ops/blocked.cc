#include "ops/blocked.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <dnnl.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "ops/batch_norm.h"
#include "ops/conv_norm.h"

namespace kinefit {
namespace {

using dnnl::memory;
using Sizes = std::vector<int64_t>;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

constexpr auto kFloat32 = memory::data_type::f32;

memory::desc Dense(const Sizes& sizes) { return {sizes, kFloat32, memory::format_tag::abcde}; }
memory::desc Any(const Sizes& sizes) { return {sizes, kFloat32, memory::format_tag::any}; }
memory::desc Blocked(const Sizes& sizes) { return {sizes, kFloat32, memory::format_tag::aBcde16b}; }

// [N, C, T, H, W] of a blocked tensor.
Sizes FeatureSizes(const at::Tensor& x) {
  return {x.size(0), x.size(1) * x.size(5), x.size(2), x.size(3), x.size(4)};
}
Sizes BlockedSizes(const Sizes& sizes) {
  const int64_t block = ChannelBlock();
  return {sizes[0], sizes[1] / block, sizes[2], sizes[3], sizes[4], block};
}

// One primitive with the layouts it wants. Making one compiles code, so they are kept.
struct Primitive {
  dnnl::primitive run;
  memory::desc weights;  // of the weight or its gradient
  int64_t scratch_bytes = 0;
};

enum class Pass { kForward, kBackwardInput, kBackwardWeight };

struct Shape {
  Sizes input, weight, output, stride, padding;
};

Shape ShapeOf(const Sizes& input, const ConvNorm& layer) {
  Shape s{input, layer.weight.sizes().vec(), input, layer.geometry.stride, layer.geometry.padding};
  s.output[1] = s.weight[0];
  for (size_t i = 0; i < 3; ++i) {
    s.output[2 + i] = (input[2 + i] + 2 * s.padding[i] - s.weight[2 + i]) / s.stride[i] + 1;
  }
  return s;
}

template <typename Description>
Primitive Finish(const Description& pd, const memory::desc& weights) {
  return {dnnl::primitive(pd), weights, static_cast<int64_t>(pd.scratchpad_desc().get_size())};
}

Primitive MakePrimitive(Pass pass, const Shape& s) {
  const auto direct = dnnl::algorithm::convolution_direct;
  const memory::desc x = Blocked(s.input);
  const memory::desc y = Blocked(s.output);
  const memory::desc w = Any(s.weight);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // so that it is counted
  const dnnl::convolution_forward::primitive_desc forward(
      {dnnl::prop_kind::forward_training, direct, x, w, y, s.stride, s.padding, s.padding},
      attributes, Engine());
  if (pass == Pass::kForward) return Finish(forward, forward.weights_desc());
  if (pass == Pass::kBackwardInput) {
    const dnnl::convolution_backward_data::primitive_desc pd(
        {direct, x, w, y, s.stride, s.padding, s.padding}, attributes, Engine(), forward);
    return Finish(pd, pd.weights_desc());
  }
  const dnnl::convolution_backward_weights::primitive_desc pd(
      {direct, x, w, y, s.stride, s.padding, s.padding}, attributes, Engine(), forward);
  return Finish(pd, pd.diff_weights_desc());
}

Sizes KeyOf(Pass pass, const Shape& s) {
  Sizes key = {static_cast<int64_t>(pass), at::get_num_threads()};
  for (const Sizes* part : {&s.input, &s.weight, &s.stride, &s.padding}) {
    key.insert(key.end(), part->begin(), part->end());
  }
  return key;
}

std::shared_ptr<const Primitive> PrimitiveFor(Pass pass, const Shape& shape) {
  static std::mutex mutex;
  static std::map<Sizes, std::shared_ptr<const Primitive>> kept;
  constexpr size_t kMost = 2048;  // a planner looks at many batch sizes
  const Sizes key = KeyOf(pass, shape);
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = kept.find(key);
  if (found != kept.end()) return found->second;
  if (kept.size() >= kMost) kept.clear();
  auto made = std::make_shared<const Primitive>(MakePrimitive(pass, shape));
  kept[key] = made;
  return made;
}

memory In(const memory::desc& layout, const at::Tensor& x) {
  return {layout, Engine(), x.data_ptr()};
}

at::Tensor Bytes(int64_t count, const at::Tensor& like) {
  return at::empty({count}, like.options().dtype(at::kByte));
}

void Reorder(const memory::desc& from, const at::Tensor& x, const memory::desc& to,
             const at::Tensor& y) {
  dnnl::stream stream(Engine());
  memory source = In(from, x);
  memory target = In(to, y);
  dnnl::reorder(source, target).execute(stream, source, target);
  stream.wait();
}

// The weight as `layout` has it; its memory is as large as the layout says.
at::Tensor WeightsAs(const memory::desc& layout, const at::Tensor& weight) {
  const memory::desc dense = Dense(weight.sizes().vec());
  if (layout == dense) return weight;
  const at::Tensor result = Bytes(static_cast<int64_t>(layout.get_size()), weight);
  if (!weight.is_meta()) Reorder(dense, weight, layout, result);
  return result;
}

void Execute(const Primitive& primitive, std::unordered_map<int, memory> arguments,
             const at::Tensor& like) {
  const at::Tensor scratch = Bytes(primitive.scratch_bytes, like);
  if (like.is_meta()) return;
  if (primitive.scratch_bytes > 0) {
    const memory::desc bytes({primitive.scratch_bytes}, memory::data_type::u8,
                             memory::format_tag::a);
    arguments[DNNL_ARG_SCRATCHPAD] = In(bytes, scratch);
  }
  dnnl::stream stream(Engine());
  primitive.run.execute(stream, arguments);
  stream.wait();
}

at::Tensor InputGradient(const at::Tensor& grad, const Shape& shape, const at::Tensor& weight) {
  const auto primitive = PrimitiveFor(Pass::kBackwardInput, shape);
  const at::Tensor result = at::empty(BlockedSizes(shape.input), grad.options());
  const at::Tensor w = WeightsAs(primitive->weights, weight);
  Execute(*primitive,
          {{DNNL_ARG_DIFF_DST, In(Blocked(shape.output), grad)},
           {DNNL_ARG_WEIGHTS, In(primitive->weights, w)},
           {DNNL_ARG_DIFF_SRC, In(Blocked(shape.input), result)}},
          grad);
  return result;
}

at::Tensor WeightGradient(const at::Tensor& grad, const at::Tensor& x, const Shape& shape) {
  const auto primitive = PrimitiveFor(Pass::kBackwardWeight, shape);
  const memory::desc dense = Dense(shape.weight);
  const bool direct = primitive->weights == dense;
  at::Tensor result = direct ? at::empty(shape.weight, x.options())
                             : Bytes(static_cast<int64_t>(primitive->weights.get_size()), x);
  Execute(*primitive,
          {{DNNL_ARG_DIFF_DST, In(Blocked(shape.output), grad)},
           {DNNL_ARG_SRC, In(Blocked(shape.input), x)},
           {DNNL_ARG_DIFF_WEIGHTS, In(primitive->weights, result)}},
          x);
  if (direct) return result;
  const at::Tensor usual = at::empty(shape.weight, x.options());
  if (!x.is_meta()) Reorder(primitive->weights, result, dense, usual);
  return usual;
}

// A 1x1x1 convolution with a stride sees every stride-th position only; oneDNN has no fast gradient
// for it where maps are large, so it runs as one without a stride on those positions.
bool SeesSomePositions(const ConvNorm& layer) {
  const auto all = [](c10::IntArrayRef values, int64_t wanted) {
    return std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == wanted; });
  };
  return all(layer.weight.sizes().slice(2), 1) && all(layer.geometry.padding, 0) &&
         !all(layer.geometry.stride, 1);
}

// View of the positions of blocked x that such a convolution sees.
at::Tensor SeenBy(const ConvNorm& layer, at::Tensor x) {
  for (size_t i = 0; i < 3; ++i) {
    const auto dim = static_cast<int64_t>(i) + 2;
    x = x.slice(dim, 0, x.size(dim), layer.geometry.stride[i]);
  }
  return x;
}

ConvNorm WithoutStride(ConvNorm layer) {
  layer.geometry.stride = {1, 1, 1};
  return layer;
}

}  // namespace

int64_t ChannelBlock() {
  // With less than AVX-512 some gradients in this layout have only oneDNN's reference kernels.
  static const int64_t block = [] {
    const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    const auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
    return int64_t{(isa & wanted) == wanted ? 16 : 0};
  }();
  return block;
}

bool CanBlock(const at::Tensor& x, const std::vector<const ConvNorm*>& layers) {
  const int64_t block = ChannelBlock();
  if (block == 0 || x.scalar_type() != at::kFloat || !RunsCpuLoops(x)) return false;
  if (x.numel() == 0 || x.size(1) % block != 0) return false;
  for (const ConvNorm* layer : layers) {
    const at::Tensor& w = layer->weight;
    if (layer->geometry.transposed || w.scalar_type() != at::kFloat || !w.is_contiguous() ||
        w.size(0) % block != 0 || w.size(1) % block != 0) {
      return false;
    }
  }
  return true;
}

at::Tensor ToBlocked(const at::Tensor& x) {
  const Sizes sizes = x.sizes().vec();
  const at::Tensor dense = x.contiguous();
  const at::Tensor result = at::empty(BlockedSizes(sizes), x.options());
  if (!x.is_meta()) Reorder(Dense(sizes), dense, Blocked(sizes), result);
  return result;
}

at::Tensor FromBlocked(const at::Tensor& x) {
  const Sizes sizes = FeatureSizes(x);
  const at::Tensor result = at::empty(sizes, x.options());
  if (!x.is_meta()) Reorder(Blocked(sizes), x, Dense(sizes), result);
  return result;
}

at::Tensor BlockedConvolve(const at::Tensor& x, const ConvNorm& layer) {
  if (SeesSomePositions(layer)) {
    return BlockedConvolve(SeenBy(layer, x).contiguous(), WithoutStride(layer));
  }
  const Shape shape = ShapeOf(FeatureSizes(x), layer);
  const auto primitive = PrimitiveFor(Pass::kForward, shape);
  const at::Tensor result = at::empty(BlockedSizes(shape.output), x.options());
  const at::Tensor w = WeightsAs(primitive->weights, layer.weight);
  Execute(*primitive,
          {{DNNL_ARG_SRC, In(Blocked(shape.input), x)},
           {DNNL_ARG_WEIGHTS, In(primitive->weights, w)},
           {DNNL_ARG_DST, In(Blocked(shape.output), result)}},
          x);
  return result;
}

ConvolutionGradients BlockedConvolveBackward(const at::Tensor& grad, const at::Tensor& x,
                                             const ConvNorm& layer, bool want_input,
                                             at::Tensor add_to) {
  if (SeesSomePositions(layer)) {
    ConvolutionGradients result = BlockedConvolveBackward(grad, SeenBy(layer, x).contiguous(),
                                                          WithoutStride(layer), want_input, {});
    if (!want_input) return result;
    if (!add_to.defined()) add_to = at::zeros(x.sizes(), x.options());
    SeenBy(layer, add_to).add_(result.input);
    result.input = std::move(add_to);
    return result;
  }
  const Shape shape = ShapeOf(FeatureSizes(x), layer);
  ConvolutionGradients result;
  result.weight = WeightGradient(grad, x, shape);
  if (!want_input) return result;
  result.input = InputGradient(grad, shape, layer.weight);
  if (add_to.defined()) result.input = add_to.add_(result.input);
  return result;
}

}  // namespace kinefit
