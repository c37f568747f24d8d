#include "model/cross_attention.h"

#include <cmath>
#include <vector>

#include "files/error.h"
#include "ops/attention.h"
#include "ops/layer_scope.h"

namespace kinefit {
namespace {

constexpr double kPi = 3.14159265358979323846;

// Sines and cosines of a position along one axis, [2 * pairs, n], for positions (i + 1/2) / n.
// Frequencies go from half a period over the axis upwards by factors of sqrt(2).
at::Tensor AxisCode(int64_t n, int64_t pairs, const at::TensorOptions& options) {
  const at::Tensor positions = at::arange(n, options).add_(0.5).div_(static_cast<double>(n));
  const at::Tensor octaves = at::arange(pairs, options).mul_(0.5);
  const at::Tensor angles = at::pow(2.0, octaves).mul_(kPi).unsqueeze(1) * positions.unsqueeze(0);
  return at::cat({angles.sin(), angles.cos()}, 0);
}

// The code of every position of x [N, C, T, H, W] for one head, [dim, T, H, W]: its channels are
// shared among t, y and x; what cannot be shared is zero.
at::Tensor PositionCode(const at::Tensor& x, int64_t dim) {
  const auto options = x.options().dtype(at::kFloat);
  const int64_t t = x.size(2);
  const int64_t h = x.size(3);
  const int64_t w = x.size(4);
  const int64_t pairs = dim / 2 / 3;            // of y and of x
  const int64_t pairs_t = dim / 2 - 2 * pairs;  // t takes the rest
  const at::Tensor code =
      at::cat({AxisCode(t, pairs_t, options).view({-1, t, 1, 1}).expand({-1, t, h, w}),
               AxisCode(h, pairs, options).view({-1, 1, h, 1}).expand({-1, t, h, w}),
               AxisCode(w, pairs, options).view({-1, 1, 1, w}).expand({-1, t, h, w}),
               at::zeros({dim % 2, t, h, w}, options)},
              0);
  return code.to(x.scalar_type());
}

// Adds the position code to every head of x [N, heads * dim, T, H, W].
at::Tensor WithPositions(const at::Tensor& x, int64_t heads) {
  const int64_t dim = x.size(1) / heads;
  return x + PositionCode(x, dim).repeat({heads, 1, 1, 1});
}

// [N, heads * dim, T, H, W] -> [N * heads * groups, T / groups * H * W, dim], where each of the
// `groups` runs of frames attends by itself.
at::Tensor ToTokens(const at::Tensor& x, int64_t heads, int64_t groups) {
  const int64_t dim = x.size(1) / heads;
  at::Tensor tokens = x.reshape({x.size(0) * heads, dim, groups, -1});
  if (groups > 1) tokens = tokens.transpose(1, 2);
  return tokens.reshape({x.size(0) * heads * groups, dim, -1}).transpose(1, 2);
}

// The inverse of ToTokens for tokens of the places of `like` [N, heads * dim, T, H, W].
at::Tensor FromTokens(const at::Tensor& tokens, const at::Tensor& like, int64_t heads,
                      int64_t groups) {
  const int64_t dim = like.size(1) / heads;
  at::Tensor x = tokens.transpose(1, 2).reshape({like.size(0) * heads, groups, dim, -1});
  if (groups > 1) x = x.transpose(1, 2);
  return x.reshape(like.sizes());
}

}  // namespace

CrossAttention::Side::Side(TensorMaker& maker, const std::string& name, int64_t channels,
                           int64_t width)
    : query(maker, name + ".query", channels, width, ConvShape{}, After::kBatchNorm),
      key(maker, name + ".key", channels, width, ConvShape{}, After::kBatchNorm),
      value(maker, name + ".value", channels, width, ConvShape{}, After::kBatchNorm),
      output(maker, name + ".output", width, channels, ConvShape{}, After::kNothing),
      gate(maker.Parameter(name + ".gate", {1}, Initial::kZeros)) {}

CrossAttention::CrossAttention(TensorMaker& maker, const std::string& prefix, int64_t rgb_channels,
                               int64_t pose_channels, const ModelConfig& config)
    : prefix_(prefix),
      config_(config.attention),
      rgb_detach_(config.fusion.rgb_detach),
      pose_detach_(config.fusion.pose_detach),
      rgb_(maker, prefix + ".rgb", rgb_channels, config.attention.width),
      pose_(maker, prefix + ".pose", pose_channels, config.attention.width) {}

Feature CrossAttention::Attend(const Side& to, const Feature& x, const Side& from,
                               const Feature& other, bool detach, const ForwardContext& context,
                               const std::string& name) const {
  const LayerScope scope(prefix_);
  const int64_t heads = config_.heads;
  const int64_t groups =
      config_.scope == "frame" ? std::min(x.value.size(2), other.value.size(2)) : 1;
  // Detached, its value is kept: the layer that could rebuild it does not wait for this one.
  const Feature source = detach ? Feature{other.value.detach(), nullptr} : other;
  const at::Tensor query = WithPositions(to.query.Forward(x, context).value, heads);
  const at::Tensor key = WithPositions(from.key.Forward(source, context).value, heads);
  const at::Tensor value = from.value.Forward(source, context).value;
  const at::Tensor q = ToTokens(query, heads, groups);
  const at::Tensor k = ToTokens(key, heads, groups);
  const at::Tensor found = Attention(q, k, ToTokens(value, heads, groups), config_.chunk);
  if (context.trace != nullptr) {
    const int64_t macs = 2 * q.numel() * k.size(1);
    const int64_t elements = found.numel() + q.size(0) * q.size(1);  // and one log-sum-exp each
    context.trace->Record({name, "attention", found.sizes().vec(), 0, macs,
                           elements * static_cast<int64_t>(found.dtype().itemsize())});
  }
  const at::Tensor update =
      to.output.Forward({FromTokens(found, query, heads, groups), nullptr}, context).value;
  return {x.value + to.gate.to(update.scalar_type()) * update, nullptr};
}

std::pair<Feature, Feature> CrossAttention::Forward(const Feature& rgb, const Feature& pose,
                                                    const ForwardContext& context) const {
  if (config_.scope == "frame" && pose.value.size(2) % rgb.value.size(2) != 0) {
    throw Error(
        "The attention of each frame needs a whole number of pose frames per RGB frame, "
        "but there are " +
            std::to_string(pose.value.size(2)) + " for " + std::to_string(rgb.value.size(2)),
        "model.attention.scope", "set it to \"global\" or change the clip lengths");
  }
  return {Attend(rgb_, rgb, pose_, pose, rgb_detach_, context, prefix_ + ".rgb.attention"),
          Attend(pose_, pose, rgb_, rgb, pose_detach_, context, prefix_ + ".pose.attention")};
}

}  // namespace kinefit
