// A run of several ranks on one machine listens on nothing that others could reach.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "tests/process.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;

// Inodes of the sockets that processes with `word` in their command line hold.
std::set<std::string> SocketsOf(const std::string& word) {
  std::set<std::string> inodes;
  std::error_code error;
  for (const auto& process : fs::directory_iterator("/proc", error)) {
    std::ifstream file(process.path() / "cmdline", std::ios::binary);
    std::ostringstream words;
    words << file.rdbuf();
    if (words.str().find(word) == std::string::npos) continue;
    for (const auto& open : fs::directory_iterator(process.path() / "fd", error)) {
      const std::string target = fs::read_symlink(open.path(), error).string();
      if (target.rfind("socket:[", 0) == 0) inodes.insert(target.substr(8, target.size() - 9));
    }
  }
  return inodes;
}

// Addresses, as /proc/net/tcp writes them, that these sockets listen on.
std::set<std::string> ListeningOn(const std::set<std::string>& inodes) {
  std::set<std::string> addresses;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    std::getline(file, line);
    while (std::getline(file, line)) {
      std::istringstream fields(line);
      std::string number, local, remote, state, queues, timer, retries, user, timeout, inode;
      fields >> number >> local >> remote >> state >> queues >> timer >> retries >> user >>
          timeout >> inode;
      if (state == "0A" && inodes.count(inode) > 0)
        addresses.insert(local.substr(0, local.find(':')));
    }
  }
  return addresses;
}

TEST(Loopback, RanksOnOneMachineListenOnNothingElse) {
  ScratchFolder scratch;
  const std::string config = scratch / "config.toml";
  WriteText(config, SmallConfig("pose"));
  Process run({KinefitBinary(), "launch", "--nproc", "2", "--", "train", config, "--work-dir",
               scratch / "run", "--set", "train.epochs=3"},
              scratch / "output.txt");
  std::set<std::string> seen;
  while (!run.WaitFor(std::chrono::milliseconds(50))) {
    const std::set<std::string> now = ListeningOn(SocketsOf(config));
    seen.insert(now.begin(), now.end());
  }
  EXPECT_EQ(run.Wait().exit_code, 0) << ReadText(scratch / "output.txt");
  EXPECT_FALSE(seen.empty());  // Gloo's own, between the ranks
  for (const std::string& address : seen) {
    EXPECT_TRUE(address == "0100007F" || address == "00000000000000000000000001000000" ||
                address == "0000000000000000FFFF00000100007F")
        << address;
  }
}

}  // namespace
}  // namespace kinefit::testing
