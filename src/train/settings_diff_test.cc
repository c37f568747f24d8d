#include "train/settings_diff.h"

#include <gtest/gtest.h>

#include "config/options.h"

namespace kinefit {
namespace {

TEST(SettingsThatDiffer, WhatAnOlderVersionDidNotKnowWasTheDefault) {
  Config config;
  std::string before = DumpConfig(config);
  const size_t line = before.find("draw_on");
  ASSERT_NE(line, std::string::npos);
  before.erase(line, before.find('\n', line) + 1 - line);
  EXPECT_TRUE(SettingsThatDiffer(before, DumpConfig(config)).empty());
  config.data.heatmap.draw_on = "device";
  EXPECT_EQ(SettingsThatDiffer(before, DumpConfig(config)),
            std::vector<std::string>{"data.heatmap.draw_on: \"host\" -> \"device\""});
}

TEST(SettingsThatDiffer, NamesWhatChangesTraining) {
  Config config;
  const std::string before = DumpConfig(config);
  config.train.batch_size = 8;
  config.train.work_dir = "elsewhere";
  EXPECT_EQ(SettingsThatDiffer(before, DumpConfig(config)),
            std::vector<std::string>{"train.batch_size: 16 -> 8"});
}

}  // namespace
}  // namespace kinefit
