#include "transform/heatmap.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "files/error.h"
#include "transform/flip.h"

namespace kinefit {
namespace {

constexpr float kLeastScore = 1e-4F;
// exp(-20) = 2e-9 is far below what float32 resolves beside a peak of 1.
constexpr float kLargestExponent = 20;

struct Joint {
  float x;
  float y;
  float score;
};

struct Span {
  int begin;
  int end;
  int size() const { return end - begin; }
};

// Draws into one plane [h, w]. The arithmetic is float32, as the reference's.
class Painter {
 public:
  Painter(cv::Size size, double sigma)
      : size_(size), reach_(3 * sigma), variance_(static_cast<float>(sigma * sigma)) {
    column_.resize(static_cast<size_t>(std::max(size.width, 1)));
  }

  void DrawJoint(const Joint& joint, float* plane) {
    if (joint.score < kLeastScore) return;
    const Span x = Reach(joint.x, joint.x, size_.width);
    const Span y = Reach(joint.y, joint.y, size_.height);
    if (x.size() <= 0 || y.size() <= 0) return;
    // A Gaussian is the product of one along x and one along y.
    for (int i = x.begin; i < x.end; ++i) {
      column_[static_cast<size_t>(i - x.begin)] = Gauss(Square(static_cast<float>(i) - joint.x));
    }
    for (int j = y.begin; j < y.end; ++j) {
      const float height = Gauss(Square(static_cast<float>(j) - joint.y)) * joint.score;
      float* row = plane + static_cast<int64_t>(j) * size_.width + x.begin;
      for (int i = 0; i < x.size(); ++i) {
        row[i] = std::max(row[i], column_[static_cast<size_t>(i)] * height);
      }
    }
  }

  void DrawLimb(const Joint& a, const Joint& b, float* plane) {
    const float score = std::min(a.score, b.score);
    if (score < kLeastScore) return;
    const Span x = Reach(std::min(a.x, b.x), std::max(a.x, b.x), size_.width);
    const Span y = Reach(std::min(a.y, b.y), std::max(a.y, b.y), size_.height);
    if (x.size() <= 0 || y.size() <= 0) return;
    const float length2 = Square(a.x - b.x) + Square(a.y - b.y);
    if (length2 < 1) return DrawJoint(a, plane);

    for (int j = y.begin; j < y.end; ++j) {
      float* row = plane + static_cast<int64_t>(j) * size_.width;
      for (int i = x.begin; i < x.end; ++i) {
        const float px = static_cast<float>(i);
        const float py = static_cast<float>(j);
        const float to_a = Square(px - a.x) + Square(py - a.y);
        const float to_b = Square(px - b.x) + Square(py - b.y);
        const float along = (to_a - to_b + length2) / 2 / length2;  // 0 at a, 1 at b
        float distance2 = along <= 0 ? to_a : to_b;
        if (along > 0 && along < 1) {
          distance2 =
              Square(px - (a.x + along * (b.x - a.x))) + Square(py - (a.y + along * (b.y - a.y)));
        }
        if (distance2 / 2 / variance_ > kLargestExponent) continue;
        row[i] = std::max(row[i], Gauss(distance2) * score);
      }
    }
  }

 private:
  static float Square(float value) { return value * value; }
  float Gauss(float distance2) const { return std::exp(-distance2 / 2 / variance_); }

  // Pixels within three sigma of [low, high], cut at the border; truncated as Python's int().
  Span Reach(float low, float high, int length) const {
    const double begin = low - reach_;
    const double end = high + reach_;
    if (!(begin < length) || !(end > -1)) return {0, 0};  // also keeps the casts in range
    return {begin > 0 ? static_cast<int>(begin) : 0,
            end < length ? static_cast<int>(end) + 1 : length};
  }

  cv::Size size_;
  double reach_;
  float variance_;
  std::vector<float> column_;
};

}  // namespace

int64_t HeatmapChannels(const HeatmapConfig& config, int64_t joints, const Limbs& limbs) {
  return (config.with_joints ? joints : 0) +
         (config.with_limbs ? static_cast<int64_t>(limbs.size()) : 0);
}

void CheckLimbs(const Limbs& limbs, int64_t joints) {
  for (const std::vector<int64_t>& limb : limbs) {
    const bool pair =
        limb.size() == 2 && std::min(limb[0], limb[1]) >= 0 && std::max(limb[0], limb[1]) < joints;
    if (!pair) {
      throw Error("each limb must be a pair of joints between 0 and " + std::to_string(joints - 1),
                  "data.limbs", "correct data.limbs");
    }
  }
}

std::vector<int64_t> MirrorChannels(const HeatmapConfig& config, const Limbs& limbs,
                                    const std::vector<int64_t>& joint_order) {
  std::vector<int64_t> order;
  if (config.with_joints) order = joint_order;
  if (config.with_limbs) {
    const int64_t first = static_cast<int64_t>(order.size());
    for (const int64_t limb : MirrorLimbOrder(limbs, joint_order)) order.push_back(first + limb);
  }
  return order;
}

cv::Size HeatmapSize(cv::Size image, double scaling) {
  return {static_cast<int>(image.width * scaling + 0.5),
          static_cast<int>(image.height * scaling + 0.5)};
}

void DrawHeatmaps(const Pose& pose, int64_t first_frame, int64_t count, cv::Size image,
                  const HeatmapConfig& config, const Limbs& limbs, float* out) {
  const int64_t channels = HeatmapChannels(config, pose.joints, limbs);
  if (channels == 0) {
    throw Error("heatmaps need joints or limbs", "data.heatmap",
                "set with_joints or with_limbs (and data.limbs)");
  }
  if (config.with_limbs) CheckLimbs(limbs, pose.joints);
  const cv::Size size = HeatmapSize(image, config.scaling);
  const int64_t plane = static_cast<int64_t>(size.width) * size.height;

  Painter painter(size, config.sigma);
  const float scaling = static_cast<float>(config.scaling);
  const auto joint_of = [&](int64_t person, int64_t frame, int64_t joint) -> Joint {
    const int64_t place = (person * pose.frames + first_frame + frame) * pose.joints + joint;
    const size_t at = static_cast<size_t>(place);
    return {pose.xy[2 * at] * scaling, pose.xy[2 * at + 1] * scaling,
            config.use_score ? pose.score[at] : 1.0F};
  };
  const int64_t joint_channels = config.with_joints ? pose.joints : 0;
  // Plane by plane, each cleared when it is drawn, so that memory is gone through once.
  for (int64_t channel = 0; channel < channels; ++channel) {
    for (int64_t frame = 0; frame < count; ++frame, out += plane) {
      std::fill(out, out + plane, 0.0F);
      for (int64_t person = 0; person < pose.persons; ++person) {
        if (channel < joint_channels) {
          painter.DrawJoint(joint_of(person, frame, channel), out);
          continue;
        }
        const std::vector<int64_t>& limb = limbs[static_cast<size_t>(channel - joint_channels)];
        painter.DrawLimb(joint_of(person, frame, limb[0]), joint_of(person, frame, limb[1]), out);
      }
    }
  }
}

void MirrorHeatmaps(const float* from, int64_t frames, cv::Size size,
                    const std::vector<int64_t>& channel_order, float* to) {
  const int64_t rows = frames * size.height;
  for (const int64_t channel : channel_order) {
    const float* in = from + channel * rows * size.width;
    for (int64_t row = 0; row < rows; ++row) {
      std::reverse_copy(in, in + size.width, to);
      in += size.width;
      to += size.width;
    }
  }
}

}  // namespace kinefit
