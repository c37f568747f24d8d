// Several launchers that keep together, each a process of its own, with shell scripts as ranks.

#include "distributed/meeting.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "distributed/launch.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string Read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class MeetingTest : public ::testing::Test {
 protected:
  MeetingTest() {
    std::string pattern = (fs::temp_directory_path() / "kinefit-meeting-test-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    options_.nodes = 2;
    options_.rendezvous_host = "127.0.0.1";
    options_.rendezvous_port = FreePort(0);
    options_.rendezvous_timeout = 20;
    options_.timeout = 20;
    options_.grace = 0.5;
    options_.pause = 0.05;
  }
  ~MeetingTest() override {
    for (const pid_t pid : launchers_) {
      if (pid <= 0) continue;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
    fs::remove_all(folder_);
  }

  // `space`: the network namespace in which it runs; "": this one.
  void Start(int node, int64_t ranks, const std::string& script, const std::string& space = "") {
    options_.node = node;
    options_.ranks = ranks;
    options_.log_folder = folder_ + "/logs" + std::to_string(node);
    options_.command = {"/bin/sh", "-c", "cd \"$0\"; " + script, folder_};
    const pid_t pid = fork();
    if (pid == 0) {
      const std::string name = folder_ + "/err" + std::to_string(node);
      const int err = open(name.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      dup2(err, 1);
      dup2(err, 2);
      if (!space.empty()) {
        const int net = open(("/var/run/netns/" + space).c_str(), O_RDONLY | O_CLOEXEC);
        if (setns(net, CLONE_NEWNET) != 0) _exit(98);
      }
      int code = 99;
      try {
        code = Launch(options_);
      } catch (const std::exception& error) {
        (void)!write(2, error.what(), std::string(error.what()).size());
      }
      _exit(code);
    }
    if (launchers_.size() <= static_cast<size_t>(node)) launchers_.resize(node + 1, -1);
    launchers_[static_cast<size_t>(node)] = pid;
  }
  int Wait(int node, milliseconds patience = seconds(40)) {
    pid_t& pid = launchers_[static_cast<size_t>(node)];
    const auto end = Clock::now() + patience;
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
      if (Clock::now() > end) {
        ADD_FAILURE() << "launcher " << node << " hangs\n" << Err(node);
        return -1;
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
    pid = -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  bool Appears(const std::string& name, milliseconds patience = seconds(20)) const {
    const auto end = Clock::now() + patience;
    while (!fs::exists(folder_ + "/" + name)) {
      if (Clock::now() > end) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }
  bool Says(int node, const std::string& words, milliseconds patience = seconds(20)) const {
    const auto end = Clock::now() + patience;
    while (Err(node).find(words) == std::string::npos) {
      if (Clock::now() > end) return false;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return true;
  }
  std::string Err(int node) const { return Read(folder_ + "/err" + std::to_string(node)); }
  std::string Log(int node, int rank) const {
    return Read(folder_ + "/logs" + std::to_string(node) + "/rank_" + std::to_string(rank) +
                ".log");
  }

  LaunchOptions options_;
  std::string folder_;
  std::vector<pid_t> launchers_;
};

TEST_F(MeetingTest, NodesShareOneNumberingAndEndTogether) {
  const std::string script =
      "echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $GROUP_RANK $MASTER_ADDR; "
      "echo port $MASTER_PORT; touch here$RANK; while [ ! -e end ]; do sleep 0.05; done";
  Start(1, 1, script);
  Start(0, 2, script);
  ASSERT_TRUE(Appears("here0") && Appears("here1") && Appears("here2"));
  std::ofstream(folder_ + "/end") << 1;
  EXPECT_EQ(Wait(0), 0) << Err(0);
  EXPECT_EQ(Wait(1), 0) << Err(1);
  EXPECT_NE(Log(0, 1).find("\n1 3 1 2 0 127.0.0.1\n"), std::string::npos) << Log(0, 1);
  EXPECT_NE(Log(1, 2).find("\n2 3 0 1 1 127.0.0.1\n"), std::string::npos) << Log(1, 2);
  const std::string port = Log(0, 0).substr(Log(0, 0).find("port "));
  EXPECT_NE(Log(1, 2).find(port), std::string::npos);
}

TEST_F(MeetingTest, AFailureIsToldEverywhereAndAllStartAgain) {
  options_.max_restarts = 1;
  const std::string script =
      "echo start $TORCHELASTIC_RESTART_COUNT; touch here$RANK$TORCHELASTIC_RESTART_COUNT; "
      "[ $TORCHELASTIC_RESTART_COUNT = 0 ] || exit 0; [ $RANK = 0 ] && exec sleep 100; "
      "while [ ! -e here00 ]; do sleep 0.05; done; kill -9 $$";
  Start(0, 1, script);
  Start(1, 1, script);
  EXPECT_EQ(Wait(0), 0) << Err(0);
  EXPECT_EQ(Wait(1), 0) << Err(1);
  for (int node = 0; node < 2; ++node) {
    EXPECT_NE(Err(node).find("rank 1 on "), std::string::npos) << Err(node);
    EXPECT_NE(Err(node).find("was killed by signal 9"), std::string::npos) << Err(node);
    EXPECT_NE(Log(node, node).find("start 1\n"), std::string::npos) << Log(node, node);
  }
}

// The one to blame is on the other machine; who complains first is not.
TEST_F(MeetingTest, TheRankToBlameIsFoundAcrossMachines) {
  const std::string script =
      "touch here$RANK; [ $RANK = 1 ] || { while [ ! -e here1 ]; do sleep 0.05; done; "
      "echo 'kinefit: Connection reset by peer'; touch lost; exit 1; }; "
      "while [ ! -e lost ]; do sleep 0.05; done; sleep 0.3; echo 'kinefit: the lamp is broken'; "
      "exit 7";
  Start(0, 1, script);
  Start(1, 1, script);
  EXPECT_EQ(Wait(0), 7) << Err(0);
  EXPECT_EQ(Wait(1), 7) << Err(1);
  for (int node = 0; node < 2; ++node) {
    EXPECT_NE(Err(node).find("the lamp is broken"), std::string::npos) << Err(node);
    EXPECT_EQ(Err(node).find("reset by peer"), std::string::npos) << Err(node);
  }
}

TEST_F(MeetingTest, ASignalToOneLauncherReachesTheRanksOfAll) {
  const std::string script =
      "trap 'touch got$RANK; exit 143' TERM; touch here$RANK; while true; do sleep 0.05; done";
  Start(0, 1, script);
  Start(1, 1, script);
  ASSERT_TRUE(Appears("here0") && Appears("here1"));
  std::this_thread::sleep_for(milliseconds(200));
  kill(launchers_[1], SIGTERM);
  EXPECT_EQ(Wait(0), 143) << Err(0);
  EXPECT_EQ(Wait(1), 143) << Err(1);
  EXPECT_TRUE(Appears("got0") && Appears("got1"));
}

TEST_F(MeetingTest, ALauncherThatDiesIsMissed) {
  const std::string script = "touch here$RANK; exec sleep 100";
  Start(0, 1, script);
  Start(1, 1, script);
  ASSERT_TRUE(Appears("here0") && Appears("here1"));
  kill(launchers_[1], SIGKILL);
  EXPECT_EQ(Wait(1), 128 + SIGKILL);
  EXPECT_EQ(Wait(0, seconds(15)), 1);
  EXPECT_NE(Err(0).find("node 1 ("), std::string::npos) << Err(0);
  EXPECT_NE(Err(0).find("cannot be reached any more"), std::string::npos) << Err(0);
}

TEST_F(MeetingTest, WhatIsNoLauncherIsSentAway) {
  const std::string script = "touch here$RANK; while [ ! -e end ]; do sleep 0.05; done";
  Start(0, 1, script);
  const auto send_text = [&](const std::string& text) {
    const int file = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(options_.rendezvous_port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < 2000; ++i) {  // until it listens
      if (connect(file, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) break;
      std::this_thread::sleep_for(milliseconds(5));
    }
    (void)!write(file, text.data(), text.size());
    return file;
  };
  const int web = send_text("GET / HTTP/1.1\r\n\r\nGET\r\nGET\r\n");
  const int flood = send_text(std::string(100000, 'x'));
  const int other =
      send_text(R"({"kinefit_launch":1,"kind":"join","nodes":5,"node":4,"ranks":1,"host":"x"})"
                "\n");
  Start(1, 1, script);
  ASSERT_TRUE(Appears("here0") && Appears("here1")) << Err(0);
  EXPECT_TRUE(Says(0, "refused a launcher on x")) << Err(0);
  EXPECT_TRUE(Says(0, "is ignored: it is no JSON object")) << Err(0);
  std::ofstream(folder_ + "/end") << 1;
  EXPECT_EQ(Wait(0), 0) << Err(0);
  EXPECT_EQ(Wait(1), 0) << Err(1);
  close(web);
  close(flood);
  close(other);
}

TEST_F(MeetingTest, WhoWaitsInVainSaysForWhom) {
  options_.rendezvous_timeout = 1;
  Start(0, 1, "true");
  EXPECT_EQ(Wait(0), 1);
  EXPECT_NE(Err(0).find("node 1 did not come"), std::string::npos) << Err(0);
  Start(1, 1, "true");
  EXPECT_EQ(Wait(1), 1);
  EXPECT_NE(Err(1).find("node 0 cannot be reached"), std::string::npos) << Err(1);
}

bool Shell(const std::string& command) {
  return std::system((command + " > /dev/null 2>&1").c_str()) == 0;
}

// Two machines: network namespaces with one cable.
class TwoMachines : public MeetingTest {
 protected:
  void SetUp() override {
    const std::string id = std::to_string(getpid() % 100000);
    a_ = "kfa" + id;
    b_ = "kfb" + id;
    if (!Shell("ip netns add " + a_ + " && ip netns add " + b_ + " && ip link add " + a_ +
               " netns " + a_ + " type veth peer name " + b_ + " netns " + b_ + " && ip -n " + a_ +
               " addr add 10.77.0.1/24 dev " + a_ + " && ip -n " + b_ +
               " addr add 10.77.0.2/24 dev " + b_ + " && ip -n " + a_ + " link set " + a_ +
               " up && ip -n " + b_ + " link set " + b_ + " up && ip -n " + a_ +
               " link set lo up && ip -n " + b_ + " link set lo up")) {
      GTEST_SKIP() << "network namespaces cannot be made here (root and iproute2 are needed): the "
                      "cut link is NOT tested";
    }
  }
  void TearDown() override {
    Shell("ip netns del " + a_);
    Shell("ip netns del " + b_);
  }
  void Cable(const std::string& state) const {
    ASSERT_TRUE(Shell("ip -n " + b_ + " link set " + b_ + " " + state));
  }
  std::string a_;
  std::string b_;
};

TEST_F(TwoMachines, ACutLinkIsReportedOnBothSidesAndTheRunGoesOnOnceItIsBack) {
  options_.rendezvous_host = "10.77.0.1";
  options_.timeout = 2;
  options_.max_restarts = 3;
  const std::string script =
      "touch here$RANK.$TORCHELASTIC_RESTART_COUNT; "
      "[ $TORCHELASTIC_RESTART_COUNT = 0 ] || exit 0; exec sleep 100";
  Start(0, 1, script, a_);
  Start(1, 1, script, b_);
  ASSERT_TRUE(Appears("here0.0") && Appears("here1.0")) << Err(0) << Err(1);
  Cable("down");
  // Within the time-out + 10 s.
  EXPECT_TRUE(Says(0, "node 1 (", seconds(12))) << Err(0);
  EXPECT_TRUE(Says(1, "node 0 (10.77.0.1) cannot be reached", seconds(12))) << Err(1);
  Cable("up");
  EXPECT_EQ(Wait(0), 0) << Err(0);
  EXPECT_EQ(Wait(1), 0) << Err(1);
  EXPECT_TRUE(Appears("here0.1") || Appears("here0.2")) << Err(0);
}

}  // namespace
}  // namespace kinefit
