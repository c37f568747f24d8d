#include "distributed/heartbeat.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "files/error.h"

namespace kinefit {
namespace {

std::string FreshPath(const std::string& name) {
  return (std::filesystem::temp_directory_path() / (name + std::to_string(getpid()))).string();
}

TEST(Heartbeat, TheWatcherSeesWhatTheRankSays) {
  const std::string path = FreshPath("kinefit-beat-");
  const HeartbeatFile file(path);
  EXPECT_FALSE(file.Read().beats);
  EXPECT_EQ(file.Read().step, -1);
  Heartbeat beat(path);
  EXPECT_FALSE(file.Read().beats);
  beat.Beat(41, RankPhase::kComputing);
  EXPECT_EQ(beat.Enter(RankPhase::kWaiting), RankPhase::kComputing);
  EXPECT_TRUE(file.Read().beats);
  EXPECT_EQ(file.Read().step, 41);
  EXPECT_EQ(file.Read().phase, RankPhase::kWaiting);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  const double before = file.Read().age;
  EXPECT_GE(before, 0.03);
  beat.Beat(42, RankPhase::kComputing);
  EXPECT_LT(file.Read().age, before);
}

// Of a process that is killed the last beat stays readable, and it is whole.
TEST(Heartbeat, ItSurvivesTheRank) {
  const std::string path = FreshPath("kinefit-killed-");
  const HeartbeatFile file(path);
  const pid_t child = fork();
  if (child == 0) {
    Heartbeat beat(path);
    for (int64_t step = 0;; ++step) beat.Beat(step, static_cast<RankPhase>(step % 7));
  }
  while (file.Read().step < 1000) std::this_thread::yield();
  int torn = 0;
  for (int i = 0; i < 10000; ++i) {
    const RankStatus status = file.Read();
    torn += static_cast<int64_t>(status.phase) != status.step % 7;
  }
  EXPECT_EQ(torn, 0);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_GE(file.Read().step, 1000);
}

TEST(Heartbeat, WithoutAWatcherItDoesNothing) {
  Heartbeat nowhere("");
  nowhere.Beat(1, RankPhase::kSaving);
  Heartbeat missing("/nonexistent/rank_0");
  missing.Beat(1, RankPhase::kSaving);
  const std::string path = FreshPath("kinefit-foreign-");
  ASSERT_EQ(std::system(("head -c 48 /dev/zero > " + path).c_str()), 0);
  Heartbeat foreign(path);
  foreign.Beat(1, RankPhase::kSaving);  // not one of ours: left alone
  EXPECT_EQ(std::system(("cmp -s -n 48 /dev/zero " + path).c_str()), 0);
  std::filesystem::remove(path);
  EXPECT_THROW(HeartbeatFile("/nonexistent/rank_0"), Error);
}

}  // namespace
}  // namespace kinefit
