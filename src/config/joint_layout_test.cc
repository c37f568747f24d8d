#include "config/joint_layout.h"

#include <gtest/gtest.h>

#include "config/load.h"
#include "config/testing.h"

namespace kinefit {
namespace {

using Numbers = std::vector<int64_t>;

TEST(JointLayout, BuiltInOnesHaveTheirJointsAndMirrorThemselves) {
  const std::vector<std::pair<std::string, int64_t>> known = {
      {"coco17", 17},     {"jhmdb15", 15},    {"msraction20", 20}, {"ntu25", 25},
      {"openpose18", 18}, {"openpose25", 25}, {"openpose28", 28},
  };
  EXPECT_EQ(BuiltInLayoutNames().size(), known.size());
  for (const auto& [name, joints] : known) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(IsBuiltInLayout(name));
    const JointLayout layout = LoadJointLayout(name);
    EXPECT_EQ(layout.name, name);
    EXPECT_EQ(layout.count(), joints);
    // Every joint called left has a partner, and the limbs of one side are those of the other.
    for (size_t i = 0; i < layout.left.size(); ++i) {
      const std::string& left = layout.joints[static_cast<size_t>(layout.left[i])];
      const std::string& right = layout.joints[static_cast<size_t>(layout.right[i])];
      EXPECT_EQ(left.substr(0, 5), "left_");
      EXPECT_EQ(right, "right_" + left.substr(5));
    }
    size_t lefts = 0;
    for (const std::string& joint : layout.joints) lefts += joint.rfind("left_", 0) == 0;
    EXPECT_EQ(lefts, layout.left.size());
    // A skeleton hangs together: every joint is at the end of some limb.
    std::vector<int> used(layout.joints.size());
    for (const Numbers& limb : layout.limbs) {
      ++used[static_cast<size_t>(limb[0])];
      ++used[static_cast<size_t>(limb[1])];
    }
    for (size_t i = 0; i < used.size(); ++i) EXPECT_GT(used[i], 0) << layout.joints[i];
  }
}

// What the configurations have written out so far and what the layouts say is the same.
TEST(JointLayout, AgreeWithTheShippedIncludes) {
  const JointLayout coco = LoadJointLayout("coco17");
  const Config written =
      LoadConfig(std::string(KINEFIT_SOURCE) + "/configs/include/coco17.toml").config;
  EXPECT_EQ(coco.left, written.data.left_joints);
  EXPECT_EQ(coco.right, written.data.right_joints);
  EXPECT_EQ(coco.limbs, written.data.limbs);
  const JointLayout jhmdb = LoadJointLayout("jhmdb15");
  const Config set =
      LoadConfig(std::string(KINEFIT_SOURCE) + "/configs/include/jhmdb14.toml").config;
  EXPECT_EQ(jhmdb.limbs, set.data.limbs);
  Numbers left = set.data.left_joints;
  EXPECT_EQ(jhmdb.left, left);
}

const char kThree[] =
    "joints = ['head', 'left_hand', 'right_hand']\n"
    "pairs = [['left_hand', 'right_hand']]\n"
    "limbs = [['head', 'left_hand'], ['head', 'right_hand']]\n";

TEST(JointLayout, MistakesNameTheLineAndTheJoint) {
  const auto refused = [](const std::string& text, const std::string& part) {
    const Error error = ErrorOf([&] { ParseJointLayout(text, "my.toml"); });
    EXPECT_CONTAINS(std::string(error.what()), part);
    EXPECT_CONTAINS(std::string(error.what()), "my.toml");
  };
  EXPECT_EQ(ParseJointLayout(kThree, "my.toml").right, Numbers{2});
  refused("", "no joints");
  refused("joints = []", "1 to 1024");
  refused("joints = ['a', 'a']", "\"a\" is listed twice");
  refused("joints = ['a', '']", "no name");
  refused("joints = 3", "joints");
  refused("joints = ['a', 'b']\npairs = [['a', 'c']]", "\"c\" in pairs");
  refused("joints = ['left', 'b']\nlimbs = [['lefft', 'b']]", "did you mean \"left\"?");
  refused("joints = ['a', 'b']\npairs = [['a', 'b'], ['b', 'a']]", "in two pairs");
  refused("joints = ['a', 'b']\npairs = [['a', 'a']]", "two joints");
  refused("joints = ['a', 'b']\nlimbs = [['a']]", "two joints");
  refused("joints = ['a', 'b']\nlimb = []", "\"limb\"");
  refused("joints = [", "my.toml:1");
}

TEST(DataJoints, FillsWhatIsNotSet) {
  const Config ntu = LoadConfigText("[data]\njoints = 'ntu25'", "").config;
  EXPECT_EQ(ntu.model.pose.in_channels, 25);
  EXPECT_EQ(ntu.data.left_joints.size(), 10U);
  EXPECT_EQ(ntu.data.limbs.size(), 24U);
  const Config limbs =
      LoadConfigText("[data]\njoints = 'ntu25'\nheatmap.with_limbs = true", "").config;
  EXPECT_EQ(limbs.model.pose.in_channels, 49);
  const Config own = LoadConfigText(
                         "[data]\njoints = 'ntu25'\nlimbs = [[0, 1]]\nheatmap.with_limbs = true\n"
                         "heatmap.with_joints = false",
                         "")
                         .config;
  EXPECT_EQ(own.data.limbs, (std::vector<Numbers>{{0, 1}}));
  EXPECT_EQ(own.model.pose.in_channels, 1);
  // Read back, nothing changes.
  EXPECT_EQ(DumpConfig(LoadConfigText(DumpConfig(own), "").config), DumpConfig(own));
}

TEST(DataJoints, MustFitTheNetwork) {
  const std::string text = "[data]\njoints = 'ntu25'\n[model.pose]\nin_channels = 17";
  const Error error = ErrorOf([&] { LoadConfigText(text, "c.toml"); });
  EXPECT_CONTAINS(std::string(error.what()), "25 heatmap channels");
  EXPECT_CONTAINS(std::string(error.what()), "c.toml:2: data.joints");
  EXPECT_NO_THROW(LoadConfigText(text + "\n[model]\ntype = 'rgb'", "c.toml"));
  EXPECT_CONTAINS(std::string(ErrorOf([&] { LoadConfigText("", "", {"data.joints=ntu"}); }).what()),
                  "coco17, jhmdb15, msraction20, ntu25");
}

class DataJointsFile : public ConfigFiles {};

TEST_F(DataJointsFile, OfOnesOwn) {
  const std::string joints = Write("my.toml", kThree);
  const std::string main = Write("main.toml", "[data]\njoints = '" + joints + "'\n");
  const LoadedConfig loaded = LoadConfig(main);
  EXPECT_EQ(loaded.config.model.pose.in_channels, 3);
  EXPECT_EQ(loaded.config.data.left_joints, Numbers{1});
  EXPECT_EQ(loaded.provenance.at("data.limbs"), "joints \"" + joints + "\"");
  // A checkpoint's configuration needs the file no longer ...
  std::filesystem::remove(joints);
  const std::string whole = DumpConfig(loaded);
  EXPECT_EQ(DumpConfig(LoadConfigText(whole, "checkpoint").config), DumpConfig(loaded.config));
  // ... a configuration that is read anew does.
  EXPECT_CONTAINS(std::string(ErrorOf([&] { LoadConfig(main); }).what()), "my.toml");
}

// A set's own file follows a configuration that was made for other joints, and wins.
TEST_F(DataJointsFile, LaterLayersReplaceEarlierJoints) {
  const std::string set = Write("set.toml", "[data]\njoints = 'ntu25'\n");
  const std::string main =
      Write("main.toml", "include = ['" + std::string(KINEFIT_SOURCE) +
                             "/configs/rgbpose_attention_ntu60.toml', 'set.toml']\n");
  const Config config = LoadConfig(main).config;
  EXPECT_EQ(config.model.pose.in_channels, 25);
  EXPECT_EQ(config.data.left_joints, LoadJointLayout("ntu25").left);
  EXPECT_EQ(config.data.limbs, LoadJointLayout("ntu25").limbs);
  // What the same layer or a later one says counts.
  EXPECT_EQ(LoadConfig(main, {"data.joints=openpose18", "data.limbs=[[0, 1]]"}).config.data.limbs,
            (std::vector<Numbers>{{0, 1}}));
  EXPECT_CONTAINS(
      std::string(ErrorOf([&] { LoadConfig(main, {"model.pose.in_channels=17"}); }).what()),
      "25 heatmap channels");
}

}  // namespace
}  // namespace kinefit
