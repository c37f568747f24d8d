#include "transform/pack_clip.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "dataset/annotations.h"
#include "files/error.h"
#include "files/python_test.h"
#include "transform/compact.h"
#include "transform/pipeline.h"
#include "transform/small_clip_test.h"
#include "video/writer.h"

namespace kinefit {
namespace {

constexpr int kFrames = 24;
constexpr int kWidth = 192;
constexpr int kHeight = 128;

class PackClipTest : public ::testing::Test {
 protected:
  PackClipTest() {
    WriteVideo();
    set_.samples = {MakeSample()};
  }

  // A soft picture, as photographs are: hard edges of colour are what JPEG is worst at.
  void WriteVideo() const {
    VideoWriter writer(folder_.File("clip.mp4"), kWidth, kHeight, 25);
    for (int i = 0; i < kFrames; ++i) {
      cv::Mat frame(kHeight, kWidth, CV_8UC3, cv::Scalar(40, 60, 80));
      cv::circle(frame, {40 + 3 * i, 50 + i}, 24, cv::Scalar(230, 8 * i, 120), -1);
      cv::rectangle(frame, cv::Rect(100, 20 + i, 30, 60), cv::Scalar(90, 200, 200 - 5 * i), -1);
      cv::GaussianBlur(frame, frame, {7, 7}, 2);
      writer.Write(frame);
    }
    writer.Finish();
  }

  // A tall person who walks to the right.
  Sample MakeSample() const {
    return ThreeJointClip(folder_.File("clip.mp4"), kWidth, kHeight, kFrames, [](float t) {
      const float x = 60 + 1.5F * t;
      return std::array<float, 6>{x, 30, x + 8, 60, x - 8, 105};
    });
  }

  PackSettings Settings() const {
    PackSettings settings = PackSettingsOf(config_.data);
    settings.quality = 95;
    settings.halve_chroma = false;
    return settings;
  }

  // The sample, from a store made with `settings`.
  Sample Pack(const PackSettings& settings) {
    PackRequest request;
    request.path = folder_.File("set.kfpack");
    request.settings = settings;
    request.set = &set_;
    request.force = true;
    WritePackedStore(request, [&](const Sample& sample) { return PackClip(sample, settings); });
    Config config = config_;
    config.data.annotations = request.path;
    return LoadDataset(config, "").samples.at(0);
  }

  // Largest and mean difference in levels of 0 to 255 between what the network would see.
  std::pair<double, double> Compare(const Sample& packed, Phase phase, uint64_t seed,
                                    const std::string& type = "rgbpose") {
    Config config = config_;
    config.model.type = type;
    RandomStream one(seed, "augment");
    RandomStream two(seed, "augment");
    const ClipTensors a = RunPipeline(set_.samples[0], config, phase, 2, true, one);
    const ClipTensors b = RunPipeline(packed, config, phase, 2, true, two);
    EXPECT_EQ(a.heatmaps, b.heatmaps);
    EXPECT_EQ(a.imgs.size(), b.imgs.size());
    double largest = 0;
    double sum = 0;
    for (size_t i = 0; i < a.imgs.size(); ++i) {
      const double difference = 57.4 * std::abs(a.imgs[i] - b.imgs[i]);
      largest = std::max(largest, difference);
      sum += difference;
    }
    return {largest, sum / static_cast<double>(a.imgs.size())};
  }

  std::string ErrorOf(const Sample& sample) {
    try {
      PackClip(sample, Settings());
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  TestFolder folder_;
  Config config_ = SmallClipConfig();
  Dataset set_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// At full size only JPEG is between the two, in every phase and for every kind of box.
TEST_F(PackClipTest, GivesTheNetworkWhatTheVideoGivesIt) {
  for (int box = 0; box < 4; ++box) {
    SCOPED_TRACE(box);
    config_.data.compact = box != 1;
    config_.data.compact_hw_ratio = box == 2 ? 0 : 1;
    config_.data.compact_allow_imgpad = box != 3;
    const Sample packed = Pack(Settings());
    for (uint64_t seed = 0; seed < 12; ++seed) {
      const auto [largest, mean] = Compare(packed, Phase::kTrain, seed);
      EXPECT_LT(largest, 14) << seed;
      EXPECT_LT(mean, 1.2) << seed;
    }
    for (const std::string type : {"rgb", "rgbpose"}) {
      const auto [largest, mean] = Compare(packed, Phase::kTest, 1, type);
      EXPECT_LT(largest, 14) << type;
      EXPECT_LT(mean, 1.2) << type;
    }
  }
}

// Someone who moves in the last frame only: boxes of draws without it reach beyond that of all
// frames. Without a margin nothing would be stored there.
TEST_F(PackClipTest, TheMarginIsForTheBoxesOfFewerFrames) {
  Pose& pose = set_.samples[0].pose;
  for (size_t i = 0; i < pose.xy.size(); i += 2) {
    const float x = std::fmod(static_cast<float>(i), 6) - 2;  // of the three joints
    pose.xy[i] = 90 + 4 * x + (i + 6 >= pose.xy.size() ? 8.0F : 0.0F);
  }
  const auto largest = [&](double margin) {
    PackSettings settings = Settings();
    settings.margin = margin;
    const Sample packed = Pack(settings);
    double most = 0;
    for (uint64_t seed = 0; seed < 40; ++seed) {
      most = std::max(most, Compare(packed, Phase::kTrain, seed).first);
    }
    return most;
  };
  EXPECT_GT(largest(0), 30);
  EXPECT_LT(largest(0.05), 14);
}

TEST_F(PackClipTest, ScalesDownToTheShortSideAndNeverUp) {
  PackSettings settings = Settings();
  const cv::Rect box = CompactBox(set_.samples[0].pose, {kWidth, kHeight}, CompactOptions());
  EXPECT_EQ(box.width, box.height);
  const PackedClip full = PackClip(set_.samples[0], settings);
  EXPECT_EQ(full.table.width, full.table.window_width);
  EXPECT_LE(full.table.window_x, std::max(0, box.x));
  settings.short_side = 48;
  const PackedClip scaled = PackClip(set_.samples[0], settings);
  EXPECT_EQ(scaled.table.window_width, full.table.window_width);
  EXPECT_EQ(scaled.table.width,
            std::lround(static_cast<double>(full.table.window_width) * 48 / box.width));
  EXPECT_EQ(scaled.images.size(), static_cast<size_t>(kFrames));

  const Sample packed = Pack(settings);
  for (uint64_t seed = 0; seed < 6; ++seed) {
    EXPECT_LT(Compare(packed, Phase::kTrain, seed).second, 3) << seed;
  }
  EXPECT_LT(Compare(packed, Phase::kTest, 0).second, 3);
}

// Joints annotated on a larger picture than the video is.
TEST_F(PackClipTest, ScalesJointsToTheVideo) {
  Sample& sample = set_.samples[0];
  sample.width *= 3;
  sample.height *= 3;
  for (float& value : sample.pose.xy) value *= 3;
  const Sample packed = Pack(Settings());
  EXPECT_LT(Compare(packed, Phase::kTrain, 5).second, 1.2);
  EXPECT_EQ(packed.pose.xy, sample.pose.xy);
}

TEST_F(PackClipTest, NamesVideosItCannotUse) {
  Sample sample = set_.samples[0];
  sample.total_frames = kFrames + 1;
  EXPECT_HAS(ErrorOf(sample), "only 24 frames");
  sample = set_.samples[0];
  sample.width = 100;
  EXPECT_HAS(ErrorOf(sample), "the video shows 192x128");
  sample.video = folder_.File("missing.mp4");
  EXPECT_HAS(ErrorOf(sample), "missing.mp4");
}

// Nobody in the picture: all that the box shows is black, from the store as from the video.
TEST_F(PackClipTest, PeopleOutsideThePicture) {
  for (size_t i = 0; i < set_.samples[0].pose.xy.size(); i += 2) {
    set_.samples[0].pose.xy[i] += 900;
  }
  const auto [largest, mean] = Compare(Pack(Settings()), Phase::kTest, 0);
  EXPECT_EQ(largest, 0);
  EXPECT_EQ(mean, 0);
}

}  // namespace
}  // namespace kinefit
