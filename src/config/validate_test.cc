#include "config/validate.h"

#include <gtest/gtest.h>

#include "config/load.h"
#include "config/testing.h"

namespace kinefit {
namespace {

std::string Shipped(const std::string& name) {
  return std::string(KINEFIT_SOURCE) + "/configs/" + name;
}

Config WithOverrides(const std::vector<std::string>& overrides,
                     const std::string& name = "rgbpose_attention_ntu60.toml") {
  return LoadConfig(Shipped(name), overrides).config;
}

// The Error of rgbpose_attention_ntu60.toml with these changes.
Error Broken(const std::vector<std::string>& overrides,
             const std::string& name = "rgbpose_attention_ntu60.toml") {
  return ErrorOf([&] { Validate(WithOverrides(overrides, name)); });
}

TEST(ShippedConfigs, AllLoadAndValidate) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(Shipped(""))) {
    if (entry.path().extension() != ".toml") continue;
    ++count;
    SCOPED_TRACE(entry.path().string());
    const LoadedConfig loaded = LoadConfig(entry.path().string());
    EXPECT_NO_THROW(ValidateTraining(loaded.config, &loaded.provenance));
    EXPECT_EQ(DumpConfig(LoadConfigText(DumpConfig(loaded), "dump").config),
              DumpConfig(loaded.config));
  }
  EXPECT_GE(count, 10);
}

TEST(ShippedConfigs, ClassFileOfNtu60HasItsSixtyNames) {
  std::ifstream file(Shipped("classes/ntu60.txt"));
  std::vector<std::string> names;
  for (std::string line; std::getline(file, line);) names.push_back(line);
  ASSERT_EQ(names.size(), 60U);
  EXPECT_EQ(names.front(), "drink water");
  EXPECT_EQ(names[41], "staggering");
  EXPECT_EQ(names.back(), "walking apart from each other");
}

TEST(ShippedConfigs, PcanIsTheCaseItWasMadeFor) {
  const Config config = WithOverrides({});
  EXPECT_EQ(config.model.type, "rgbpose_attention");
  EXPECT_EQ(config.model.num_classes, 60);
  EXPECT_EQ(config.data.rgb_frames, 8);
  EXPECT_EQ(config.data.crop, 224);
  EXPECT_EQ(config.data.pose_frames, 32);
  EXPECT_EQ(config.data.crop * config.data.heatmap.scaling, 56);
  EXPECT_TRUE(config.data.color_jitter.enabled);
  EXPECT_EQ(config.data.annotations, "data/skeleton/ntu60_2d.pkl");
  EXPECT_EQ(config.data.videos, "data/nturgbd_videos");
  EXPECT_EQ(config.train.batch_size, 16);
  EXPECT_EQ(config.train.optimizer.type, "sgd");
  EXPECT_EQ(config.train.optimizer.lr, 0.008);
  EXPECT_EQ(config.train.resume, "auto");
  EXPECT_EQ(config.train.epochs, 100);
}

// Values of mmaction2's
// configs/skeleton/posec3d/rgbpose_conv3d/{rgbpose_conv3d,rgb_only,pose_only}.
TEST(ShippedConfigs, Ntu60OnesAreTheReferences) {
  const Config both = WithOverrides({}, "rgbpose_ntu60.toml");
  EXPECT_EQ(both.train.optimizer.lr, 0.0075);
  EXPECT_EQ(both.train.optimizer.weight_decay, 0.0001);
  EXPECT_EQ(both.train.optimizer.clip_norm, 40);
  EXPECT_EQ(both.train.batch_size, 6);
  EXPECT_EQ(both.train.base_batch_size, 48);
  EXPECT_EQ(both.train.epochs, 20);
  EXPECT_EQ(both.data.repeat, 1);
  EXPECT_EQ(both.data.test_size, 256);
  EXPECT_EQ(both.data.heatmap.sigma, 0.7);
  ASSERT_EQ(both.train.schedule.size(), 1U);
  EXPECT_EQ(both.train.schedule[0].milestones, (std::vector<int64_t>{12, 16}));

  const Config rgb = WithOverrides({}, "rgb_ntu60.toml");
  EXPECT_EQ(rgb.train.optimizer.lr, 0.15);
  EXPECT_EQ(rgb.train.optimizer.weight_decay, 0.0001);
  EXPECT_EQ(rgb.train.batch_size, 12);
  EXPECT_EQ(rgb.train.base_batch_size, 96);
  EXPECT_EQ(rgb.train.epochs, 18);
  EXPECT_EQ(rgb.data.repeat, 10);
  EXPECT_EQ(rgb.data.test_size, 224);
  ASSERT_EQ(rgb.train.schedule.size(), 1U);
  EXPECT_EQ(rgb.train.schedule[0].type, "cosine");
  EXPECT_EQ(rgb.train.schedule[0].t_max, 18);
  EXPECT_TRUE(rgb.train.schedule[0].per_iteration);

  const Config pose = WithOverrides({}, "pose_ntu60.toml");
  EXPECT_EQ(pose.train.optimizer.lr, 0.2);
  EXPECT_EQ(pose.train.optimizer.weight_decay, 0.0003);
  EXPECT_EQ(pose.train.batch_size, 16);
  EXPECT_EQ(pose.train.base_batch_size, 128);
  EXPECT_EQ(pose.train.epochs, 18);
  EXPECT_EQ(pose.data.repeat, 10);
  EXPECT_EQ(pose.data.resize, 64);
  EXPECT_EQ(pose.data.crop, 56);
  EXPECT_EQ(pose.data.test_size, 64);
  EXPECT_EQ(pose.data.heatmap.sigma, 0.6);
}

TEST(Validate, ListsMustHaveOneEntryPerStage) {
  const Error error = Broken({"model.rgb.inflate=[0, 0, 1]"});
  EXPECT_EQ(error.problem(), "3 entries in model.rgb.inflate for 4 stages");
  EXPECT_CONTAINS(error.where(), "model.rgb.inflate");
  EXPECT_CONTAINS(error.remedy(), "one entry for each stage");
  EXPECT_CONTAINS(Broken({"model.pose.spatial_strides=[2]"}).problem(), "model.pose.spatial");
  EXPECT_CONTAINS(Broken({"model.pose.lateral_activate=[1, 1]"}).problem(), "lateral_activate");
  EXPECT_CONTAINS(Broken({"model.rgb.stage_blocks=[]"}).problem(), "1 to 8 stages");
  EXPECT_NO_THROW(Validate(WithOverrides({"model.rgb.inflate=[]"}, "pose_ntu60.toml")));
}

TEST(Validate, MessagesSayWhereTheValuesWereSet) {
  const LoadedConfig loaded =
      LoadConfig(Shipped("rgbpose_attention_ntu60.toml"), {"model.attention.heads=3"});
  const Error error = ErrorOf([&] { Validate(loaded.config, &loaded.provenance); });
  EXPECT_EQ(error.problem(), "a width of 128 cannot be divided by 3 heads");
  EXPECT_EQ(error.where(), "model.attention.width (default), model.attention.heads (--set)");
}

TEST(Validate, StreamsMustMeetInTime) {
  const Error error = Broken({"data.rgb_frames=16"});
  EXPECT_EQ(error.problem(), "16 RGB frames x speed ratio 4 are not the 32 pose frames");
  EXPECT_CONTAINS(error.remedy(), "data.pose_frames = 64");
  EXPECT_CONTAINS(Broken({"model.rgb.temporal_strides=[1, 2, 1, 1]"}).problem(),
                  "4 and 32 frames long");
  EXPECT_NO_THROW(Validate(WithOverrides({"data.rgb_frames=16", "data.pose_frames=64"})));
}

TEST(Validate, StreamsMustMeetInSpace) {
  const Error error = Broken({"data.heatmap.scaling=0.5"});
  EXPECT_EQ(error.problem(),
            "RGB features of 14x14 meet pose features of 28x28 after 3 RGB and 2 pose stages, "
            "where a lateral joins them (frames 224x224, heatmaps 112x112)");
  EXPECT_CONTAINS(error.where(), "data.crop");
  EXPECT_CONTAINS(Broken({"data.test_size=241"}).where(), "data.test_size");
  EXPECT_NO_THROW(Validate(WithOverrides({"data.test_size=224"})));
  EXPECT_NO_THROW(
      Validate(WithOverrides({"data.heatmap.scaling=0.5", "model.rgb.lateral_activate=[]",
                              "model.pose.lateral_activate=[]"})));
}

TEST(Validate, JointsMustFitTheNetwork) {
  EXPECT_CONTAINS(Broken({"model.pose.in_channels=15"}).problem(),
                  "joint 15 does not exist among 15 joints");
  EXPECT_CONTAINS(Broken({"data.left_joints=[1]"}).problem(), "1 left joints for 8 right ones");
  EXPECT_CONTAINS(Broken({"data.left_joints=[1]", "data.right_joints=[1]"}).problem(),
                  "joint 1 is listed twice");
  EXPECT_CONTAINS(Broken({"data.heatmap.with_limbs=true"}).problem(),
                  "17 heatmap channels do not fit 17 limbs and at least one joint");
  EXPECT_CONTAINS(Broken({"data.heatmap.with_joints=false"}).problem(), "neither");
  EXPECT_CONTAINS(Broken({"data.limbs=[[1, 2, 3]]"}).problem(), "a limb of 3 joints");
  EXPECT_CONTAINS(Broken({"data.heatmap.with_limbs=true", "data.limbs=[]"}).problem(), "no limbs");
  EXPECT_NO_THROW(
      Validate(WithOverrides({"data.heatmap.with_limbs=true", "data.heatmap.with_joints=false"})));
  EXPECT_NO_THROW(
      Validate(WithOverrides({"data.heatmap.with_limbs=true", "model.pose.in_channels=34"})));
}

TEST(Validate, CropsMustBePossible) {
  EXPECT_CONTAINS(Broken({"data.crop=288"}).problem(), "larger than the image of 256");
  EXPECT_CONTAINS(Broken({"data.crop_area_max=0.1"}).problem(), "smallest crop");
  EXPECT_CONTAINS(Broken({"data.crop_aspect_max=0.1"}).problem(), "aspect");
}

TEST(Validate, SchedulesMustMakeSense) {
  const Error error = Broken({"train.schedule.1.end=5"});
  EXPECT_CONTAINS(error.problem(), "ends at 5, before it begins at 5");
  EXPECT_EQ(error.where(), "train.schedule.1.begin, train.schedule.1.end");
  EXPECT_CONTAINS(Broken({"train.epochs=5"}).problem(), "begins at epoch 5 of 5");
  const std::string file = "rgbpose_ntu60.toml";
  EXPECT_CONTAINS(Broken({"train.schedule.0.milestones=[16, 12]"}, file).problem(), "ascend");
  EXPECT_CONTAINS(Broken({"train.schedule.0.milestones=[12, 12]"}, file).problem(), "ascend");
  EXPECT_CONTAINS(Broken({"train.schedule.0.milestones=[]"}, file).problem(), "without milestones");
  EXPECT_CONTAINS(
      Broken({"train.schedule.0.per_iteration=true", "train.schedule.0.by_epoch=false"}).problem(),
      "per_iteration");
  EXPECT_CONTAINS(Broken({"train.schedule.1.t_max=0"}).problem(), "no length");
}

TEST(Validate, OddsAndEnds) {
  EXPECT_CONTAINS(Broken({"device=gpu"}).problem(), "no device called \"gpu\"");
  EXPECT_CONTAINS(Broken({"device=cuda:"}).problem(), "no device");
  EXPECT_NO_THROW(Validate(WithOverrides({"device=cuda:1"})));
  EXPECT_CONTAINS(Broken({"train.precision=fp16"}).remedy(), "bf16");
  EXPECT_NO_THROW(Validate(WithOverrides({"train.precision=fp16", "device=cuda"})));
  EXPECT_CONTAINS(Broken({"model.rgb.in_channels=4"}).problem(), "3 channels");
  EXPECT_CONTAINS(Broken({"model.rgb.conv1_kernel=[1, 6, 6]"}).problem(), "even size, 6");
  EXPECT_CONTAINS(Broken({"model.fusion.fusion_kernel=6"}).problem(), "even");
  EXPECT_CONTAINS(Broken({"model.attention.points=['final', 'final']"}).problem(), "twice");
  EXPECT_CONTAINS(Broken({"train.early_stop=3", "train.val_every=0"}).problem(), "early stop");
  EXPECT_CONTAINS(Broken({"train.work_dir="}).problem(), "no folder");
  EXPECT_CONTAINS(Broken({"train.resume="}).problem(), "resume is empty");
  EXPECT_CONTAINS(Broken({"train.init_rgb=a.pth"}, "pose_ntu60.toml").remedy(), "train.init");
  EXPECT_CONTAINS(Broken({"model.head.pose_loss_weight=0"}, "pose_ntu60.toml").problem(),
                  "every loss");
  EXPECT_CONTAINS(Broken({"eval.pose_weight=0"}, "pose_ntu60.toml").problem(), "weight 0");
}

TEST(ValidateTraining, NeedsDataAndJointPairs) {
  const auto error = [](const std::vector<std::string>& overrides) {
    return ErrorOf([&] { ValidateTraining(WithOverrides(overrides)); });
  };
  EXPECT_EQ(error({"data.annotations="}).where(), "data.annotations");
  EXPECT_EQ(error({"data.videos="}).where(), "data.videos");
  EXPECT_CONTAINS(error({"data.left_joints=[]", "data.right_joints=[]"}).remedy(), "data.flip = 0");
  EXPECT_NO_THROW(ValidateTraining(
      WithOverrides({"data.left_joints=[]", "data.right_joints=[]", "data.flip=0"})));
}

}  // namespace
}  // namespace kinefit
