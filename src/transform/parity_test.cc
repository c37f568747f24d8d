// Agreement with the reference's transforms, as recorded in shared/parity.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "files/npy.h"
#include "transform/color_jitter.h"
#include "transform/compact.h"
#include "transform/flip.h"
#include "transform/heatmap.h"
#include "transform/random_resized_crop.h"
#include "transform/resize.h"
#include "transform/sample_frames.h"

namespace kinefit {
namespace {

const std::string kParity = std::string(KINEFIT_SHARED) + "/parity/";
const std::vector<int64_t> kLeft = {1, 3, 5, 7, 9, 11, 13, 15};
const std::vector<int64_t> kRight = {2, 4, 6, 8, 10, 12, 14, 16};
const Limbs kCocoLimbs = {{0, 1},   {0, 2},  {1, 3},   {2, 4},   {0, 5},  {5, 7},
                          {7, 9},   {0, 6},  {6, 8},   {8, 10},  {5, 11}, {11, 13},
                          {13, 15}, {6, 12}, {12, 14}, {14, 16}, {11, 12}};

#define SKIP_WITHOUT(file)                                                    \
  if (!std::filesystem::exists(kParity + (file))) {                           \
    GTEST_SKIP() << "no fixture " << kParity + (file) << " (KINEFIT_SHARED)"; \
  }

Pose ToPose(const NdArray& xy, const NdArray* score) {
  Pose pose;
  pose.persons = xy.shape[0];
  pose.frames = xy.shape[1];
  pose.joints = xy.shape[2];
  pose.xy = xy.ToFloats();
  pose.score.assign(pose.xy.size() / 2, 1.0F);
  if (score != nullptr) pose.score = score->ToFloats();
  return pose;
}

// Frames [T, H, W, 3] of uint8.
std::vector<cv::Mat> ToFrames(const NdArray& array) {
  std::vector<cv::Mat> frames;
  const int height = static_cast<int>(array.shape[1]);
  const int width = static_cast<int>(array.shape[2]);
  for (int64_t t = 0; t < array.shape[0]; ++t) {
    cv::Mat frame(height, width, CV_8UC3);
    std::memcpy(frame.data, array.bytes.data() + t * height * width * 3,
                static_cast<size_t>(height) * width * 3);
    frames.push_back(frame);
  }
  return frames;
}

void ExpectFramesNear(const std::vector<cv::Mat>& actual, const NdArray& array) {
  const std::vector<cv::Mat> expected = ToFrames(array);
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(actual[i].size(), expected[i].size());
    EXPECT_LE(cv::norm(actual[i], expected[i], cv::NORM_INF), 1) << "frame " << i;
  }
}

void ExpectJointsNear(const Pose& pose, const NdArray& array) {
  const std::vector<double> expected = array.ToDoubles();
  ASSERT_EQ(pose.xy.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(pose.xy[i], expected[i], 1e-4) << i;
}

TEST(ParityTest, UniformSamplingInTestMode) {
  SKIP_WITHOUT("uniform_sample_test.json");
  std::ifstream file(kParity + "uniform_sample_test.json");
  const nlohmann::json cases = nlohmann::json::parse(file);
  ASSERT_GT(cases.size(), 10U);
  for (const auto& one : cases) {
    EXPECT_EQ(SampleFramesTest(one["num_frames"], one["clip_len"], one["num_clips"]),
              one["inds"].get<std::vector<int64_t>>())
        << one["num_frames"] << " frames, clip_len " << one["clip_len"];
  }
}

// Draws all frames of the fixture's pose and compares with `expected` [T, C, h, w].
void ExpectHeatmaps(const Pose& pose, cv::Size image, const HeatmapConfig& config,
                    const NdArray& expected) {
  const int64_t frames = pose.frames;
  const int64_t channels = HeatmapChannels(config, pose.joints, kCocoLimbs);
  const cv::Size size = HeatmapSize(image, config.scaling);
  const int64_t plane = static_cast<int64_t>(size.width) * size.height;
  std::vector<float> drawn(static_cast<size_t>(channels * frames * plane), -1.0F);
  DrawHeatmaps(pose, 0, frames, image, config, kCocoLimbs, drawn.data());
  if (config.double_flip) {
    const std::vector<float> first = drawn;
    drawn.resize(2 * first.size());
    MirrorHeatmaps(first.data(), frames, size, MirrorOrder(pose.joints, kLeft, kRight),
                   drawn.data() + first.size());
  }
  const int64_t copies = config.double_flip ? 2 : 1;
  ASSERT_EQ(expected.shape,
            (std::vector<int64_t>{copies * frames, channels, size.height, size.width}));
  const std::vector<float> wanted = expected.ToFloats();
  double worst = 0;
  double peak = 0;
  for (int64_t copy = 0; copy < copies; ++copy) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < frames; ++t) {
        for (int64_t i = 0; i < plane; ++i) {
          const double value = wanted[((copy * frames + t) * channels + c) * plane + i];
          const double mine = drawn[((copy * channels + c) * frames + t) * plane + i];
          worst = std::max(worst, std::abs(mine - value));
          peak = std::max(peak, value);
        }
      }
    }
  }
  EXPECT_LE(worst, 1e-5);
  EXPECT_GT(peak, 0.5);
}

TEST(ParityTest, Heatmaps) {
  SKIP_WITHOUT("heatmaps.npz");
  const NpzArrays arrays = ReadNpz(kParity + "heatmaps.npz");
  const Pose pose = ToPose(arrays.at("kp"), &arrays.at("score"));
  for (const auto& [name, expected] : arrays) {
    if (name == "kp" || name == "score") continue;
    SCOPED_TRACE(name);
    const std::string kind = name.substr(0, name.find('_'));
    const double number = std::stod(name.substr(name.find('_') + 1));
    HeatmapConfig config;
    config.sigma = number;
    config.with_joints = kind != "limb";
    config.with_limbs = kind == "limb";
    config.double_flip = kind == "double";
    config.use_score = kind != "noscore";
    cv::Size image(56, 64);
    if (kind == "scaled") {
      config.sigma = 0.7;
      config.scaling = number;
      image = {224, 224};
    }
    Pose in_image = pose;  // the joints are in pixels of the heatmap
    for (float& value : in_image.xy) value /= static_cast<float>(config.scaling);
    ExpectHeatmaps(in_image, image, config, expected);
  }
}

TEST(ParityTest, FrameTransforms) {
  SKIP_WITHOUT("frame_transforms.npz");
  const NpzArrays arrays = ReadNpz(kParity + "frame_transforms.npz");
  std::vector<cv::Mat> frames = ToFrames(arrays.at("frames"));
  const NdArray& keypoint = arrays.at("keypoint");
  Pose pose = ToPose(keypoint, nullptr);
  const auto each = [&](auto transform) {
    for (cv::Mat& frame : frames) frame = transform(frame);
  };

  const cv::Rect box = CompactBox(pose, frames[0].size(), CompactOptions());
  const std::vector<int64_t> shape = arrays.at("compact_shape").ToInts("compact_shape");
  EXPECT_EQ(box.size(), cv::Size(static_cast<int>(shape[1]), static_cast<int>(shape[0])));
  each([&](const cv::Mat& frame) { return CropPadded(frame, box); });
  CompactJoints(&pose, box);
  ExpectFramesNear(frames, arrays.at("compact_imgs"));
  ExpectJointsNear(pose, arrays.at("compact_kp"));

  const cv::Size resized = ToFrames(arrays.at("resize_imgs"))[0].size();
  each([&](const cv::Mat& frame) { return ResizeFrame(frame, resized); });
  ResizeJoints(&pose, box.size(), resized);
  ExpectFramesNear(frames, arrays.at("resize_imgs"));
  ExpectJointsNear(pose, arrays.at("resize_kp"));

  const std::vector<int64_t> b = arrays.at("crop_bbox").ToInts("crop_bbox");
  const cv::Rect crop(cv::Point(static_cast<int>(b[0]), static_cast<int>(b[1])),
                      cv::Point(static_cast<int>(b[2]), static_cast<int>(b[3])));
  each([&](const cv::Mat& frame) { return frame(crop); });
  CropJoints(&pose, crop);
  ExpectFramesNear(frames, arrays.at("crop_imgs"));
  ExpectJointsNear(pose, arrays.at("crop_kp"));

  const cv::Size last = ToFrames(arrays.at("flip_imgs"))[0].size();
  each([&](const cv::Mat& frame) { return FlipFrame(ResizeFrame(frame, last)); });
  ResizeJoints(&pose, crop.size(), last);
  const std::vector<int64_t> order = MirrorOrder(pose.joints, kLeft, kRight);
  const std::vector<float> flipped_score = arrays.at("flip_score").ToFloats();
  for (size_t i = 0; i < pose.score.size(); ++i) {  // what it was before: swapping twice is nothing
    const size_t joint = i % order.size();
    pose.score[i] = flipped_score[i - joint + static_cast<size_t>(order[joint])];
  }
  FlipJoints(&pose, last.width, order);
  ExpectFramesNear(frames, arrays.at("flip_imgs"));
  ExpectJointsNear(pose, arrays.at("flip_kp"));
  EXPECT_EQ(pose.score, flipped_score);
}

TEST(ParityTest, ColorJitter) {
  SKIP_WITHOUT("color_jitter.npz");
  const NpzArrays arrays = ReadNpz(kParity + "color_jitter.npz");
  const std::vector<cv::Mat> frames = ToFrames(arrays.at("frames"));
  int cases = 0;
  for (const auto& [name, expected] : arrays) {
    ColorJitter jitter;
    if (std::sscanf(name.c_str(), "case%*d_b%lf_c%lf_s%lf_h%lf", &jitter.brightness,
                    &jitter.contrast, &jitter.saturation, &jitter.hue) != 4) {
      continue;
    }
    SCOPED_TRACE(name);
    ++cases;
    std::vector<cv::Mat> jittered;
    for (const cv::Mat& frame : frames) jittered.push_back(ApplyColorJitter(frame, jitter));
    ExpectFramesNear(jittered, expected);
  }
  EXPECT_EQ(cases, 5);
}

}  // namespace
}  // namespace kinefit
