#include "transform/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <opencv2/core.hpp>

#include "files/error.h"
#include "files/python_test.h"
#include "transform/compact.h"
#include "transform/flip.h"
#include "transform/heatmap.h"
#include "transform/normalize.h"
#include "transform/resize.h"
#include "transform/sample_frames.h"
#include "transform/small_clip_test.h"
#include "video/reader.h"
#include "video/writer.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

constexpr int kFrames = 20;
constexpr int kWidth = 96;
constexpr int kHeight = 64;

class PipelineTest : public ::testing::Test {
 protected:
  PipelineTest() {
    WriteVideo("clip.mp4", kFrames);
    sample_ = MakeSample();
  }

  void WriteVideo(const std::string& name, int frames) {
    VideoWriter writer(folder_.File(name), kWidth, kHeight, 25);
    RandomStream random(7, "picture");
    cv::Mat frame(kHeight, kWidth, CV_8UC3);
    for (int i = 0; i < frames; ++i) {
      frame.setTo(cv::Scalar(40, 60, 80));
      frame(cv::Rect(2 * i, i, 30, 24)).setTo(cv::Scalar(230, 12 * i, 120));
      writer.Write(frame);
    }
    writer.Finish();
  }

  Sample MakeSample() const {
    return ThreeJointClip(folder_.File("clip.mp4"), kWidth, kHeight, kFrames, [](float t) {
      return std::array<float, 6>{20 + t, 10 + t, 40 + t, 40, 60, 30 + t / 2};
    });
  }

  ClipTensors Run(const Sample& sample, Phase phase, int64_t clips = 1, bool flip = false,
                  uint64_t seed = 1) const {
    RandomStream random(seed, "augment");
    return RunPipeline(sample, config_, phase, clips, flip, random);
  }

  // `imgs`: the first plane of a frame in a clip of four. One level more or less is rounding.
  void ExpectFrameNear(const cv::Mat& expected, const float* imgs) const {
    double worst = 0;
    for (int c = 0; c < 3; ++c) {
      for (int i = 0; i < static_cast<int>(expected.total()); ++i) {
        const double level = imgs[4 * static_cast<int>(expected.total()) * c + i] *
                                 config_.data.std[static_cast<size_t>(c)] +
                             config_.data.mean[static_cast<size_t>(c)];
        worst = std::max(worst, std::abs(level - expected.at<cv::Vec3b>(i / 44, i % 44)[c]));
      }
    }
    EXPECT_LE(worst, 1.001);
  }

  std::string ErrorOf(const Sample& sample, Phase phase = Phase::kTest) const {
    try {
      Run(sample, phase);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  TestFolder folder_;
  Config config_ = SmallClipConfig();
  Sample sample_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(PipelineTest, ShapesOfEachNetwork) {
  using Shape = std::vector<int64_t>;
  ClipTensors clip = Run(sample_, Phase::kTrain, 3, true);
  EXPECT_EQ(clip.clips, 1);  // training makes one clip
  EXPECT_EQ(clip.imgs_shape, (Shape{1, 3, 4, 40, 40}));
  EXPECT_EQ(clip.heatmaps_shape, (Shape{1, 3, 8, 20, 20}));
  EXPECT_EQ(clip.imgs.size(), 3U * 4 * 40 * 40);
  EXPECT_EQ(clip.heatmaps.size(), 3U * 8 * 20 * 20);
  EXPECT_EQ(Run(sample_, Phase::kTest, 3).imgs_shape, (Shape{3, 3, 4, 44, 44}));
  EXPECT_EQ(Run(sample_, Phase::kTest, 3, true).heatmaps_shape, (Shape{6, 3, 8, 22, 22}));
  config_.model.type = "rgb";
  EXPECT_TRUE(Run(sample_, Phase::kTest).heatmaps_shape.empty());
  config_.model.type = "pose";
  sample_.video = "";
  clip = Run(sample_, Phase::kTest, 2);
  EXPECT_TRUE(clip.imgs.empty());
  EXPECT_EQ(clip.heatmaps_shape, (Shape{2, 3, 8, 22, 22}));
  config_.data.heatmap.double_flip = true;
  EXPECT_EQ(Run(sample_, Phase::kTest, 2).clips, 4);
}

// The reference's test pipeline, written out with the single transforms.
TEST_F(PipelineTest, TestPhaseIsItsTransformsInOrder) {
  const ClipTensors clip = Run(sample_, Phase::kTest, 2);
  Pose pose = SelectFrames(sample_.pose, SampleFramesTest(kFrames, 8, 2));
  const cv::Rect box = CompactBox(pose, {kWidth, kHeight}, CompactOptions());
  CompactJoints(&pose, box);
  ResizeJoints(&pose, box.size(), {44, 44});
  std::vector<float> heatmaps(2 * 3 * 8 * 22 * 22);
  for (int64_t k = 0; k < 2; ++k) {
    DrawHeatmaps(pose, 8 * k, 8, {44, 44}, config_.data.heatmap, {},
                 heatmaps.data() + k * 3 * 8 * 22 * 22);
  }
  EXPECT_EQ(clip.heatmaps, heatmaps);
  EXPECT_GT(*std::max_element(heatmaps.begin(), heatmaps.end()), 0.9F);

  const std::vector<cv::Mat> frames = DecodeFrames(sample_.video, SampleFramesTest(kFrames, 4, 2));
  for (int64_t i = 0; i < 8; ++i) {
    ExpectFrameNear(ResizeFrame(CropPadded(frames[static_cast<size_t>(i)], box), {44, 44}),
                    clip.imgs.data() + (i / 4 * 12 + i % 4) * 44 * 44);
  }
}

TEST_F(PipelineTest, RgbAloneLooksAtTheJointsOfAllFrames) {
  config_.model.type = "rgb";
  const ClipTensors clip = Run(sample_, Phase::kTest);
  const cv::Rect box = CompactBox(sample_.pose, {kWidth, kHeight}, CompactOptions());
  const std::vector<cv::Mat> frames = DecodeFrames(sample_.video, SampleFramesTest(kFrames, 4, 1));
  ExpectFrameNear(ResizeFrame(CropPadded(frames[0], box), {44, 44}), clip.imgs.data());
}

TEST_F(PipelineTest, MirroredClipsFollow) {
  const ClipTensors clip = Run(sample_, Phase::kTest, 2, true);
  const auto at = [](const std::vector<float>& all, const std::vector<int64_t>& shape, int64_t k,
                     int64_t c, int64_t t, int64_t y, int64_t x) {
    return all[(((k * shape[1] + c) * shape[2] + t) * shape[3] + y) * shape[4] + x];
  };
  const int64_t swapped[] = {0, 2, 1};
  for (int64_t k = 0; k < 2; ++k) {
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t y = 0; y < 22; ++y) {
        for (int64_t x = 0; x < 22; ++x) {
          ASSERT_EQ(at(clip.heatmaps, clip.heatmaps_shape, k, c, 3, y, x),
                    at(clip.heatmaps, clip.heatmaps_shape, k + 2, swapped[c], 3, y, 21 - x));
          ASSERT_EQ(at(clip.imgs, clip.imgs_shape, k, c, 2, y, x),
                    at(clip.imgs, clip.imgs_shape, k + 2, c, 2, y, 43 - x));
        }
      }
    }
  }
}

TEST_F(PipelineTest, OnlyTrainingIsRandom) {
  config_.data.color_jitter.enabled = true;
  const ClipTensors clip = Run(sample_, Phase::kTrain, 1, false, 1);
  const ClipTensors again = Run(sample_, Phase::kTrain, 1, false, 1);
  const ClipTensors other = Run(sample_, Phase::kTrain, 1, false, 2);
  EXPECT_EQ(clip.imgs, again.imgs);
  EXPECT_EQ(clip.heatmaps, again.heatmaps);
  EXPECT_NE(clip.imgs, other.imgs);
  EXPECT_NE(clip.heatmaps, other.heatmaps);
  EXPECT_EQ(Run(sample_, Phase::kTest, 1, false, 1).imgs,
            Run(sample_, Phase::kTest, 1, false, 2).imgs);
}

TEST_F(PipelineTest, FlipMirrorsBothStreamsTogether) {
  config_.data.crop_area_min = 1;  // the crop is then always the same whole square
  config_.data.crop_aspect_min = config_.data.crop_aspect_max = 1;
  config_.data.flip = 0;
  const ClipTensors plain = Run(sample_, Phase::kTrain);
  config_.data.flip = 1;
  const ClipTensors flipped = Run(sample_, Phase::kTrain);
  for (int64_t i = 0; i < 3 * 4 * 40; ++i) {  // rows of all planes
    for (int64_t x = 0; x < 40; ++x) {
      ASSERT_EQ(plain.imgs[i * 40 + x], flipped.imgs[i * 40 + 39 - x]);
    }
  }
  // The left joint's score of 0.5 now stands in the right joint's channel, and the other way round.
  const auto peak = [](const ClipTensors& clip, int64_t channel) {
    const auto first = clip.heatmaps.begin() + channel * 8 * 20 * 20;
    return *std::max_element(first, first + 8 * 20 * 20);
  };
  EXPECT_GT(peak(plain, 2), 0.55F);
  EXPECT_LE(peak(plain, 1), 0.5F);
  EXPECT_GT(peak(flipped, 1), 0.55F);
  EXPECT_LE(peak(flipped, 2), 0.5F);
}

TEST_F(PipelineTest, JointsAreScaledToTheVideo) {
  Sample doubled = sample_;
  doubled.width *= 2;
  doubled.height *= 2;
  for (float& value : doubled.pose.xy) value *= 2;
  EXPECT_EQ(Run(doubled, Phase::kTest).heatmaps, Run(sample_, Phase::kTest).heatmaps);
  EXPECT_EQ(Run(doubled, Phase::kTest).imgs, Run(sample_, Phase::kTest).imgs);
}

TEST_F(PipelineTest, UnseenPersonsGiveEmptyHeatmapsOfTheWholeImage) {
  std::fill(sample_.pose.xy.begin(), sample_.pose.xy.end(), 0.0F);
  std::fill(sample_.pose.score.begin(), sample_.pose.score.end(), 0.0F);
  const ClipTensors clip = Run(sample_, Phase::kTrain);
  EXPECT_EQ(*std::max_element(clip.heatmaps.begin(), clip.heatmaps.end()), 0);
  EXPECT_GT(*std::max_element(clip.imgs.begin(), clip.imgs.end()), 0);
}

TEST_F(PipelineTest, BadVideosNameTheSample) {
  sample_.video = folder_.File("missing.mp4");
  EXPECT_HAS(ErrorOf(sample_), "sample 'the clip'");
  EXPECT_HAS(ErrorOf(sample_), "missing.mp4");
  sample_ = MakeSample();
  const auto size = fs::file_size(sample_.video);
  fs::resize_file(sample_.video, size / 2);
  EXPECT_HAS(ErrorOf(sample_), "sample 'the clip'");
  std::ofstream(sample_.video) << "this is no video";
  EXPECT_HAS(ErrorOf(sample_), "clip.mp4");
}

TEST_F(PipelineTest, TooFewFramesAreAlwaysFoundOut) {
  WriteVideo("short.mp4", kFrames - 1);
  sample_.video = folder_.File("short.mp4");
  for (uint64_t seed = 0; seed < 10; ++seed) {
    EXPECT_THROW(Run(sample_, Phase::kTrain, 1, false, seed), Error);
  }
  EXPECT_HAS(ErrorOf(sample_), "only 19 frames");
  EXPECT_HAS(ErrorOf(sample_), "the clip");
}

// A segment shows the frames from its first one on, and its joints count from there too.
TEST_F(PipelineTest, SegmentsOfALongerVideo) {
  config_.model.type = "rgb";
  config_.data.compact = false;
  Sample segment = sample_;
  segment.first_frame = 6;
  segment.total_frames = segment.pose.frames = 10;
  segment.pose.xy.resize(10 * 3 * 2);
  segment.pose.score.resize(10 * 3);
  const std::vector<float> shown = Run(segment, Phase::kTest).imgs;
  std::vector<int64_t> numbers = SampleFramesTest(10, 4, 1);
  for (int64_t& number : numbers) number += 6;
  const std::vector<cv::Mat> frames = DecodeFrames(sample_.video, numbers);
  const Normalizer normalizer(config_.data.mean, config_.data.std);
  std::vector<float> expected(shown.size());
  for (size_t i = 0; i < frames.size(); ++i) {
    normalizer.Write(PlanarImage::Of(ResizeFrame(frames[i], {44, 44})), 4 * 44 * 44,
                     expected.data() + i * 44 * 44);
  }
  for (size_t i = 0; i < shown.size(); ++i) ASSERT_NEAR(shown[i], expected[i], 1.01 / 57) << i;

  segment.first_frame = 11;  // 21 frames would be needed
  EXPECT_HAS(ErrorOf(segment), "only 20 frames");
}

TEST_F(PipelineTest, InconsistentSamplesAreRefused) {
  sample_.total_frames = 25;
  EXPECT_HAS(ErrorOf(sample_), "joints for 20 frames, but total_frames is 25");
  sample_ = MakeSample();
  sample_.pose.xy.pop_back();
  EXPECT_HAS(ErrorOf(sample_), "joints are missing");
  sample_ = MakeSample();
  config_.model.pose.in_channels = 17;
  EXPECT_HAS(ErrorOf(sample_), "network takes 17");
}

}  // namespace
}  // namespace kinefit
