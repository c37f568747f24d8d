#include "report/json_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "files/error.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class JsonLogTest : public testing::Test {
 protected:
  JsonLogTest() {
    std::string pattern = (fs::temp_directory_path() / "kinefit-eval-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    path_ = (folder_ / "log.jsonl").string();
  }
  ~JsonLogTest() override { fs::remove_all(folder_); }

  void Put(const std::string& bytes) { std::ofstream(path_, std::ios::binary) << bytes; }

  // Every line parsed; fails the test on one that is not JSON.
  std::vector<json> Lines() const {
    std::ifstream file(path_);
    std::vector<json> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
    return lines;
  }

  std::string Text() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  fs::path folder_;
  std::string path_;
};

// The first or second step of the third epoch.
ProgressStep SampleStep(int64_t number) {
  ProgressStep step;
  step.epoch = 2;
  step.step_in_epoch = number - 1;
  step.steps_per_epoch = 2;
  step.iteration = 4 + number;
  step.total_iterations = 20;
  step.loss = 0.1 + static_cast<double>(number);
  step.losses = {{"rgb", 0.25}, {"pose", 0.5}};
  step.top1 = 0.75;
  step.lr = 0.008;
  step.samples = number == 1 ? 3 : 1;
  step.seconds = 2;
  step.wait_seconds = 0.5;
  step.memory_bytes = 1LL << 40;
  return step;
}

TEST_F(JsonLogTest, RoundTripsEveryEvent) {
  {
    JsonLog log(path_);
    log.Message("lr scaled from 0.01 to 0.008: \"batch\" 16\nand a second line");
    log.Step(SampleStep(1));
    log.Step(SampleStep(2));
    log.Validation(2, {{"top1/fused", 0.9666}}, true);
    log.BadClips(2, {{"S001C001", "truncated"}, {"\xff", "not UTF-8"}}, 400);
    log.Checkpoint("work/epoch_3.pth");
  }
  const std::vector<json> lines = Lines();
  ASSERT_EQ(lines.size(), 7U);
  EXPECT_EQ(lines[0]["event"], "message");
  EXPECT_EQ(lines[0]["text"], "lr scaled from 0.01 to 0.008: \"batch\" 16\nand a second line");
  EXPECT_EQ(lines[0]["time"].get<std::string>().size(), 20U);
  EXPECT_EQ(lines[1]["event"], "step");
  EXPECT_EQ(lines[1]["epoch"], 3);  // from 1, as on the screen
  EXPECT_EQ(lines[1]["loss"].get<double>(), 1.1);
  EXPECT_EQ(lines[1]["losses"]["pose"], 0.5);
  EXPECT_EQ(lines[1]["memory_bytes"], 1LL << 40);
  EXPECT_EQ(lines[3]["event"], "epoch");
  EXPECT_EQ(lines[3]["epoch"], 3);
  EXPECT_EQ(lines[3]["samples"], 4);
  EXPECT_NEAR(lines[3]["loss"].get<double>(), (3 * 1.1 + 2.1) / 4, 1e-12);
  EXPECT_EQ(lines[4]["metrics"]["top1/fused"].get<double>(), 0.9666);
  EXPECT_EQ(lines[4]["best"], true);
  EXPECT_EQ(lines[5]["clips"][0]["reason"], "truncated");
  EXPECT_EQ(lines[5]["samples"], 400);
  EXPECT_EQ(lines[6]["path"], "work/epoch_3.pth");
}

TEST_F(JsonLogTest, NumbersThatAreNotFiniteAreNull) {
  JsonLog log(path_);
  ProgressStep step = SampleStep(1);
  step.loss = std::nan("");
  step.skipped = true;
  log.Step(step);
  EXPECT_TRUE(Lines()[0]["loss"].is_null());
  EXPECT_EQ(Lines()[0]["skipped"], true);
}

TEST_F(JsonLogTest, EveryLineIsThereAtOnce) {
  JsonLog log(path_);
  log.Message("one");
  EXPECT_EQ(Lines().size(), 1U);
  log.Message("two");
  EXPECT_EQ(Lines().size(), 2U);
}

TEST_F(JsonLogTest, ReopeningAppends) {
  { JsonLog(path_).Message("first run"); }
  const std::string before = Text();
  { JsonLog(path_).Message("second run"); }
  EXPECT_EQ(Text().substr(0, before.size()), before);
  ASSERT_EQ(Lines().size(), 2U);
  EXPECT_EQ(Lines()[1]["text"], "second run");
}

TEST_F(JsonLogTest, TornLastLineIsRemovedAndSaid) {
  Put("{\"event\":\"step\",\"iteration\":1}\n{\"event\":\"step\",\"itera");
  JsonLog log(path_);
  log.Message("resumed");
  const std::vector<json> lines = Lines();
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0]["iteration"], 1);
  EXPECT_NE(lines[1]["text"].get<std::string>().find("22 bytes"), std::string::npos);
  EXPECT_EQ(lines[2]["text"], "resumed");
}

TEST_F(JsonLogTest, WholeLineWithoutItsEndIsKept) {
  Put("{\"event\":\"step\",\"iteration\":1}\n{\"event\":\"step\",\"iteration\":2}");
  JsonLog log(path_);
  log.Message("resumed");
  const std::vector<json> lines = Lines();
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[1]["iteration"], 2);
}

TEST_F(JsonLogTest, TornLineLongerThanABlockOrTheOnlyOne) {
  const std::string first = "{\"event\":\"message\"}\n";
  Put(first + "{\"event\":\"" + std::string(200000, 'x'));
  { const JsonLog log(path_); }
  EXPECT_EQ(Text().substr(0, first.size()), first);
  EXPECT_EQ(Lines().size(), 2U);
  Put(std::string(70000, '\0'));  // what a power cut can leave
  { const JsonLog log(path_); }
  EXPECT_EQ(Lines().size(), 1U);
}

TEST_F(JsonLogTest, UnwritableFolderNamesFileAndRemedy) {
  const std::string path = (folder_ / "missing" / "log.jsonl").string();
  try {
    const JsonLog log(path);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), path);
    EXPECT_FALSE(error.remedy().empty());
  }
}

TEST(JsonLogFullDisk, IsAnErrorThatNamesTheFile) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  JsonLog log("/dev/full");
  try {
    log.Message("x");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), "/dev/full");
  }
}

}  // namespace
}  // namespace kinefit
