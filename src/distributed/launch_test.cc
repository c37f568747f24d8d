#include "distributed/launch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "files/error.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string Read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// A launcher in a process of its own, with shell scripts as ranks.
class LaunchTest : public ::testing::Test {
 protected:
  LaunchTest() {
    std::string pattern = (fs::temp_directory_path() / "kinefit-launch-test-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    options_.log_folder = folder_ + "/logs";
    options_.timeout = 30;
    options_.grace = 0.5;
    options_.pause = 0.05;
    options_.ranks = 2;
  }
  ~LaunchTest() override {
    if (launcher_ > 0) {
      kill(launcher_, SIGKILL);
      waitpid(launcher_, nullptr, 0);
    }
    fs::remove_all(folder_);
  }

  // `script` runs in the scratch folder; $0 is that folder.
  void Start(
      const std::string& script, const std::function<void()>& before = [] {}) {
    options_.command = {"/bin/sh", "-c", "cd \"$0\"; " + script, folder_};
    launcher_ = fork();
    if (launcher_ != 0) return;
    const int out = open((folder_ + "/out").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    const int err = open((folder_ + "/err").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(out, 1);
    dup2(err, 2);
    before();
    int code = 99;
    try {
      code = Launch(options_);
    } catch (const std::exception& error) {
      const std::string what = error.what();
      (void)!write(2, what.data(), what.size());
    }
    _exit(code);
  }
  // The launcher's exit code; fails if it does not end in time.
  int Wait(milliseconds patience = seconds(25)) {
    const auto end = std::chrono::steady_clock::now() + patience;
    int status = 0;
    while (waitpid(launcher_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > end) {
        ADD_FAILURE() << "the launcher hangs\n" << Read(folder_ + "/err");
        return -1;
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
    launcher_ = -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  int Run(const std::string& script) {
    Start(script);
    return Wait();
  }
  bool Appears(const std::string& name, milliseconds patience = seconds(20)) const {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!fs::exists(folder_ + "/" + name) || fs::file_size(folder_ + "/" + name) == 0) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }
  pid_t PidIn(const std::string& name) const {
    return std::atoi(Read(folder_ + "/" + name).c_str());
  }
  // A process that is there and is not merely waiting to be collected.
  static bool Lives(pid_t pid) {
    const std::string stat = Read("/proc/" + std::to_string(pid) + "/stat");
    return !stat.empty() && stat.find(") Z") == std::string::npos;
  }
  static bool Dies(pid_t pid) {
    for (int i = 0; i < 2000 && Lives(pid); ++i) std::this_thread::sleep_for(milliseconds(5));
    return !Lives(pid);
  }
  std::string Out() const { return Read(folder_ + "/out"); }
  std::string Err() const { return Read(folder_ + "/err"); }
  std::string Log(int rank) const {
    return Read(options_.log_folder + "/rank_" + std::to_string(rank) + ".log");
  }
  int Messages() const {
    int count = 0;
    const std::string text = Err();
    for (size_t at = 0; (at = text.find("kinefit launch: ", at)) != std::string::npos; ++at)
      ++count;
    return count;
  }

  LaunchOptions options_;
  std::string folder_;
  pid_t launcher_ = -1;
};

TEST_F(LaunchTest, EveryRankKnowsWhereItStands) {
  options_.ranks = 3;
  EXPECT_EQ(Run("echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR "
                "$TORCHELASTIC_RESTART_COUNT; echo port $MASTER_PORT; echo error >&2; cat"),
            0);
  EXPECT_EQ(Messages(), 0) << Err();
  EXPECT_EQ(Out().rfind("0 3 0 3 127.0.0.1 0\nport ", 0), 0U) << Out();
  EXPECT_NE(Out().find("error\n"), std::string::npos);
  EXPECT_EQ(Out().find("1 3 1 3"), std::string::npos) << "only rank 0 is shown";
  for (int rank = 0; rank < 3; ++rank) {
    const std::string number = std::to_string(rank);
    EXPECT_NE(Log(rank).find("\n" + number + " 3 " + number + " 3 127.0.0.1 0\n"),
              std::string::npos)
        << Log(rank);
  }
  const std::string port = Log(0).substr(Log(0).find("port "));
  EXPECT_NE(Log(2).find(port.substr(0, port.find('\n'))), std::string::npos);
}

TEST_F(LaunchTest, CoresAreDividedUnlessTheUserSaysOtherwise) {
  unsetenv("OMP_NUM_THREADS");
  EXPECT_EQ(Run("echo threads=$OMP_NUM_THREADS"), 0);
  const unsigned each = std::max(1U, std::thread::hardware_concurrency() / 2);
  EXPECT_EQ(Out(), "threads=" + std::to_string(each) + "\n");
  setenv("OMP_NUM_THREADS", "7", 1);
  EXPECT_EQ(Run("echo threads=$OMP_NUM_THREADS"), 0);
  unsetenv("OMP_NUM_THREADS");
  EXPECT_NE(Out().find("threads=7\n"), std::string::npos);
}

TEST_F(LaunchTest, OneThatFailsBringsAllDownWithOneMessage) {
  EXPECT_EQ(Run("if [ $RANK = 1 ]; then echo before; echo 'kinefit: the disk is full'; "
                "echo '  where: /data'; exit 3; fi; echo $$ > pid0; exec sleep 100"),
            3);
  EXPECT_EQ(Messages(), 1) << Err();
  EXPECT_NE(Err().find("rank 1 on "), std::string::npos) << Err();
  EXPECT_NE(Err().find("ended with exit code 3"), std::string::npos) << Err();
  EXPECT_NE(Err().find("it said: the disk is full; where: /data\n"), std::string::npos) << Err();
  EXPECT_NE(Err().find("  [rank 1] before\n"), std::string::npos) << Err();
  EXPECT_NE(Err().find(options_.log_folder + "/rank_1.log"), std::string::npos) << Err();
  EXPECT_TRUE(!fs::exists(folder_ + "/pid0") || Dies(PidIn("pid0")));
}

// The rank that was killed is named, also where the one it left alone is the first to complain.
TEST_F(LaunchTest, TheKilledOneIsToBlameNotThoseItLeftAlone) {
  Start(
      "if [ $RANK = 1 ]; then echo $$ > pid1; exec sleep 100; fi; "
      "while [ ! -e gone ]; do sleep 0.02; done; "
      "echo 'kinefit: Connection closed by peer [127.0.0.1]:1234'; exit 1");
  ASSERT_TRUE(Appears("pid1"));
  std::ofstream(folder_ + "/gone") << 1;
  std::this_thread::sleep_for(milliseconds(300));
  kill(PidIn("pid1"), SIGKILL);
  EXPECT_EQ(Wait(), 128 + SIGKILL);
  EXPECT_EQ(Messages(), 1) << Err();
  EXPECT_NE(Err().find("rank 1 on "), std::string::npos) << Err();
  EXPECT_NE(Err().find("was killed by signal 9"), std::string::npos) << Err();
  EXPECT_EQ(Out(), "") << "rank 0's complaint is in its log";
}

// Ranks that tell each other end with the same words, in whatever order.
TEST_F(LaunchTest, WhoOnlyRepeatsAnothersReasonIsNotToBlame) {
  EXPECT_EQ(
      Run("[ $RANK = 0 ] || sleep 0.3; "
          "echo 'kinefit: rank 1 (process 42 on node7) at step 9: the lamp is broken'; exit 1"),
      1);
  EXPECT_EQ(Messages(), 1) << Err();
  EXPECT_EQ(Err().rfind("kinefit launch: rank 1 on ", 0), 0U) << Err();
}

TEST_F(LaunchTest, AStoppedRankIsFoundAndKilled) {
  options_.timeout = 1;
  Start("if [ $RANK = 1 ]; then echo $$ > pid1; fi; echo $$ > pid$RANK; exec sleep 100");
  ASSERT_TRUE(Appears("pid1") && Appears("pid0"));
  kill(PidIn("pid1"), SIGSTOP);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Wait(), 1);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(11));
  EXPECT_EQ(Messages(), 1) << Err();
  EXPECT_NE(Err().find("rank 1 on "), std::string::npos) << Err();
  EXPECT_NE(Err().find("stopped by a signal"), std::string::npos) << Err();
  EXPECT_TRUE(Dies(PidIn("pid1")));
  EXPECT_TRUE(Dies(PidIn("pid0")));
}

TEST_F(LaunchTest, WhoIgnoresSigtermIsKilledAfterTheGrace) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(
      Run("trap '' TERM; echo $$ > pid$RANK; if [ $RANK = 0 ]; then "
          "while [ ! -e pid1 ]; do sleep 0.02; done; exit 1; fi; while true; do sleep 1; done"),
      1);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(15));
  EXPECT_TRUE(Dies(PidIn("pid1")));
}

TEST_F(LaunchTest, NoRankOutlivesALauncherThatIsKilled) {
  Start("trap '' TERM HUP INT; echo $$ > pid$RANK; exec sleep 100");
  ASSERT_TRUE(Appears("pid0") && Appears("pid1"));
  kill(launcher_, SIGKILL);
  EXPECT_EQ(Wait(), 128 + SIGKILL);
  EXPECT_TRUE(Dies(PidIn("pid0")));
  EXPECT_TRUE(Dies(PidIn("pid1")));
}

TEST_F(LaunchTest, ASignalReachesAllRanksOnce) {
  Start(
      "trap 'echo got >> signals$RANK; exit 143' TERM; echo $$ > pid$RANK; "
      "while true; do sleep 0.05; done");
  ASSERT_TRUE(Appears("pid0") && Appears("pid1"));
  std::this_thread::sleep_for(milliseconds(100));
  kill(launcher_, SIGTERM);
  EXPECT_EQ(Wait(), 143);
  EXPECT_EQ(Read(folder_ + "/signals0"), "got\n");
  EXPECT_EQ(Read(folder_ + "/signals1"), "got\n");
  EXPECT_EQ(Messages(), 1) << Err();
}

TEST_F(LaunchTest, ASecondSignalKillsAtOnce) {
  options_.max_restarts = 3;
  Start("trap '' TERM; echo $$ > pid$RANK; while true; do sleep 0.05; done");
  ASSERT_TRUE(Appears("pid0") && Appears("pid1"));
  kill(launcher_, SIGTERM);
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_TRUE(Lives(PidIn("pid1")));
  kill(launcher_, SIGTERM);
  EXPECT_EQ(Wait(), 143);
  EXPECT_TRUE(Dies(PidIn("pid0")));
  EXPECT_TRUE(Dies(PidIn("pid1")));
}

TEST_F(LaunchTest, WhatWasIgnoredStaysIgnored) {
  Start(
      "trap | grep -c HUP > trapped$RANK; echo $$ > pid$RANK; while [ ! -e end ]; do sleep 0.02; "
      "done",
      [] { std::signal(SIGHUP, SIG_IGN); });
  ASSERT_TRUE(Appears("pid0") && Appears("pid1"));
  kill(launcher_, SIGHUP);
  kill(PidIn("pid0"), SIGHUP);  // the ranks ignore it as well
  std::this_thread::sleep_for(milliseconds(200));
  std::ofstream(folder_ + "/end") << 1;
  EXPECT_EQ(Wait(), 0) << Err();
}

TEST_F(LaunchTest, ItStartsAgainAsOftenAsItMay) {
  options_.max_restarts = 2;
  EXPECT_EQ(Run("echo start $TORCHELASTIC_RESTART_COUNT; [ $RANK = 0 ] || exit 5; exec sleep 100"),
            5);
  EXPECT_EQ(Messages(), 3) << Err();
  EXPECT_NE(Err().find("(restart 1 of 2)"), std::string::npos) << Err();
  EXPECT_NE(Err().find("(restart 2 of 2)"), std::string::npos) << Err();
  EXPECT_NE(Err().find("are used up"), std::string::npos) << Err();
  for (const std::string start : {"start 0\n", "start 1\n", "start 2\n"}) {
    EXPECT_NE(Log(1).find(start), std::string::npos) << Log(1);
  }
}

TEST_F(LaunchTest, AFaultThatPassesCostsARestart) {
  options_.max_restarts = 2;
  EXPECT_EQ(Run("[ $RANK = 0 ] || [ $TORCHELASTIC_RESTART_COUNT -gt 0 ] || kill -9 $$; echo done"),
            0);
  EXPECT_EQ(Messages(), 1) << Err();
  EXPECT_NE(Log(1).find("done\n"), std::string::npos);
}

TEST_F(LaunchTest, BadInputIsNotTriedAgain) {
  options_.max_restarts = 5;
  EXPECT_EQ(Run("exit 2"), 2);
  EXPECT_EQ(Messages(), 1) << Err();
  EXPECT_NE(Err().find("would fail the same way"), std::string::npos) << Err();
}

TEST_F(LaunchTest, ItGoesOnWithTheRanksThatAreLeft) {
  options_.ranks = 3;
  options_.max_restarts = 5;
  options_.shrink = true;
  options_.devices = {"4", "6", "7"};
  options_.arguments_for_world = [](int64_t wanted, int64_t world) {
    return std::vector<std::string>{"was" + std::to_string(wanted) + "is" + std::to_string(world)};
  };
  EXPECT_EQ(Run("echo world $WORLD_SIZE $1 on $CUDA_VISIBLE_DEVICES; "
                "[ $RANK != 1 ] || exit 9; exec sleep $((WORLD_SIZE * 30 - 30))"),
            0)
      << Err();
  EXPECT_NE(Log(0).find("world 3 on 4,6,7\n"), std::string::npos) << Log(0);
  EXPECT_NE(Log(0).find("world 2 was3is2 on 4,7\n"), std::string::npos) << Log(0);
  EXPECT_NE(Log(0).find("world 1 was3is1 on 4\n"), std::string::npos) << Log(0);
  EXPECT_NE(Err().find("with 2 of 3 ranks"), std::string::npos) << Err();
}

// Where the run cannot stay the same with all that are left, fewer go on.
TEST_F(LaunchTest, OnlyAsManyGoOnAsTheRunCanBeSharedAmong) {
  options_.ranks = 4;
  options_.max_restarts = 1;
  options_.shrink = true;
  options_.arguments_for_world = [](int64_t wanted, int64_t world) {
    return wanted % world == 0 ? std::optional(std::vector<std::string>()) : std::nullopt;
  };
  EXPECT_EQ(Run("echo world $WORLD_SIZE; [ $TORCHELASTIC_RESTART_COUNT = 1 ] && exit 0; "
                "[ $RANK != 3 ] || exit 9; exec sleep 100"),
            0)
      << Err();
  EXPECT_NE(Log(1).find("world 2\n"), std::string::npos) << Log(1);
  EXPECT_NE(Err().find("with 2 of 4 ranks"), std::string::npos) << Err();
}

TEST_F(LaunchTest, APortThatIsTakenIsNamedOrAnotherTried) {
  const int64_t port = FreePort(0);
  EXPECT_GT(port, 1023);
  const int taken = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  ASSERT_EQ(bind(taken, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(taken, 1), 0);
  try {
    FreePort(port);
    ADD_FAILURE() << "the port is taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(port)), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("--port"), std::string::npos);
  }
  close(taken);
  EXPECT_EQ(FreePort(port), port);
  // Somebody takes it between the launcher's look and the rank's bind.
  EXPECT_EQ(Run("[ -e second ] || { [ $RANK = 0 ] || exec sleep 100; echo > second; "
                "echo 'kinefit: bind: Address already in use'; exit 2; }"),
            0)
      << Err();
  EXPECT_NE(Err().find("another port is tried"), std::string::npos) << Err();
}

TEST_F(LaunchTest, AProgramThatCannotBeStartedIsAnError) {
  Start("");
  Wait();
  options_.command = {"/nonexistent/program"};
  EXPECT_THROW(Launch(options_), Error);
  options_.command = {"/bin/true"};
  options_.log_folder = "/proc/nowhere";
  EXPECT_THROW(Launch(options_), Error);
}

// What a rank writes last is shown, also without an end of line.
TEST_F(LaunchTest, TheLastWordsOfRankZeroAreShown) {
  EXPECT_EQ(Run("echo one; echo 'kinefit: a remark'; echo two; printf three"), 0);
  EXPECT_EQ(Out(), "one\nkinefit: a remark\ntwo\nthree");
}

}  // namespace
}  // namespace kinefit
