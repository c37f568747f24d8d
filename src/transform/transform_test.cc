#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "files/error.h"
#include "transform/color_jitter.h"
#include "transform/compact.h"
#include "transform/flip.h"
#include "transform/heatmap.h"
#include "transform/normalize.h"
#include "transform/random_resized_crop.h"
#include "transform/sample_frames.h"

namespace kinefit {
namespace {

// One person, one frame.
Pose PoseOf(const std::vector<float>& xy) {
  Pose pose;
  pose.persons = 1;
  pose.frames = 1;
  pose.joints = static_cast<int64_t>(xy.size()) / 2;
  pose.xy = xy;
  pose.score.assign(xy.size() / 2, 1.0F);
  return pose;
}

std::string ProblemOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(SampleFramesTest, TrainingDrawsOneFrameFromEachPart) {
  RandomStream random(1, "test");
  std::map<int64_t, int> counts;
  for (int i = 0; i < 3000; ++i) {
    const std::vector<int64_t> frames = SampleFramesTrain(20, 4, 1, random);
    ASSERT_EQ(frames.size(), 4U);
    for (int64_t part = 0; part < 4; ++part) {
      ASSERT_EQ(frames[part] / 5, part);
      ++counts[frames[part]];
    }
  }
  ASSERT_EQ(counts.size(), 20U);
  for (const auto& [frame, count] : counts) EXPECT_NEAR(count, 600, 120) << frame;
}

TEST(SampleFramesTest, TrainingLeavesOutFramesEvenlyBelowTwoClips) {
  RandomStream random(1, "test");
  std::map<int64_t, int> left_out;
  for (int i = 0; i < 3500; ++i) {
    const std::vector<int64_t> frames = SampleFramesTrain(8, 6, 1, random);
    ASSERT_TRUE(std::is_sorted(frames.begin(), frames.end()));
    ASSERT_EQ(std::set<int64_t>(frames.begin(), frames.end()).size(), 6U);
    ASSERT_GE(frames.front(), 0);
    ASSERT_LT(frames.back(), 8);
    for (int64_t frame = 0; frame < 8; ++frame) {
      if (std::count(frames.begin(), frames.end(), frame) == 0) ++left_out[frame];
    }
  }
  // Two of seven gaps lose a frame. Frame 0 is lost if the first gap is among them.
  EXPECT_NEAR(left_out[0], 3500 * 2 / 7.0, 150);
  EXPECT_NEAR(left_out[7], 3500 * 2 / 7.0, 150);
  EXPECT_EQ(left_out.size(), 8U);
}

TEST(SampleFramesTest, TrainingWalksRoundShortVideos) {
  RandomStream random(1, "test");
  std::set<int64_t> starts;
  for (int i = 0; i < 200; ++i) {
    const std::vector<int64_t> frames = SampleFramesTrain(3, 8, 2, random);
    ASSERT_EQ(frames.size(), 16U);
    for (size_t j = 1; j < 8; ++j) ASSERT_EQ(frames[j], (frames[j - 1] + 1) % 3);
    starts.insert(frames[0]);
  }
  EXPECT_EQ(starts.size(), 3U);
}

TEST(SampleFramesTest, RefusesEmptyVideos) {
  RandomStream random(1, "test");
  EXPECT_THROW(SampleFramesTest(0, 8, 1), Error);
  EXPECT_THROW(SampleFramesTrain(0, 8, 1, random), Error);
  EXPECT_THROW(SampleFramesTest(10, 0, 1), Error);
}

TEST(SampleFramesTest, SelectsFramesOfEveryPerson) {
  Pose pose;
  pose.persons = 2;
  pose.frames = 3;
  pose.joints = 1;
  for (int i = 0; i < 6; ++i) {
    pose.xy.insert(pose.xy.end(), {10.0F * i, 10.0F * i + 1});
    pose.score.push_back(0.1F * i);
  }
  const Pose selected = SelectFrames(pose, {2, 0, 2, 2});
  EXPECT_EQ(selected.frames, 4);
  EXPECT_EQ(selected.xy, (std::vector<float>{20, 21, 0, 1, 20, 21, 20, 21,  //
                                             50, 51, 30, 31, 50, 51, 50, 51}));
  EXPECT_EQ(selected.score[4], pose.score[5]);
}

TEST(CompactTest, BoxIsSquareAroundSeenJoints) {
  // Joints span x 10..30 and y 20..60; the one at 0 was not seen.
  const Pose pose = PoseOf({10, 20, 30, 60, 0, 0});
  const cv::Rect box = CompactBox(pose, {100, 100}, CompactOptions());
  EXPECT_EQ(box, cv::Rect(cv::Point(-5, 15), cv::Point(45, 65)));
  CompactOptions inside;
  inside.allow_imgpad = false;
  EXPECT_EQ(CompactBox(pose, {100, 64}, inside), cv::Rect(cv::Point(0, 15), cv::Point(45, 64)));
  CompactOptions own_shape;
  own_shape.hw_ratio = 0;
  EXPECT_EQ(CompactBox(pose, {100, 100}, own_shape), cv::Rect(cv::Point(7, 15), cv::Point(32, 65)));
}

TEST(CompactTest, WholeImageWithoutAUsableBox) {
  const cv::Rect whole(0, 0, 100, 80);
  EXPECT_EQ(CompactBox(PoseOf({0, 0, 0, 0}), {100, 80}, CompactOptions()), whole);
  EXPECT_EQ(CompactBox(PoseOf({10, 20, 15, 60}), {100, 80}, CompactOptions()), whole);
  CompactOptions inside;
  inside.allow_imgpad = false;
  EXPECT_EQ(CompactBox(PoseOf({200, 200, 300, 300}), {100, 80}, inside), whole);
}

TEST(CompactTest, RefusesJointsBeyondReason) {
  const std::string far = ProblemOf([] {
    CompactBox(PoseOf({1, 1, 3e6F, 50}), {100, 80}, CompactOptions());
  });
  EXPECT_NE(far.find("million pixels"), std::string::npos) << far;
  const cv::Mat frame = cv::Mat::zeros(10, 10, CV_8UC3);
  EXPECT_THROW(CropPadded(frame, {-20000, 0, 40000, 10}), Error);
}

TEST(CompactTest, MissingCoordinatesStayZero) {
  Pose pose = PoseOf({10, 20, 0, 0, 0, 30});
  CompactJoints(&pose, {5, 6, 10, 10});
  EXPECT_EQ(pose.xy, (std::vector<float>{5, 14, 0, 0, 0, 24}));
}

TEST(CompactTest, PadsWithBlackOnEverySide) {
  const cv::Mat frame(2, 3, CV_8UC3, cv::Scalar(7, 8, 9));
  const cv::Mat padded = CropPadded(frame, {-1, -2, 6, 7});
  ASSERT_EQ(padded.size(), cv::Size(6, 7));
  for (int y = 0; y < 7; ++y) {
    for (int x = 0; x < 6; ++x) {
      const bool inside = x >= 1 && x < 4 && y >= 2 && y < 4;
      EXPECT_EQ(padded.at<cv::Vec3b>(y, x), inside ? cv::Vec3b(7, 8, 9) : cv::Vec3b(0, 0, 0));
    }
  }
  EXPECT_EQ(cv::countNonZero(CropPadded(frame, {50, 50, 4, 4}).reshape(1)), 0);
}

TEST(RandomResizedCropTest, BoxesHaveTheAskedAreaAndShape) {
  const CropRange range = {0.56, 1.0, 0.75, 4.0 / 3};
  RandomStream random(3, "test");
  double log_aspect = 0;
  int narrow = 0;
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) {
    const cv::Rect box = DrawCropBox({256, 256}, range, random);
    ASSERT_EQ(box & cv::Rect(0, 0, 256, 256), box);
    const double area = box.area() / 65536.0;
    const double aspect = static_cast<double>(box.width) / box.height;
    ASSERT_GT(area, 0.55);
    ASSERT_GT(aspect, 0.74);
    ASSERT_LT(aspect, 1.35);
    log_aspect += std::log(aspect);
    narrow += aspect < 1 ? 1 : 0;
  }
  EXPECT_NEAR(log_aspect / kDraws, 0, 0.01);
  EXPECT_NEAR(narrow, kDraws / 2, 150);
}

TEST(RandomResizedCropTest, FallsBackToTheMiddleSquare) {
  RandomStream random(3, "test");
  EXPECT_EQ(DrawCropBox({100, 10}, {0.9, 1.0, 0.75, 1.33}, random), cv::Rect(45, 0, 10, 10));
}

TEST(RandomResizedCropTest, MovesAllJoints) {
  Pose pose = PoseOf({10, 20, 0, 0});
  CropJoints(&pose, {4, 5, 6, 6});
  EXPECT_EQ(pose.xy, (std::vector<float>{6, 15, -4, -5}));
}

TEST(FlipTest, SwapsJointsAndTheirScores) {
  Pose pose = PoseOf({10, 1, 20, 2, 0, 3});
  pose.score = {0.1F, 0.2F, 0.3F};
  FlipJoints(&pose, 100, MirrorOrder(3, {0}, {2}));
  EXPECT_EQ(pose.xy, (std::vector<float>{0, 3, 80, 2, 90, 1}));
  EXPECT_EQ(pose.score, (std::vector<float>{0.3F, 0.2F, 0.1F}));
}

TEST(FlipTest, MirrorOrderNamesTheMistake) {
  const auto problem = [](const std::vector<int64_t>& left, const std::vector<int64_t>& right) {
    return ProblemOf([&] { MirrorOrder(5, left, right); });
  };
  EXPECT_NE(problem({1}, {2, 3}).find("data.left_joints has 1"), std::string::npos);
  EXPECT_NE(problem({5}, {2}).find("joint 5 does not exist"), std::string::npos);
  EXPECT_NE(problem({-1}, {2}).find("joint -1 does not exist"), std::string::npos);
  EXPECT_NE(problem({1, 3}, {2, 1}).find("joint 1 is listed twice"), std::string::npos);
}

TEST(FlipTest, LimbsFollowTheirJoints) {
  const std::vector<int64_t> joints = MirrorOrder(5, {1, 3}, {2, 4});
  EXPECT_EQ(MirrorLimbOrder({{0, 1}, {0, 2}, {3, 1}, {2, 4}, {1, 2}}, joints),
            (std::vector<int64_t>{1, 0, 3, 2, 4}));
  EXPECT_THROW(MirrorLimbOrder({{0, 1}}, joints), Error);
  EXPECT_THROW(MirrorLimbOrder({{0, 9}}, joints), Error);
  EXPECT_THROW(MirrorLimbOrder({{0}}, joints), Error);
}

TEST(ColorJitterTest, DrawsInsideTheRangesInEveryOrder) {
  ColorJitterConfig config;
  RandomStream random(5, "test");
  std::set<std::array<ColorJitter::Step, 4>> orders;
  double least = 2;
  double most = 0;
  for (int i = 0; i < 1000; ++i) {
    const ColorJitter jitter = DrawColorJitter(config, random);
    for (const double factor : {jitter.brightness, jitter.contrast, jitter.saturation}) {
      least = std::min(least, factor);
      most = std::max(most, factor);
    }
    ASSERT_LE(std::abs(jitter.hue), 0.1);
    orders.insert(jitter.order);
  }
  EXPECT_EQ(orders.size(), 24U);
  EXPECT_GE(least, 0.5);
  EXPECT_LT(least, 0.51);
  EXPECT_LE(most, 1.5);
  EXPECT_GT(most, 1.49);
}

// The steps one by one in float32, as the reference writes them.
cv::Mat JitterStepByStep(const cv::Mat& frame, const ColorJitter& jitter) {
  cv::Mat image;
  frame.convertTo(image, CV_32FC3);
  const auto gray = [](const cv::Vec3f& p) {
    return 0.2989F * p[0] + 0.587F * p[1] + 0.114F * p[2];
  };
  const auto truncate = [](const cv::Mat& from) {
    cv::Mat to(from.size(), CV_8UC3);
    for (int i = 0; i < static_cast<int>(from.total()); ++i) {
      for (int c = 0; c < 3; ++c) {
        const float value = from.at<cv::Vec3f>(i)[c];
        to.at<cv::Vec3b>(i)[c] = static_cast<uint8_t>(std::clamp(value, 0.0F, 255.0F));
      }
    }
    return to;
  };
  for (const ColorJitter::Step step : jitter.order) {
    double mean = 0;
    for (int i = 0; i < static_cast<int>(image.total()); ++i) mean += gray(image.at<cv::Vec3f>(i));
    mean /= static_cast<double>(image.total());
    if (step == ColorJitter::kHue) {
      ColorJitter hue;
      hue.hue = jitter.hue;
      ApplyColorJitter(truncate(image), hue).convertTo(image, CV_32FC3);
      continue;
    }
    for (int i = 0; i < static_cast<int>(image.total()); ++i) {
      cv::Vec3f& pixel = image.at<cv::Vec3f>(i);
      const float own = gray(pixel);
      for (int c = 0; c < 3; ++c) {
        if (step == ColorJitter::kBrightness) {
          pixel[c] *= static_cast<float>(jitter.brightness);
        } else if (step == ColorJitter::kContrast) {
          pixel[c] = static_cast<float>(jitter.contrast) * pixel[c] +
                     static_cast<float>((1 - jitter.contrast) * mean);
        } else {
          pixel[c] = static_cast<float>(jitter.saturation) * pixel[c] +
                     static_cast<float>(1 - jitter.saturation) * own;
        }
      }
    }
  }
  return truncate(image);
}

TEST(ColorJitterTest, JoinedStepsEqualSingleSteps) {
  cv::Mat frame(1, 64 * 48, CV_8UC3);
  RandomStream random(6, "test");
  for (size_t i = 0; i < frame.total() * 3; ++i) frame.data[i] = random.Bits() & 255;
  for (int i = 0; i < 100; ++i) {
    const ColorJitter jitter = DrawColorJitter(ColorJitterConfig(), random);
    const cv::Mat joined = ApplyColorJitter(frame, jitter);
    const cv::Mat single = JitterStepByStep(frame, jitter);
    cv::Mat difference;
    cv::absdiff(joined, single, difference);
    // A level more or less before the hue is turned can become a few after it; that is rare.
    const cv::Mat rare = difference.reshape(1) > 1;
    EXPECT_LT(cv::countNonZero(rare), static_cast<int>(frame.total()) / 100) << i;
  }
}

TEST(ColorJitterTest, NothingToDoGivesACopy) {
  const cv::Mat frame(4, 4, CV_8UC3, cv::Scalar(1, 2, 3));
  const cv::Mat same = ApplyColorJitter(frame, ColorJitter());
  EXPECT_NE(same.data, frame.data);
  EXPECT_EQ(cv::norm(same, frame, cv::NORM_INF), 0);
}

TEST(HeatmapTest, DrawsWhatIsSeenAndNothingElse) {
  Pose pose = PoseOf({8, 8, 3, 4, 500, 500});
  pose.score = {0.5F, 0, 1};
  std::vector<float> out(3 * 16 * 16, -1);
  DrawHeatmaps(pose, 0, 1, {16, 16}, HeatmapConfig(), {}, out.data());
  EXPECT_FLOAT_EQ(out[8 * 16 + 8], 0.5F);
  EXPECT_FLOAT_EQ(out[8 * 16 + 9], 0.5F * std::exp(-1 / (2 * 0.36F)));
  EXPECT_EQ(out[8 * 16 + 12], 0);  // beyond three sigma
  EXPECT_EQ(std::count(out.begin() + 256, out.end(), 0.0F), 512);
}

TEST(HeatmapTest, PersonsAreMergedByTheMaximum) {
  Pose pose = PoseOf({5, 5, 5, 5});
  pose.persons = 2;
  pose.joints = 1;
  pose.score = {0.4F, 0.9F};
  std::vector<float> out(16 * 16);
  DrawHeatmaps(pose, 0, 1, {16, 16}, HeatmapConfig(), {}, out.data());
  EXPECT_FLOAT_EQ(*std::max_element(out.begin(), out.end()), 0.9F);
}

TEST(HeatmapTest, LimbsComeAfterJoints) {
  HeatmapConfig config;
  config.with_limbs = true;
  const Pose pose = PoseOf({2, 8, 13, 8});
  const Limbs limbs = {{0, 1}};
  EXPECT_EQ(HeatmapChannels(config, 2, limbs), 3);
  std::vector<float> out(3 * 16 * 16);
  DrawHeatmaps(pose, 0, 1, {16, 16}, config, limbs, out.data());
  EXPECT_EQ(out[8 * 16 + 7], 0);        // between the joints
  EXPECT_EQ(out[512 + 8 * 16 + 7], 1);  // on the limb
  EXPECT_THROW(DrawHeatmaps(pose, 0, 1, {16, 16}, config, {{0, 2}}, out.data()), Error);
  EXPECT_THROW(DrawHeatmaps(pose, 0, 1, {16, 16}, config, {{0, -1}}, out.data()), Error);
}

TEST(HeatmapTest, WildCoordinatesAreHarmless) {
  const float huge = 3e38F;
  const Pose pose = PoseOf({huge, -huge, -huge, huge, 1e9F, 5, -0.5F, 15.9F});
  HeatmapConfig config;
  config.with_limbs = true;
  std::vector<float> out(6 * 16 * 16);
  DrawHeatmaps(pose, 0, 1, {16, 16}, config, {{0, 1}, {2, 3}}, out.data());
  for (const float value : out) ASSERT_TRUE(value >= 0 && value <= 1);
}

TEST(NormalizeTest, WritesPlanes) {
  cv::Mat frame(1, 2, CV_8UC3);
  frame.at<cv::Vec3b>(0, 0) = {0, 128, 255};
  frame.at<cv::Vec3b>(0, 1) = {10, 20, 30};
  std::vector<float> out(9, 0);
  Normalizer({100, 50, 10}, {2, 4, 5}).Write(PlanarImage::Of(frame), 3, out.data());
  EXPECT_EQ(out, (std::vector<float>{-50, -45, 0, 19.5F, -7.5F, 0, 49, 4, 0}));
}

}  // namespace
}  // namespace kinefit
