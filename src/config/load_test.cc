#include "config/load.h"

#include <gtest/gtest.h>

#include "config/testing.h"

namespace kinefit {
namespace {

Config FromText(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return LoadConfigText(text, "test.toml", overrides).config;
}

Error TextError(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return ErrorOf([&] { FromText(text, overrides); });
}

TEST(LoadConfigText, NothingGivesTheDefaults) {
  EXPECT_EQ(DumpConfig(FromText("")), DumpConfig(Config()));
}

TEST(LoadConfigText, ReadsEveryType) {
  const Config config = FromText(R"(
seed = 7
[model]
type = "rgbpose_attention"
rgb.conv1_kernel = [3, 7, 7]
attention.points = ["final"]
[model.head]
dropout = 0
[data]
left_joints = [1, 3]
limbs = [[0, 1], [1, 2]]
mean = [1, 2.5, 3]
compact = false
[train.optimizer]
lr = 1e-3
[[train.schedule]]
type = "linear"
end = 5
[[train.schedule]]
type = "cosine"
begin = 5
)");
  EXPECT_EQ(config.seed, 7);
  EXPECT_EQ(config.model.type, "rgbpose_attention");
  EXPECT_EQ(config.model.rgb.conv1_kernel, (std::array<int64_t, 3>{3, 7, 7}));
  EXPECT_EQ(config.model.pose.conv1_kernel, (std::array<int64_t, 3>{1, 7, 7}));
  EXPECT_EQ(config.model.attention.points, std::vector<std::string>{"final"});
  EXPECT_EQ(config.model.head.dropout, 0.0);
  EXPECT_EQ(config.data.left_joints, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(config.data.limbs, (std::vector<std::vector<int64_t>>{{0, 1}, {1, 2}}));
  EXPECT_EQ(config.data.mean, (std::array<double, 3>{1, 2.5, 3}));
  EXPECT_FALSE(config.data.compact);
  EXPECT_EQ(config.train.optimizer.lr, 1e-3);
  ASSERT_EQ(config.train.schedule.size(), 2U);
  EXPECT_EQ(config.train.schedule[0].type, "linear");
  EXPECT_EQ(config.train.schedule[0].end, 5);
  EXPECT_EQ(config.train.schedule[1].type, "cosine");
  EXPECT_EQ(config.train.schedule[1].begin, 5);
  EXPECT_EQ(config.train.schedule[1].end, -1);
}

TEST(LoadConfigText, UnknownKeyNamesLineAndNearestKey) {
  const Error error = TextError("[train]\nepochs = 3\nbatch_sise = 4\n");
  EXPECT_CONTAINS(error.problem(), "unknown key train.batch_sise");
  EXPECT_EQ(error.where(), "test.toml:3");
  EXPECT_CONTAINS(error.remedy(), "did you mean train.batch_size?");
}

TEST(LoadConfigText, UnknownKeyInTheWrongSectionIsFoundByItsName) {
  EXPECT_CONTAINS(TextError("[train]\nlr = 0.1").remedy(), "did you mean train.optimizer.lr?");
  EXPECT_CONTAINS(TextError("dropout = 0.1").remedy(), "did you mean model.head.dropout?");
  EXPECT_CONTAINS(TextError("[model.rgb]\nbase_channel = 8").remedy(),
                  "did you mean model.rgb.base_channels?");
}

TEST(LoadConfigText, UnknownKeyLikeNothingPointsToTheList) {
  const Error error = TextError("[train]\nzzzzqqqq = 4\n");
  EXPECT_FALSE(Contains(error.remedy(), "did you mean"));
  EXPECT_CONTAINS(error.remedy(), "kinefit config keys");
}

TEST(LoadConfigText, MistypedSectionIsReportedAsSuch) {
  const Error error = TextError("seed = 1\n\n[trian]\nepochs = 3\n");
  EXPECT_EQ(error.problem(), "unknown section trian");
  EXPECT_EQ(error.where(), "test.toml:3");
  EXPECT_CONTAINS(error.remedy(), "did you mean train?");
  EXPECT_CONTAINS(TextError("[optimizer]\nlr = 1").remedy(), "did you mean train.optimizer?");
  EXPECT_CONTAINS(TextError("[data.heatmaps]\nsigma = 1").remedy(), "did you mean data.heatmap?");
  EXPECT_CONTAINS(TextError("[[train.schedules]]\ntype = 'linear'").problem(),
                  "unknown key train.schedules");
}

TEST(LoadConfigText, UnknownKeyInAScheduleNamesTheEntry) {
  const Error error =
      TextError("[[train.schedule]]\ntype = 'linear'\n[[train.schedule]]\ngama = 0.1\n");
  EXPECT_EQ(error.problem(), "unknown key train.schedule.1.gama");
  EXPECT_EQ(error.where(), "test.toml:4");
  EXPECT_CONTAINS(error.remedy(), "did you mean train.schedule.1.gamma?");
}

TEST(LoadConfigText, WrongTypeNamesBothTypes) {
  const Error text = TextError("[train]\nepochs = \"ten\"\n");
  EXPECT_EQ(text.problem(), "train.epochs must be an integer, not a string (\"ten\")");
  EXPECT_EQ(text.where(), "test.toml:2");
  EXPECT_CONTAINS(TextError("[train]\nepochs = 2.0").problem(), "an integer, not a number (2.0)");
  EXPECT_CONTAINS(TextError("[train]\nema = 1").problem(), "true or false, not an integer (1)");
  EXPECT_CONTAINS(TextError("[train.optimizer]\nlr = true").problem(), "a number, not a boolean");
  EXPECT_CONTAINS(TextError("[data]\nvideos = 3").problem(), "a string, not an integer");
  EXPECT_CONTAINS(TextError("[data]\nvideos = 2020-01-01").problem(), "not a date");
  EXPECT_CONTAINS(TextError("[data]\nleft_joints = 3").problem(), "a list in square brackets");
  EXPECT_CONTAINS(TextError("[data]\nleft_joints = [1, 'a']").problem(), "data.left_joints[1]");
  EXPECT_CONTAINS(TextError("[data]\nlimbs = [[1, 2], 3]").problem(), "data.limbs[1]");
  EXPECT_CONTAINS(TextError("[data]\nmean = [1, 2]").problem(), "must have 3 entries, not 2");
  EXPECT_CONTAINS(TextError("model = 'rgbpose_attention'").problem(), "model is a section");
  EXPECT_CONTAINS(TextError("[train.epochs]\na = 1").problem(), "not a table");
  EXPECT_CONTAINS(TextError("[train.schedule]\ntype = 'linear'").problem(), "list of tables");
  EXPECT_CONTAINS(TextError("[train.schedule]\ntype = 'linear'").remedy(), "[[train.schedule]]");
  EXPECT_CONTAINS(TextError("[train]\nschedule = 'cosine'").problem(), "list of tables");
}

TEST(LoadConfigText, OutOfRangeNamesTheRange) {
  const Error error = TextError("[model.head]\n\ndropout = 1.5\n");
  EXPECT_EQ(error.problem(), "model.head.dropout = 1.5 is out of range");
  EXPECT_EQ(error.where(), "test.toml:3");
  EXPECT_EQ(error.remedy(), "allowed: 0 to 0.99");
  EXPECT_CONTAINS(TextError("[train.optimizer]\nlr = 0").remedy(), "> 0 to 1000");
  EXPECT_CONTAINS(TextError("[train.optimizer]\nlr = nan").problem(), "out of range");
  EXPECT_CONTAINS(TextError("[train.optimizer]\nlr = inf").problem(), "out of range");
  EXPECT_CONTAINS(TextError("[train]\nepochs = 9223372036854775807").problem(), "out of range");
  EXPECT_CONTAINS(TextError("[data]\nleft_joints = [1, -1]").problem(), "data.left_joints[1] = -1");
  const Error choice = TextError("[model]\ntype = 'pcn'");
  EXPECT_EQ(choice.problem(), "model.type cannot be \"pcn\"");
  EXPECT_EQ(choice.remedy(),
            "allowed: \"rgbpose\", \"pcan\", \"rgbpose_attention\", \"rgb\" or \"pose\"");
}

TEST(LoadConfigText, WhatIsNotTomlNamesTheLine) {
  const Error error = TextError("seed = 1\nthreads = = 2\n");
  EXPECT_CONTAINS(error.problem(), "not valid TOML");
  EXPECT_EQ(error.where(), "test.toml:2");
  EXPECT_CONTAINS(TextError("seed = 1\nseed = 2\n").problem(), "not valid TOML");
  EXPECT_CONTAINS(TextError(std::string("\x80\x04\x95garbage\0", 12)).problem(), "not valid TOML");
  EXPECT_CONTAINS(TextError("seed = 99999999999999999999").problem(), "not valid TOML");
}

// Text comes out of checkpoints, which strangers make.
TEST(LoadConfigText, HostileTextIsAnErrorAndNothingWorse) {
  std::string dots = "a";
  for (int i = 0; i < 200000; ++i) dots += ".a";
  EXPECT_CONTAINS(TextError(dots + " = 1").problem(), "4000 dots");
  EXPECT_CONTAINS(TextError("a = " + std::string(100000, '[')).problem(), "not valid TOML");
  EXPECT_CONTAINS(TextError(std::string(3 << 20, '#')).problem(), "bytes");
  // As deep as the limits allow, parsed, converted and freed again.
  std::string open = "x = [\n", close;
  for (int i = 0; i < 127; ++i) {
    open += "{a";
    for (int j = 0; j < 31; ++j) open += ".a";
    open += " = [\n";
    close += "]}\n";
  }
  EXPECT_CONTAINS(TextError(open + close + "]").problem(), "more than 16 deep");
  std::string nested = "1";
  for (int i = 0; i < 5; ++i) nested = "[" + nested + "]";
  EXPECT_CONTAINS(TextError("x = " + nested).problem(), "unknown key x");
  std::string entries;
  for (int i = 0; i < 65; ++i) entries += "[[train.schedule]]\ntype = 'linear'\n";
  EXPECT_CONTAINS(TextError(entries).problem(), "more than 64");
  EXPECT_CONTAINS(TextError("include = '/etc/passwd'").problem(), "cannot include");
  EXPECT_CONTAINS(TextError("[data]\nvideos = \"a\\u0000b\"").problem(), "NUL");
}

TEST(Overrides, AreTomlWithQuotesOptionalForText) {
  const Config config =
      FromText("[train]\nepochs = 3\n",
               {"train.epochs=5", "model.type=rgbpose_attention", "train.work_dir=out/run 1",
                "data.left_joints=[1, 2]", " train.optimizer.lr = 1e-4", "train.resume=\"never\"",
                "data.video_suffix=.avi", "train.init=1", "data.classes=a=b#c", "data.val_split="});
  EXPECT_EQ(config.train.epochs, 5);
  EXPECT_EQ(config.model.type, "rgbpose_attention");
  EXPECT_EQ(config.train.work_dir, "out/run 1");
  EXPECT_EQ(config.data.left_joints, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(config.train.optimizer.lr, 1e-4);
  EXPECT_EQ(config.train.resume, "never");
  EXPECT_EQ(config.data.video_suffix, ".avi");
  EXPECT_EQ(config.train.init, "1");
  EXPECT_EQ(config.data.classes, "a=b#c");
  EXPECT_EQ(config.data.val_split, "");
}

TEST(Overrides, ReachIntoListsOfTables) {
  const std::string text = "[[train.schedule]]\ntype = 'linear'\n[[train.schedule]]\nbegin = 5\n";
  const LoadedConfig loaded = LoadConfigText(
      text, "test.toml", {"train.schedule.1.type=constant", "train.schedule.1.factor=0.5"});
  const Config& config = loaded.config;
  ASSERT_EQ(config.train.schedule.size(), 2U);
  EXPECT_EQ(config.train.schedule[0].type, "linear");
  EXPECT_EQ(config.train.schedule[1].type, "constant");
  EXPECT_EQ(config.train.schedule[1].begin, 5);
  EXPECT_EQ(config.train.schedule[1].factor, 0.5);
  EXPECT_EQ(loaded.provenance.at("train.schedule.1.begin"), "test.toml:4");
  EXPECT_EQ(loaded.provenance.at("train.schedule.1.factor"), "--set");

  const Config replaced = FromText(text, {"train.schedule=[{type = 'cosine', t_max = 9}]"});
  ASSERT_EQ(replaced.train.schedule.size(), 1U);
  EXPECT_EQ(replaced.train.schedule[0].t_max, 9);
  EXPECT_TRUE(FromText(text, {"train.schedule=[]"}).train.schedule.empty());

  const Error error = TextError(text, {"train.schedule.2.type=linear"});
  EXPECT_CONTAINS(error.problem(), "train.schedule has 2 entries, there is no number 2");
}

TEST(Overrides, BadOnesNameThemselves) {
  const Error unknown = TextError("", {"train.epoch=3"});
  EXPECT_EQ(unknown.problem(), "unknown key train.epoch");
  EXPECT_EQ(unknown.where(), "--set train.epoch=3");
  EXPECT_CONTAINS(unknown.remedy(), "did you mean train.epochs?");
  EXPECT_CONTAINS(TextError("", {"train.epochs"}).problem(), "not of the form key=value");
  EXPECT_CONTAINS(TextError("", {"=3"}).problem(), "not of the form key=value");
  EXPECT_CONTAINS(TextError("", {"a b=3"}).problem(), "not of the form key=value");
  EXPECT_CONTAINS(TextError("", {"train.epochs="}).problem(), "no value for train.epochs");
  EXPECT_CONTAINS(TextError("", {"train.epochs=many"}).problem(), "not a string (\"many\")");
  EXPECT_CONTAINS(TextError("", {"train.epochs=0"}).remedy(), "1 to 1000000");
  EXPECT_CONTAINS(TextError("", {"train.epochs=3\nseed = 4"}).problem(), "more than one value");
  EXPECT_CONTAINS(TextError("", {"data.left_joints=[1,"}).problem(), "not valid TOML");
  EXPECT_CONTAINS(TextError("", {"data.videos=\xff\xfe"}).problem(), "not valid TOML");
  EXPECT_CONTAINS(TextError("", {"model=rgbpose_attention"}).problem(), "model is a section");
  EXPECT_CONTAINS(TextError("", {"train..epochs=3"}).problem(), "unknown");
  EXPECT_CONTAINS(TextError("", {"include=a.toml"}).problem(), "unknown key include");
}

using LoadConfigFile = ConfigFiles;

TEST_F(LoadConfigFile, LaterFilesWinAndEachValueKnowsItsSource) {
  Write("base/one.toml", "seed = 1\nthreads = 1\n[train]\nepochs = 1\nbatch_size = 1\n");
  Write("base/two.toml", "threads = 2\n[train]\nepochs = 2\n");
  const std::string main =
      Write("main.toml", "include = ['base/one.toml', 'base/two.toml']\n[train]\nepochs = 3\n");
  const LoadedConfig loaded = LoadConfig(main, {"device=cuda"});
  EXPECT_EQ(loaded.config.seed, 1);
  EXPECT_EQ(loaded.config.threads, 2);
  EXPECT_EQ(loaded.config.train.epochs, 3);
  EXPECT_EQ(loaded.config.train.batch_size, 1);
  EXPECT_EQ(loaded.provenance.at("seed"), Path("base/one.toml:1"));
  EXPECT_EQ(loaded.provenance.at("threads"), Path("base/two.toml:1"));
  EXPECT_EQ(loaded.provenance.at("train.epochs"), main + ":3");
  EXPECT_EQ(loaded.provenance.at("device"), "--set");
  EXPECT_EQ(loaded.provenance.count("train.ema"), 0U);

  const std::string dump = DumpConfig(loaded);
  EXPECT_CONTAINS(dump, "# " + Path("base/two.toml:1"));
  EXPECT_CONTAINS(dump, "# --set\n");
  EXPECT_CONTAINS(dump, "# default\n");
  EXPECT_EQ(DumpConfig(LoadConfigText(dump, "dump").config), DumpConfig(loaded.config));
}

TEST_F(LoadConfigFile, AListReplacesTheIncludedOne) {
  Write("base.toml", "[[train.schedule]]\ntype = 'linear'\n[[train.schedule]]\neta_min = 0.5\n");
  const std::string main =
      Write("main.toml", "include = 'base.toml'\n[[train.schedule]]\ntype = 'constant'\n");
  const LoadedConfig loaded = LoadConfig(main);
  ASSERT_EQ(loaded.config.train.schedule.size(), 1U);
  EXPECT_EQ(loaded.config.train.schedule[0].type, "constant");
  EXPECT_EQ(loaded.provenance.count("train.schedule.1.eta_min"), 0U);
}

TEST_F(LoadConfigFile, ErrorsOfIncludedFilesNameThemEvenIfOverridden) {
  Write("base.toml", "[train]\n\nepochs = 0\n");
  const std::string main = Write("main.toml", "include = 'base.toml'\n[train]\nepochs = 3\n");
  const Error error = ErrorOf([&] { LoadConfig(main); });
  EXPECT_EQ(error.where(), Path("base.toml:3"));
  EXPECT_CONTAINS(error.problem(), "train.epochs = 0 is out of range");
}

TEST_F(LoadConfigFile, BadIncludes) {
  const std::string missing = Write("missing.toml", "seed = 1\ninclude = 'none.toml'\n");
  const Error error = ErrorOf([&] { LoadConfig(missing); });
  EXPECT_CONTAINS(error.problem(), Path("none.toml") + " does not exist");
  EXPECT_EQ(error.where(), missing + ":2");

  const std::string type = Write("type.toml", "include = 3\n");
  EXPECT_CONTAINS(ErrorOf([&] { LoadConfig(type); }).problem(), "include must be");
  const std::string entry = Write("entry.toml", "include = ['type.toml', 3]\n");
  EXPECT_CONTAINS(ErrorOf([&] { LoadConfig(entry); }).problem(), "include[1] must be a string");
  const std::string folder = Write("folder.toml", "include = '.'\n");
  EXPECT_CONTAINS(ErrorOf([&] { LoadConfig(folder); }).problem(), "folder, not a file");
}

TEST_F(LoadConfigFile, CirclesAndBottomlessChainsAreFound) {
  const std::string a = Write("a.toml", "include = 'sub/b.toml'\n");
  Write("sub/b.toml", "include = '../a.toml'\n");
  const Error error = ErrorOf([&] { LoadConfig(a); });
  EXPECT_CONTAINS(error.problem(), "goes in a circle");
  EXPECT_EQ(error.where(), Path("sub/b.toml:1"));

  const std::string self = Write("self.toml", "include = 'self.toml'\n");
  EXPECT_CONTAINS(ErrorOf([&] { LoadConfig(self); }).problem(), "goes in a circle");

  for (int i = 0; i < 20; ++i) {
    Write("chain" + std::to_string(i) + ".toml",
          "include = 'chain" + std::to_string(i + 1) + ".toml'\n");
  }
  EXPECT_CONTAINS(ErrorOf([&] { LoadConfig(Path("chain0.toml")); }).problem(), "too many");

  Write("leaf.toml", "seed = 3\n");  // one file along two paths is no circle
  Write("left.toml", "include = 'leaf.toml'\n");
  Write("right.toml", "include = 'leaf.toml'\n");
  const std::string diamond = Write("diamond.toml", "include = ['left.toml', 'right.toml']\n");
  EXPECT_EQ(LoadConfig(diamond).config.seed, 3);
}

TEST_F(LoadConfigFile, MissingFileOrFolderNamesIt) {
  const Error missing = ErrorOf([&] { LoadConfig(Path("absent.toml")); });
  EXPECT_CONTAINS(missing.problem(), "no such configuration file");
  EXPECT_EQ(missing.where(), Path("absent.toml"));
  EXPECT_CONTAINS(ErrorOf([&] { LoadConfig(folder_); }).problem(), "folder, not a file");
}

}  // namespace
}  // namespace kinefit
