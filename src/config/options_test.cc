#include "config/options.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>
#include <sstream>

#include "config/load.h"
#include "config/nearest_key.h"
#include "config/testing.h"
#include "config/toml_tree.h"

namespace kinefit {
namespace {

// "section.key = value" for each line of a dump; entries of lists are numbered.
std::set<std::string> DottedLines(const std::string& dump) {
  std::set<std::string> lines;
  std::istringstream stream(dump);
  std::string section;
  int entry = 0;
  for (std::string line; std::getline(stream, line);) {
    if (line.compare(0, 2, "[[") == 0) {
      section = line.substr(2, line.size() - 4) + "." + std::to_string(entry++) + ".";
    } else if (line[0] == '[') {
      section = line.substr(1, line.size() - 2) + ".";
    } else if (!line.empty()) {
      lines.insert(section + line);
    }
  }
  return lines;
}

std::string RoundTrip(const Config& config) {
  return DumpConfig(LoadConfigText(DumpConfig(config), "dump").config);
}

TEST(DumpConfig, ReadsBackTheSame) {
  Config config;
  EXPECT_EQ(RoundTrip(config), DumpConfig(config));
  config.data.videos = "a \"b\" \\ c\n\t\x01\x7f d\xc3\xa9";
  config.data.limbs = {{0, 1}, {}};
  config.model.attention.points = {};
  config.train.optimizer.lr = 0.1 + 0.2;
  config.train.optimizer.eps = 5e-324;
  config.train.optimizer.clip_norm = 1e9;
  config.train.schedule.resize(3);
  config.train.schedule[1].type = "multistep";
  config.train.schedule[1].milestones = {12, 16};
  const Config read = LoadConfigText(DumpConfig(config), "dump").config;
  EXPECT_EQ(DumpConfig(read), DumpConfig(config));
  EXPECT_EQ(read.data.videos, config.data.videos);
  EXPECT_EQ(read.data.limbs, config.data.limbs);
  EXPECT_EQ(read.train.optimizer.lr, config.train.optimizer.lr);
  EXPECT_EQ(read.train.optimizer.eps, config.train.optimizer.eps);
  EXPECT_EQ(read.train.schedule[1].milestones, config.train.schedule[1].milestones);
}

// Every key is set to something other than its default, one at a time, and must come back: this
// finds an option bound to the wrong member or missing from the dump.
TEST(DumpConfig, EveryOptionIsWrittenAndReadUnderItsOwnKey) {
  const std::string defaults = DumpConfig(Config());
  for (const OptionInfo& info : ListOptions()) {
    // These change other keys, too: joint_layout_test.cc, hierarchy_test.cc.
    if (info.key == "data.joints" || info.key == "data.hierarchy") continue;
    std::string value;
    if (info.type == "boolean") {
      value = info.initial == "true" ? "false" : "true";
    } else if (info.type == "integer") {
      value = info.initial == "1" ? "2" : info.initial == "8" ? "9" : "8";
    } else if (info.type == "number") {
      value = info.initial == "0.5" ? "0.25" : "0.5";
    } else if (info.type == "string" && info.allowed.empty()) {
      value = "\"other\"";
    } else if (info.type == "string") {
      const size_t last = info.allowed.rfind(" or ") + 4;
      const std::string first = info.allowed.substr(0, info.allowed.find('"', 1) + 1);
      value = first == info.initial ? info.allowed.substr(last) : first;
    } else if (info.type == "list of string") {
      value = "[\"final\"]";
    } else if (info.type == "list of list of integer") {
      value = "[[1, 2]]";
    } else if (info.type == "list of tables") {
      value = "[{}, {}, {}]";
    } else if (info.type == "3 x number") {
      value = "[1.0, 1.5, 1.0]";
    } else {  // lists of integers, some of a fixed length
      value = info.initial == "[1, 1, 1]" ? "[2, 1, 1]" : "[1, 1, 1]";
    }
    std::string key = info.key;
    std::vector<std::string> overrides;
    if (key.find("[]") != std::string::npos) {
      key.replace(key.find("[]"), 2, ".0");
      overrides.push_back(key.substr(0, key.find(".0")) + "=[{}]");
    }
    const std::string before = DumpConfig(LoadConfigText("", "", overrides).config);
    overrides.push_back(key + "=" + value);
    const Config changed = LoadConfigText("", "", overrides).config;
    const std::string after = DumpConfig(changed);
    EXPECT_NE(after, before) << key;
    if (info.type != "list of tables") {  // exactly this key's line is another
      std::set<std::string> lines = DottedLines(after);
      EXPECT_EQ(lines.erase(key + " = " + value), 1U) << key << " is not " << value;
      for (const std::string& line : DottedLines(before)) lines.erase(line);
      EXPECT_TRUE(lines.empty()) << key << " also changed " << *lines.begin();
    }
    EXPECT_EQ(RoundTrip(changed), after) << key;
  }
  EXPECT_EQ(DumpConfig(Config()), defaults);
}

TEST(DumpConfig, RealsAreShortestAndExact) {
  EXPECT_EQ(FormatReal(0.1), "0.1");
  EXPECT_EQ(FormatReal(1), "1.0");
  EXPECT_EQ(FormatReal(-0.0), "-0.0");
  EXPECT_EQ(FormatReal(0.0001), "0.0001");
  EXPECT_EQ(FormatReal(1e-8), "1e-08");
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> exponent(-300, 2);
  for (int i = 0; i < 300; ++i) {
    const double value = std::pow(10.0, exponent(random));
    const TomlNode node = ParseToml("x = " + FormatReal(value), "t").members[0].second;
    ASSERT_EQ(node.real, value) << FormatReal(value);
  }
}

TEST(DumpConfig, CommentsStayInTheirLine) {
  Provenance provenance{{"seed", "evil\nthreads = 7:1"}};
  const std::string dump = DumpConfig(Config(), &provenance);
  EXPECT_EQ(LoadConfigText(dump, "dump").config.threads, 0);
}

TEST(ListOptions, KeysAreUniqueAndExplained) {
  std::set<std::string> keys;
  for (const OptionInfo& info : ListOptions()) {
    EXPECT_TRUE(keys.insert(info.key).second) << info.key << " is bound twice";
    EXPECT_FALSE(info.help.empty()) << info.key;
    EXPECT_FALSE(info.type.empty()) << info.key;
  }
  EXPECT_EQ(keys.count("train.optimizer.lr"), 1U);
  EXPECT_EQ(keys.count("train.schedule[].gamma"), 1U);
  EXPECT_EQ(keys.count("data.heatmap.sigma"), 1U);
}

// The defaults must themselves be in range.
TEST(ListOptions, DefaultsAreInRange) { EXPECT_NO_THROW(RoundTrip(Config())); }

TEST(DescribeOptions, ShowsTypeRangeDefaultAndHelp) {
  const std::string text = DescribeOptions();
  const size_t at = text.find("train.optimizer.lr ");
  ASSERT_NE(at, std::string::npos);
  const std::string line = text.substr(at, text.find('\n', at) - at);
  EXPECT_CONTAINS(line, "number > 0 to 1000");
  EXPECT_CONTAINS(line, "0.0075");
  EXPECT_CONTAINS(line, "learning rate");
  EXPECT_CONTAINS(text, "string \"sgd\" or \"adamw\"");
  EXPECT_CONTAINS(text, "integer 8 to 4096 pixels");
}

TEST(DefaultPathways, AreMmaction2s) {
  const ModelConfig model;
  EXPECT_EQ(model.rgb.stage_blocks, (std::vector<int64_t>{3, 4, 6, 3}));
  EXPECT_EQ(model.rgb.inflate, (std::vector<int64_t>{0, 0, 1, 1}));
  EXPECT_EQ(model.rgb.spatial_strides, (std::vector<int64_t>{1, 2, 2, 2}));
  EXPECT_EQ(model.rgb.lateral_activate, (std::vector<int64_t>{0, 0, 1, 1}));
  EXPECT_EQ(model.rgb.conv1_stride_s, 2);
  EXPECT_EQ(model.pose.in_channels, 17);
  EXPECT_EQ(model.pose.base_channels, 32);
  EXPECT_EQ(model.pose.stage_blocks, (std::vector<int64_t>{4, 6, 3}));
  EXPECT_EQ(model.pose.spatial_strides, (std::vector<int64_t>{2, 2, 2}));
  EXPECT_EQ(model.pose.conv1_stride_s, 1);
  EXPECT_EQ(model.pose.pool1_stride_s, 1);
}

TEST(EditDistance, CountsTyposOnce) {
  EXPECT_EQ(EditDistance("train", "train"), 0U);
  EXPECT_EQ(EditDistance("trian", "train"), 1U);
  EXPECT_EQ(EditDistance("trai", "train"), 1U);
  EXPECT_EQ(EditDistance("batch-size", "Batch_Size"), 0U);
  EXPECT_EQ(EditDistance("", "abc"), 3U);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3U);
}

TEST(NearestKeys, ListsEquallyNearOnes) {
  const std::vector<std::string> known = {"model.type", "train.optimizer.type", "train.epochs"};
  EXPECT_EQ(NearestKeys("type", known),
            (std::vector<std::string>{"model.type", "train.optimizer.type"}));
  EXPECT_EQ(NearestKeys("train.eposch", known), std::vector<std::string>{"train.epochs"});
  EXPECT_TRUE(NearestKeys("x", known).empty());
}

}  // namespace
}  // namespace kinefit
