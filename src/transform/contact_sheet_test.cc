#include "transform/contact_sheet.h"

#include <gtest/gtest.h>

#include <array>
#include <opencv2/imgproc.hpp>

#include "files/error.h"
#include "files/python_test.h"
#include "transform/normalize.h"
#include "transform/resize.h"
#include "transform/small_clip_test.h"
#include "video/numbered_video.h"
#include "video/reader.h"

namespace kinefit {
namespace {

constexpr int kFrames = 20;

class ContactSheetTest : public ::testing::Test {
 protected:
  ContactSheetTest() {
    WriteNumberedVideo(folder_.File("clip.mp4"), kFrames);
    DataConfig& data = config_.data;
    data.crop = 32;
    data.test_size = 56;
    data.heatmap.scaling = 1;
    data.color_jitter.enabled = true;
    data.limbs = {{0, 1}, {0, 2}};
    sample_ = ThreeJointClip(folder_.File("clip.mp4"), 128, 64, kFrames, [](float t) {
      return std::array<float, 6>{40 + t, 10, 30 + t, 50, 70 + t, 50};
    });
  }

  ClipTensors Run(Phase phase, int64_t clips, uint64_t seed, PipelineTrace* trace) const {
    RandomStream random(seed, "augment");
    return RunPipeline(sample_, config_, phase, clips, false, random, trace);
  }

  cv::Mat Sheet(Phase phase, int64_t clips = 1, uint64_t seed = 1) const {
    PipelineTrace trace;
    const ClipTensors tensors = Run(phase, clips, seed, &trace);
    return DrawContactSheet(sample_, config_, tensors, trace, {"title", "more"});
  }

  // Whether `tile` stands somewhere at the left margin.
  static bool Shows(const cv::Mat& sheet, const cv::Mat& tile, int x = 16) {
    for (int y = 0; y + tile.rows <= sheet.rows; ++y) {
      if (cv::norm(sheet(cv::Rect(x, y, tile.cols, tile.rows)), tile, cv::NORM_INF) == 0) {
        return true;
      }
    }
    return false;
  }

  TestFolder folder_;
  Config config_ = SmallClipConfig();
  Sample sample_;
};

TEST_F(ContactSheetTest, TracingChangesNothing) {
  for (const Phase phase : {Phase::kTrain, Phase::kTest}) {
    PipelineTrace trace;
    const ClipTensors traced = Run(phase, 2, 5, &trace);
    const ClipTensors plain = Run(phase, 2, 5, nullptr);
    EXPECT_EQ(traced.imgs, plain.imgs);
    EXPECT_EQ(traced.heatmaps, plain.heatmaps);
    EXPECT_EQ(trace.clips, phase == Phase::kTrain ? 1 : 2);
    EXPECT_EQ(trace.rgb_frames.size(), static_cast<size_t>(4 * trace.clips));
    EXPECT_EQ(trace.rgb_pose.frames, 4 * trace.clips);
    EXPECT_EQ(trace.pose.frames, 8 * trace.clips);
  }
}

// A joint in the trace is where the picture has it: the annotation follows the top left block of
// the numbered frames, through box, crop and mirroring.
TEST_F(ContactSheetTest, TracedJointsAreWhereThePictureShowsThem) {
  config_.data.color_jitter.enabled = false;
  config_.data.compact_padding = 0.1;
  for (size_t i = 0; i < sample_.pose.score.size(); ++i) {
    const size_t joint = i % 3;  // centres of three bright or dark blocks
    sample_.pose.xy[2 * i] = joint == 0 ? 16 : joint == 1 ? 48 : 80;
    sample_.pose.xy[2 * i + 1] = 16;
  }
  for (uint64_t seed = 0; seed < 6; ++seed) {
    PipelineTrace trace;
    const ClipTensors tensors = Run(Phase::kTrain, 1, seed, &trace);
    const Normalizer normalizer(config_.data.mean, config_.data.std);
    for (int64_t t = 0; t < 4; ++t) {
      const int64_t plane = 32 * 32;
      const cv::Mat frame =
          normalizer.Read(tensors.imgs.data() + t * plane, 4 * plane, cv::Size(32, 32));
      const int64_t number = trace.rgb_frames[static_cast<size_t>(t)];
      for (int64_t joint = 0; joint < 3; ++joint) {
        // Mirrored, the annotated left joint is where the right one was: blocks 1 and 2 change.
        const int64_t block = !trace.flip || joint == 0 ? joint : 3 - joint;
        const size_t i = static_cast<size_t>(t * 3 + joint);
        const int x = static_cast<int>(std::lround(trace.rgb_pose.xy[2 * i]));
        const int y = static_cast<int>(std::lround(trace.rgb_pose.xy[2 * i + 1]));
        if (x < 0 || y < 0 || x > 31 || y > 31) continue;  // cropped away
        const bool bright = (number >> block & 1) != 0;
        EXPECT_EQ(frame.at<cv::Vec3b>(y, x)[1] > 128, bright)
            << "seed " << seed << " input " << t << " joint " << joint;
      }
    }
  }
}

TEST_F(ContactSheetTest, ShowsThePixelsThatTheNetworkGets) {
  PipelineTrace trace;
  const ClipTensors tensors = Run(Phase::kTest, 1, 1, &trace);
  const Normalizer normalizer(config_.data.mean, config_.data.std);
  const int64_t plane = 56 * 56;
  cv::Mat first = normalizer.Read(tensors.imgs.data(), 4 * plane, cv::Size(56, 56));
  cv::resize(first, first, cv::Size(224, 224), 0, 0, cv::INTER_NEAREST);
  EXPECT_TRUE(Shows(Sheet(Phase::kTest), first));
  EXPECT_FALSE(Shows(Sheet(Phase::kTrain), first));
}

TEST_F(ContactSheetTest, DrawsAreThoseOfTheStream) {
  const cv::Mat one = Sheet(Phase::kTrain, 1, 1);
  EXPECT_EQ(cv::norm(one, Sheet(Phase::kTrain, 1, 1), cv::NORM_INF), 0);
  EXPECT_GT(cv::norm(one, Sheet(Phase::kTrain, 1, 2), cv::NORM_INF), 0);
  const cv::Mat test = Sheet(Phase::kTest);
  EXPECT_EQ(one.cols, test.cols);
  EXPECT_GT(Sheet(Phase::kTest, 3).rows, 2 * test.rows);
}

// Frames without a pose are left out of what a pose network sees, not of the video.
TEST_F(ContactSheetTest, PosesWithGapsAreDrawnOnTheirOwnFrames) {
  config_.model.type = "pose";
  config_.data.compact = false;
  sample_.frame_numbers = {9, 10, 11, 15, 16, 17, 18, 19};
  Pose& pose = sample_.pose;
  pose.frames = sample_.total_frames = 8;
  pose.xy.resize(8 * 3 * 2);
  pose.score.assign(8 * 3, 0.0F);  // the pictures alone
  const auto tile = [&](int64_t frame) {
    cv::Mat picture = DecodeFrames(sample_.video, {frame}).front();
    cv::resize(picture, picture, cv::Size(224, 112), 0, 0, cv::INTER_NEAREST);
    return picture;
  };
  const cv::Mat sheet = Sheet(Phase::kTest);  // all eight frames
  EXPECT_TRUE(Shows(sheet, tile(9)));
  EXPECT_FALSE(Shows(sheet, tile(0)));
  EXPECT_TRUE(Shows(sheet, tile(15), 16 + 3 * (224 + 8)));
  EXPECT_TRUE(Shows(sheet, tile(19), 16 + 7 * (224 + 8)));
}

TEST_F(ContactSheetTest, OneStreamAlone) {
  const int both = Sheet(Phase::kTrain).rows;
  config_.model.type = "rgb";
  const int rgb = Sheet(Phase::kTrain).rows;
  config_.model.type = "pose";
  const int pose = Sheet(Phase::kTrain).rows;
  EXPECT_LT(rgb, both);
  EXPECT_LT(pose, both);
  sample_.video = "";  // the skeleton on black
  EXPECT_EQ(Sheet(Phase::kTrain).rows, pose);
}

TEST(Normalizer, ReadsBackEveryLevel) {
  const Normalizer normalizer({123.675, 116.28, 103.53}, {58.395, 57.12, 57.375});
  cv::Mat frame(16, 16, CV_8UC3);
  for (int i = 0; i < 256; ++i) {
    frame.at<cv::Vec3b>(i / 16, i % 16) = {static_cast<uint8_t>(i), static_cast<uint8_t>(255 - i),
                                           static_cast<uint8_t>(i ^ 85)};
  }
  std::vector<float> planes(3 * 256);
  normalizer.Write(PlanarImage::Of(frame), 256, planes.data());
  const cv::Mat back = normalizer.Read(planes.data(), 256, frame.size());
  EXPECT_EQ(cv::norm(frame, back, cv::NORM_INF), 0);
}

}  // namespace
}  // namespace kinefit
