#include "loader/device_heatmaps.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "files/npy.h"
#include "random/stream.h"
#include "transform/flip.h"
#include "transform/heatmap.h"

namespace kinefit {
namespace {

constexpr int64_t kJoints = 5;
constexpr int64_t kFrames = 6;
constexpr int64_t kSide = 40;

DataConfig SmallData() {
  DataConfig data;
  data.pose_frames = kFrames;
  data.left_joints = {1, 3};
  data.right_joints = {2, 4};
  data.limbs = {{0, 1}, {0, 2}, {1, 3}, {2, 4}, {1, 2}};
  return data;
}

// People who are whole, partly outside, far away, hardly seen, not there at all, and limbs whose
// ends are one point.
Pose MakePose(int64_t persons, int64_t frames, uint64_t seed) {
  Pose pose = {persons, frames, kJoints, {}, {}};
  RandomStream random(seed, "pose");
  for (int64_t i = 0; i < persons * frames * kJoints; ++i) {
    const double wild = random.Chance(0.05) ? 1e6 : 1;
    pose.xy.push_back(static_cast<float>(wild * random.Uniform(-8, kSide + 8)));
    pose.xy.push_back(static_cast<float>(wild * random.Uniform(-8, kSide + 8)));
    const double score = random.Uniform(0, 1);
    pose.score.push_back(static_cast<float>(score < 0.1 ? 0 : score < 0.2 ? 1e-4 * score : score));
    if (i % 7 != 6) continue;
    for (int k = 0; k < 2; ++k) pose.xy.push_back(pose.xy[pose.xy.size() - 2]);
    pose.score.push_back(0.5F);
    ++i;
  }
  pose.xy.resize(static_cast<size_t>(2 * persons * frames * kJoints));
  pose.score.resize(static_cast<size_t>(persons * frames * kJoints));
  return pose;
}

// [1, persons, 3, V, T], as the pipeline writes one clip, with room for `room` persons.
at::Tensor ToTensor(const Pose& pose, int64_t room, bool use_score) {
  at::Tensor joints = at::zeros({1, room, 3, pose.joints, pose.frames});
  auto to = joints.accessor<float, 5>();
  size_t i = 0;
  for (int64_t m = 0; m < pose.persons; ++m) {
    for (int64_t t = 0; t < pose.frames; ++t) {
      for (int64_t v = 0; v < pose.joints; ++v, ++i) {
        to[0][m][0][v][t] = pose.xy[2 * i];
        to[0][m][1][v][t] = pose.xy[2 * i + 1];
        to[0][m][2][v][t] = use_score ? pose.score[i] : 1.0F;
      }
    }
  }
  return joints;
}

Batch BatchOf(const at::Tensor& joints, int64_t side, bool mirrored) {
  Batch batch;
  batch.joints = {joints, side, mirrored};
  batch.clips = mirrored ? 2 : 1;
  return batch;
}

at::Tensor DrawnOnHost(const Pose& pose, cv::Size image, const DataConfig& data, bool mirrored) {
  const int64_t channels = HeatmapChannels(data.heatmap, pose.joints, data.limbs);
  const cv::Size size = HeatmapSize(image, data.heatmap.scaling);
  const at::Tensor out =
      at::full({mirrored ? 2 : 1, channels, pose.frames, size.height, size.width}, -1.0F);
  DrawHeatmaps(pose, 0, pose.frames, image, data.heatmap, data.limbs, out.data_ptr<float>());
  if (mirrored) {
    const auto order = MirrorChannels(
        data.heatmap, data.limbs, MirrorOrder(pose.joints, data.left_joints, data.right_joints));
    MirrorHeatmaps(out.data_ptr<float>(), pose.frames, size, order, out[1].data_ptr<float>());
  }
  return out;
}

double Worst(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a - b).abs().max().item<double>();
}

TEST(DeviceHeatmaps, AreThoseOfTheHostInEveryMode) {
  uint64_t seed = 0;
  for (const int kind : {1, 2, 3}) {
    for (const double sigma : {0.6, 1.7}) {
      for (const double scaling : {0.25, 1.0, 0.6}) {
        for (const int64_t persons : {1, 3}) {
          DataConfig data = SmallData();
          data.heatmap.with_joints = (kind & 1) != 0;
          data.heatmap.with_limbs = (kind & 2) != 0;
          data.heatmap.sigma = sigma;
          data.heatmap.scaling = scaling;
          data.heatmap.use_score = seed % 3 != 0;
          const bool mirrored = seed % 2 == 1;
          const Pose pose = MakePose(persons, kFrames, ++seed);
          const at::Tensor host = DrawnOnHost(pose, {kSide, kSide}, data, mirrored);
          ASSERT_GT(host.max().item<float>(), 0.5F);
          const at::Tensor joints = ToTensor(pose, persons + 1, data.heatmap.use_score);
          const at::Tensor drawn = HeatmapsOn(BatchOf(joints, kSide, mirrored), data, at::kCPU);
          EXPECT_LE(Worst(drawn, host), 1e-5) << "seed " << seed;
        }
      }
    }
  }
}

TEST(DeviceHeatmaps, NobodyGivesEmptyOnes) {
  DataConfig data = SmallData();
  data.heatmap.with_limbs = true;
  const at::Tensor joints = at::zeros({2, 2, 3, kJoints, kFrames});
  const at::Tensor drawn = HeatmapsOn(BatchOf(joints, kSide, true), data, at::kCPU);
  EXPECT_EQ(drawn.sizes(), (at::IntArrayRef{4, 10, kFrames, kSide, kSide}));
  EXPECT_EQ(drawn.abs().max().item<float>(), 0);
}

// Where steps are rehearsed.
TEST(DeviceHeatmaps, CanBeDrawnWithoutValues) {
  Config config;
  config.data = SmallData();
  config.data.heatmap.with_limbs = true;
  config.model.pose.in_channels = 10;
  Batch batch;
  batch.joints = EmptyJoints(config, 3, kSide, at::device(at::kMeta).dtype(at::kFloat));
  const at::Tensor drawn = HeatmapsOn(batch, config.data, at::kMeta);
  EXPECT_EQ(drawn.sizes(), (at::IntArrayRef{3, 10, kFrames, kSide, kSide}));
  EXPECT_TRUE(drawn.is_meta());
}

// Or a plan with smaller micro-batches would train on other numbers.
TEST(DeviceHeatmaps, ARowDoesNotDependOnTheOthers) {
  DataConfig data = SmallData();
  data.heatmap.with_limbs = true;
  data.heatmap.scaling = 0.9;
  std::vector<at::Tensor> clips;
  for (uint64_t seed = 0; seed < 7; ++seed) {
    clips.push_back(ToTensor(MakePose(2, kFrames, seed), 2, true));
  }
  const at::Tensor all = HeatmapsOn(BatchOf(at::cat(clips), kSide, false), data, at::kCPU);
  for (int64_t i = 0; i < 7; ++i) {
    const Batch one = BatchOf(clips[static_cast<size_t>(i)], kSide, false);
    EXPECT_TRUE(at::equal(HeatmapsOn(one, data, at::kCPU)[0], all[i])) << i;
  }
}

// Of several samples with several clips, each sample's mirrored clips follow its own.
TEST(DeviceHeatmaps, MirroredClipsFollowTheirSample) {
  const DataConfig data = SmallData();
  std::vector<at::Tensor> rows;
  std::vector<at::Tensor> expected;
  for (uint64_t sample = 0; sample < 2; ++sample) {
    std::vector<at::Tensor> mirrored;
    for (uint64_t clip = 0; clip < 3; ++clip) {
      const Pose pose = MakePose(2, kFrames, 10 * sample + clip);
      rows.push_back(ToTensor(pose, 2, true));
      const at::Tensor both = DrawnOnHost(pose, {kSide, kSide}, data, true);
      expected.push_back(both[0]);
      mirrored.push_back(both[1]);
    }
    expected.insert(expected.end(), mirrored.begin(), mirrored.end());
  }
  Batch batch = BatchOf(at::cat(rows), kSide, true);
  batch.clips = 6;
  EXPECT_LE(Worst(HeatmapsOn(batch, data, at::kCPU), at::stack(expected)), 1e-5);
}

// What the reference drew.
TEST(DeviceHeatmaps, AgreeWithTheReference) {
  const std::string path = std::string(KINEFIT_SHARED) + "/parity/heatmaps.npz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no fixture " << path;
  const NpzArrays arrays = ReadNpz(path);
  const NdArray& kp = arrays.at("kp");
  Pose pose = {kp.shape[0], kp.shape[1], kp.shape[2], kp.ToFloats(), arrays.at("score").ToFloats()};
  int cases = 0;
  for (const auto& [name, array] : arrays) {
    if (name == "kp" || name == "score") continue;
    SCOPED_TRACE(name);
    const std::string kind = name.substr(0, name.find('_'));
    const double number = std::stod(name.substr(name.find('_') + 1));
    DataConfig data;
    data.left_joints = {1, 3, 5, 7, 9, 11, 13, 15};
    data.right_joints = {2, 4, 6, 8, 10, 12, 14, 16};
    data.limbs = {{0, 1},   {0, 2},  {1, 3},   {2, 4},   {0, 5},  {5, 7},
                  {7, 9},   {0, 6},  {6, 8},   {8, 10},  {5, 11}, {11, 13},
                  {13, 15}, {6, 12}, {12, 14}, {14, 16}, {11, 12}};
    data.heatmap.sigma = kind == "scaled" ? 0.7 : number;
    data.heatmap.scaling = kind == "scaled" ? number : 1;
    data.heatmap.with_joints = kind != "limb";
    data.heatmap.with_limbs = kind == "limb";
    data.heatmap.use_score = kind != "noscore";
    Pose in_image = pose;  // the joints are in pixels of the heatmap
    for (float& value : in_image.xy) value /= static_cast<float>(data.heatmap.scaling);
    // Images are square here; these are 64 high and 56 wide, the rest of the square is left over.
    const int64_t side = kind == "scaled" ? 224 : 64;
    const at::Tensor joints = ToTensor(in_image, pose.persons, data.heatmap.use_score);
    at::Tensor drawn = HeatmapsOn(BatchOf(joints, side, false), data, at::kCPU);
    drawn = drawn[0].transpose(0, 1).narrow(3, 0, array.shape[3]);  // [T, C, h, w]
    std::vector<float> values = array.ToFloats();
    const at::Tensor wanted = at::from_blob(values.data(), array.shape, at::kFloat);
    EXPECT_LE(Worst(drawn, wanted.narrow(0, 0, pose.frames)), 1e-5);
    ++cases;
  }
  EXPECT_GE(cases, 5);
}

}  // namespace
}  // namespace kinefit
