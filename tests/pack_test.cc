// `kinefit data pack` and training from what it writes, as real processes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>

#include "files/npy.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;

class Pack : public ::testing::Test {
 protected:
  void SetUp() override {
    config_ = scratch_ / "config.toml";
    WriteText(config_, SmallConfig("rgbpose"));
    store_ = scratch_ / "set.kfpack";
  }

  std::string Run(const std::vector<std::string>& arguments, int exit_code = 0) const {
    const Outcome outcome = Kinefit(arguments);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.output;
    return outcome.output;
  }
  std::string PackSet(const std::string& store, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"data", "pack", config_, "--out", store};
    all.insert(all.end(), more.begin(), more.end());
    return Run(all);
  }
  // From here on the set is the store: there are no videos.
  std::vector<std::string> FromStore(std::vector<std::string> command) const {
    for (const std::string& setting : {"data.annotations=" + store_, std::string("data.videos=")}) {
      command.insert(command.end(), {"--set", setting});
    }
    return command;
  }
  static void ExpectHas(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in:\n" << text;
  }

  ScratchFolder scratch_;
  std::string config_;
  std::string store_;
};

TEST_F(Pack, TrainsAndTestsWithoutVideos) {
  const std::string output = PackSet(store_, {"--quality", "95"});
  ExpectHas(output, "30 clips");
  ExpectHas(output, "per clip");
  ExpectHas(output, "test (10) ");
  ExpectHas(Run({"data", "pack", "--verify", store_}), "every checksum is right");

  Run(FromStore({"train", config_, "--work-dir", scratch_ / "run"}));
  const std::vector<std::string> test = {
      "test", config_, scratch_ / "run/last.pth", "--clips", "2", "--set", "threads=1"};
  std::vector<std::string> videos = test;
  videos.insert(videos.end(), {"--out", scratch_ / "videos"});
  Run(videos);
  std::vector<std::string> packed = FromStore(test);
  packed.insert(packed.end(), {"--out", scratch_ / "packed"});
  Run(packed);
  const NpzArrays a = ReadNpz(scratch_ / "videos/scores.npz");
  const NpzArrays b = ReadNpz(scratch_ / "packed/scores.npz");
  EXPECT_EQ(a.at("ids").bytes, b.at("ids").bytes);
  EXPECT_EQ(a.at("labels").bytes, b.at("labels").bytes);
  const std::vector<double> one = a.at("scores_fused").ToDoubles();
  const std::vector<double> two = b.at("scores_fused").ToDoubles();
  ASSERT_EQ(one.size(), 100U);
  ASSERT_EQ(two.size(), 100U);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], two[i], 0.02) << i;
}

// Joints are untouched: a pose network computes the same bits.
TEST_F(Pack, PoseNetworksComputeTheSameBits) {
  WriteText(config_, SmallConfig("pose"));
  PackSet(store_, {"--poses-only"});
  const std::vector<std::string> train = {"train", config_, "--set", "threads=1", "--work-dir"};
  std::vector<std::string> videos = train;
  videos.push_back(scratch_ / "videos");
  Run(videos);
  std::vector<std::string> packed = train;
  packed.push_back(scratch_ / "packed");
  Run(FromStore(packed));
  EXPECT_TRUE(SameTensors(scratch_ / "videos/last.pth", scratch_ / "packed/last.pth"));
}

TEST_F(Pack, KilledAnywhereItGoesOnToTheSameBytes) {
  const std::vector<std::string> small = {"--short-side", "64", "--threads"};
  const auto with = [&](const std::string& threads) {
    std::vector<std::string> all = small;
    all.push_back(threads);
    return all;
  };
  PackSet(scratch_ / "whole.kfpack", with("3"));
  const std::string whole = ReadText(scratch_ / "whole.kfpack");
  const std::string partial = store_ + ".partial";
  int kills = 0;
  size_t least = 0;
  for (int i = 0; i < 4; ++i) {
    Process process({KinefitBinary(), "data", "pack", config_, "--out", store_, "--short-side",
                     "64", "--threads", "1"},
                    scratch_ / "output");
    // Once it has written something new, anywhere within that.
    while (!process.WaitFor(std::chrono::milliseconds(2)) &&
           !(fs::exists(partial) && fs::file_size(partial) > least)) {
    }
    process.Signal(SIGKILL);
    if (process.Wait().exit_code != 128 + SIGKILL) break;
    ++kills;
    least = fs::file_size(partial) + whole.size() / 10;
    EXPECT_FALSE(fs::exists(store_));
  }
  EXPECT_GE(kills, 2);
  const std::string output = PackSet(store_, with("2"));
  ExpectHas(output, "went on from");
  EXPECT_TRUE(ReadText(store_) == whole);
  EXPECT_FALSE(fs::exists(partial));
  ExpectHas(PackSet(store_, with("1")), "already packed");
}

TEST_F(Pack, PacksFoldersAndPickles) {
  Run({"data", "pack", SmallSet(), "--out", store_, "--short-side", "32"});
  Run({"data", "pack", SmallSet() + "/annotations.pkl", "--out", scratch_ / "b.kfpack",
       "--short-side", "32"});
  EXPECT_TRUE(ReadText(store_) == ReadText(scratch_ / "b.kfpack"));
  const std::string train =
      Run(FromStore({"train", config_, "--work-dir", scratch_ / "run", "--set", "train.epochs=1"}));
  ExpectHas(train, "finished");
}

TEST_F(Pack, SaysWhatIsWrong) {
  ExpectHas(Run({"data", "pack", config_}, 2), "--out");
  ExpectHas(Run({"data", "pack", config_, "--out", scratch_ / "set.pack"}, 2), "set.kfpack");
  ExpectHas(Run({"data", "pack", scratch_ / "nowhere", "--out", store_}, 2), "nowhere");
  ExpectHas(Run({"data", "pack", config_, "--out", store_, "--quality", "0"}, 2), "--quality");
  ExpectHas(Run({"data", "pack", config_, "--out", store_, "--set", "data.videos=/nowhere"}, 2),
            "max_bad_share");
  EXPECT_FALSE(fs::exists(store_));

  PackSet(store_, {"--force", "--short-side", "32"});
  std::vector<std::string> train = FromStore({"train", config_, "--work-dir", scratch_ / "run"});
  std::vector<std::string> other = train;
  other.insert(other.end(), {"--set", "data.compact_padding=0.5"});
  ExpectHas(Run(other, 2), "data.compact_padding = 0.25");
  ExpectHas(Run({"data", "pack", store_, "--out", scratch_ / "b.kfpack"}, 2), "already");
  ExpectHas(PackSet(scratch_ / "c.kfpack", {"--short-side", "32"}), "c.kfpack");
  fs::resize_file(store_, fs::file_size(store_) / 2);
  ExpectHas(Run(train, 2), "cut off");
  ExpectHas(Run({"data", "pack", "--verify", store_}, 2), "cut off");
}

}  // namespace
}  // namespace kinefit::testing
