#include "loader/device_heatmaps.h"

#include <algorithm>
#include <vector>

#include "transform/flip.h"
#include "transform/heatmap.h"

namespace kinefit {
namespace {

constexpr double kLeastScore = 1e-4;  // these two as in transform/heatmap.cc
constexpr double kLargestExponent = 20;
// Pixels that are computed at once where intermediate results are as large as what is drawn.
constexpr int64_t kAtOnce = int64_t{1} << 18;

// at::where, which LibTorch 1.13 does not have on the meta device. REQUIRES: finite numbers.
at::Tensor Choose(const at::Tensor& condition, const at::Tensor& yes, const at::Tensor& no) {
  return yes.masked_fill(condition.bitwise_not(), 0).add_(no.masked_fill(condition, 0));
}

// One person's joints in heatmap pixels, each [N, V, T], with a dimension for pixels behind.
struct Joints {
  at::Tensor x;
  at::Tensor y;
  at::Tensor score;
};

// Like DrawHeatmaps' Painter, operation by operation in float32, so that both round alike.
class DevicePainter {
 public:
  DevicePainter(const HeatmapConfig& config, cv::Size size, const at::Device& device)
      : reach_(3 * config.sigma),
        variance_(static_cast<float>(config.sigma * config.sigma)),
        columns_(at::arange(size.width, at::TensorOptions(device).dtype(at::kFloat))),
        rows_(at::arange(size.height, at::TensorOptions(device).dtype(at::kFloat))) {}

  // Merges one person's joints into `out` [N, V, T, h, w]; the first one overwrites it.
  void DrawJoints(const Joints& joints, bool first, const at::Tensor& out) const {
    const at::Tensor drawn = joints.score.ge(kLeastScore);
    // A Gaussian is the product of one along x and one along y.
    const at::Tensor across = Gauss(joints.x, columns_, drawn).unsqueeze(3);
    at::Tensor down = Gauss(joints.y, rows_, drawn);
    down.mul_(joints.score);
    down = down.unsqueeze(4);
    if (first) {
      at::Tensor target = out;
      at::mul_out(target, down, across);
      return;
    }
    const int64_t at_once =
        std::max<int64_t>(1, kAtOnce / (out.numel() / out.size(0) / out.size(1)));
    for (int64_t row = 0; row < out.size(0); ++row) {
      for (int64_t joint = 0; joint < out.size(1); joint += at_once) {
        const int64_t count = std::min(at_once, out.size(1) - joint);
        const auto part = [&](const at::Tensor& all) { return all[row].narrow(0, joint, count); };
        at::Tensor target = part(out);
        at::maximum_out(target, target, part(down) * part(across));
      }
    }
  }

  // Merges one person's limb between joints `a` and `b`, each [N, T, 1], into `out` [N, T, h, w].
  void DrawLimb(const Joints& a, const Joints& b, const at::Tensor& out) const {
    const int64_t at_once = std::max<int64_t>(1, kAtOnce / (out.numel() / out.size(0)));
    for (int64_t row = 0; row < out.size(0); row += at_once) {
      const int64_t count = std::min(at_once, out.size(0) - row);
      const auto part = [&](const Joints& all) {
        return Joints{all.x.narrow(0, row, count), all.y.narrow(0, row, count),
                      all.score.narrow(0, row, count)};
      };
      at::Tensor target = out.narrow(0, row, count);
      at::maximum_out(target, target, Limb(part(a), part(b)));
    }
  }

 private:
  // [..., length]: pixels within three sigma of [low, high], both [..., 1]; borders are truncated
  // as Python's int() does.
  at::Tensor Within(const at::Tensor& low, const at::Tensor& high, const at::Tensor& pixels) const {
    const at::Tensor begin = low.to(at::kDouble).sub_(reach_);
    const at::Tensor end = high.to(at::kDouble).add_(reach_);
    const at::Tensor touches = begin.lt(pixels.size(0)).bitwise_and_(end.gt(-1));
    return pixels.ge(begin.trunc()).bitwise_and_(pixels.le(end.trunc())).bitwise_and_(touches);
  }

  // [..., length] of positions [..., 1]; zero out of reach and where `drawn` is false.
  at::Tensor Gauss(const at::Tensor& position, const at::Tensor& pixels,
                   const at::Tensor& drawn) const {
    at::Tensor value = pixels - position;
    value.mul_(value).neg_().div_(2).div_(variance_).exp_();
    return value.masked_fill_(Within(position, position, pixels).bitwise_and_(drawn).bitwise_not_(),
                              0);
  }

  // One person's Gaussians about limbs, [n, T, h, w].
  at::Tensor Limb(const Joints& a, const Joints& b) const {
    const auto square = [](const at::Tensor& value) { return value * value; };
    const at::Tensor length2 = square(a.x - b.x).add_(square(a.y - b.y));
    const at::Tensor point = length2.lt(1);  // drawn as joint a
    const at::Tensor least = at::minimum(a.score, b.score);
    const at::Tensor score = Choose(point, a.score, least).unsqueeze(3);
    const auto within = [&](const at::Tensor& from, const at::Tensor& to,
                            const at::Tensor& pixels) {
      return Within(Choose(point, from, at::minimum(from, to)),
                    Choose(point, from, at::maximum(from, to)), pixels);
    };
    const at::Tensor inside_x =
        within(a.x, b.x, columns_).bitwise_and_(least.ge(kLeastScore)).unsqueeze(2);
    const at::Tensor inside_y = within(a.y, b.y, rows_).unsqueeze(3);

    const auto distance2 = [&](const Joints& joint) {
      return square(columns_ - joint.x).unsqueeze(2) + square(rows_ - joint.y).unsqueeze(3);
    };
    const at::Tensor to_a = distance2(a);
    const at::Tensor to_b = distance2(b);
    at::Tensor along = to_a - to_b;  // 0 at a, 1 at b
    along.add_(length2.unsqueeze(3)).div_(2).div_(length2.unsqueeze(3));
    along.masked_fill_(point.unsqueeze(3), -1);
    // From the nearest point of the line between the two.
    at::Tensor value = along * (b.x - a.x).unsqueeze(3);
    value.add_(a.x.unsqueeze(3)).sub_(columns_);
    value.mul_(value);
    at::Tensor other = along * (b.y - a.y).unsqueeze(3);
    other.add_(a.y.unsqueeze(3)).sub_(rows_.unsqueeze(1));
    value.add_(other.mul_(other));
    value = Choose(along.le(0), to_a, Choose(along.ge(1), to_b, value));
    value.div_(2).div_(variance_);
    const at::Tensor drawn =
        value.le(kLargestExponent).bitwise_and_(inside_x).bitwise_and_(inside_y);
    return value.neg_().exp_().mul_(score).masked_fill_(drawn.bitwise_not_(), 0);
  }

  double reach_;
  double variance_;
  at::Tensor columns_;  // [w] 0, 1, ...
  at::Tensor rows_;     // [h]
};

// [N, C, T, h, w] of `joints` [N, persons, 3, V, T]. `out` may be a part of a larger tensor.
void Draw(const at::Tensor& joints, const DataConfig& data, cv::Size size, const at::Tensor& out) {
  const HeatmapConfig& config = data.heatmap;
  const DevicePainter painter(config, size, out.device());
  const int64_t own = config.with_joints ? joints.size(3) : 0;
  if (config.with_limbs) {
    at::Tensor limbs = out.narrow(1, own, out.size(1) - own);
    limbs.zero_();
  }
  for (int64_t person = 0; person < joints.size(1); ++person) {
    const at::Tensor one = joints.select(1, person).unsqueeze(4);
    const auto scaling = static_cast<double>(static_cast<float>(config.scaling));
    const Joints all = {one.select(1, 0) * scaling, one.select(1, 1) * scaling, one.select(1, 2)};
    if (own > 0) painter.DrawJoints(all, person == 0, out.narrow(1, 0, own));
    if (!config.with_limbs) continue;
    const auto joint = [&](int64_t number) {
      return Joints{all.x.select(1, number), all.y.select(1, number), all.score.select(1, number)};
    };
    for (size_t i = 0; i < data.limbs.size(); ++i) {
      const std::vector<int64_t>& limb = data.limbs[i];
      painter.DrawLimb(joint(limb[0]), joint(limb[1]),
                       out.select(1, own + static_cast<int64_t>(i)));
    }
  }
}

}  // namespace

int64_t JointsDrawn(const Config& config) {
  const DataConfig& data = config.data;
  if (data.heatmap.with_joints) {
    const auto limbs = data.heatmap.with_limbs ? static_cast<int64_t>(data.limbs.size()) : 0;
    return config.model.pose.in_channels - limbs;
  }
  int64_t joints = 0;
  for (const std::vector<int64_t>& limb : data.limbs) {
    for (const int64_t joint : limb) joints = std::max(joints, joint + 1);
  }
  return joints;
}

at::Tensor HeatmapsOn(const Batch& batch, const DataConfig& data, const at::Device& device) {
  if (!batch.joints.tensor.defined()) {
    const at::Tensor& drawn = batch.heatmap_imgs;
    if (!drawn.defined()) return drawn;
    return drawn.to(device, drawn.scalar_type(), /*non_blocking=*/true);
  }
  const at::NoGradGuard no_grad;
  const at::Tensor joints = batch.joints.tensor.to(device, at::kFloat, /*non_blocking=*/true);
  const auto side = static_cast<int>(batch.joints.side);
  const cv::Size size = HeatmapSize({side, side}, data.heatmap.scaling);
  const int64_t channels = HeatmapChannels(data.heatmap, joints.size(3), data.limbs);
  const int64_t copies = batch.joints.mirrored ? 2 : 1;
  const int64_t clips = batch.clips / copies;  // of a sample, without its mirrored ones
  const at::Tensor out = at::empty(
      {joints.size(0) / clips, copies, clips, channels, joints.size(4), size.height, size.width},
      joints.options());
  if (copies == 1) {
    Draw(joints, data, size, out.flatten(0, 2));
    return out.flatten(0, 2);
  }
  const std::vector<int64_t> order = MirrorChannels(
      data.heatmap, data.limbs, MirrorOrder(joints.size(3), data.left_joints, data.right_joints));
  for (int64_t sample = 0; sample < out.size(0); ++sample) {
    const at::Tensor plain = out[sample][0];
    Draw(joints.narrow(0, sample * clips, clips), data, size, plain);
    for (int64_t c = 0; c < channels; ++c) {
      out[sample][1].select(1, c).copy_(plain.select(1, order[static_cast<size_t>(c)]).flip(-1));
    }
  }
  return out.flatten(0, 2);
}

HeatmapJoints EmptyJoints(const Config& config, int64_t clips, int64_t side,
                          const at::TensorOptions& options) {
  constexpr int64_t kPersons = 2;
  HeatmapJoints joints;
  joints.tensor =
      at::empty({clips, kPersons, 3, JointsDrawn(config), config.data.pose_frames}, options);
  joints.side = side;
  return joints;
}

}  // namespace kinefit
