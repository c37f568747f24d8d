#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tests/process.h"

namespace kinefit::testing {

// A port that nobody listens on at the moment.
inline int FreeTestPort() {
  const int file = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  bind(file, reinterpret_cast<sockaddr*>(&address), length);
  getsockname(file, reinterpret_cast<sockaddr*>(&address), &length);
  close(file);
  return ntohs(address.sin_port);
}

// The process that `kinefit launch` started as this rank of the run in `work_dir`; -1 if there is
// none.
inline pid_t LaunchedRank(const std::string& work_dir, int rank) {
  const std::string variable = std::string(1, 0) + "RANK=" + std::to_string(rank) + '\0';
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 1 || access((entry.path() / "environ").c_str(), R_OK) != 0) continue;
    const std::string environment = '\0' + ReadText(entry.path() / "environ");
    if (ReadText(entry.path() / "cmdline").find(work_dir) == std::string::npos) continue;
    if (environment.find("KINEFIT_STATUS_DIR=") == std::string::npos) continue;
    if (environment.find(variable) != std::string::npos) return pid;
  }
  return -1;
}

// The ranks of one run as real processes of this machine, started as torchrun starts them.
class RankProcesses {
 public:
  // `extra[r]`: more environment of rank r.
  RankProcesses(int world, const std::vector<std::string>& arguments, const std::string& output,
                const std::vector<std::vector<std::string>>& extra = {}) {
    const std::string port = std::to_string(FreeTestPort());
    std::vector<std::string> command = {KinefitBinary()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    for (int rank = 0; rank < world; ++rank) {
      std::vector<std::string> environment = {"RANK=" + std::to_string(rank),
                                              "WORLD_SIZE=" + std::to_string(world),
                                              "LOCAL_RANK=" + std::to_string(rank),
                                              "LOCAL_WORLD_SIZE=" + std::to_string(world),
                                              "MASTER_ADDR=127.0.0.1",
                                              "MASTER_PORT=" + port,
                                              "OMP_WAIT_POLICY=passive"};
      const auto own = static_cast<size_t>(rank);
      if (own < extra.size()) {
        environment.insert(environment.end(), extra[own].begin(), extra[own].end());
      }
      processes_.push_back(std::make_unique<Process>(
          command, output + "_rank" + std::to_string(rank) + ".txt", environment));
    }
  }

  Process& operator[](int rank) { return *processes_[static_cast<size_t>(rank)]; }

  // Waits for all; one that is still there after `time` is killed, and said to have hung.
  std::vector<Outcome> Wait(std::chrono::seconds time) {
    const auto deadline = std::chrono::steady_clock::now() + time;
    std::vector<Outcome> outcomes;
    for (auto& process : processes_) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      const bool ended = process->WaitFor(std::max(left, std::chrono::milliseconds(1)));
      if (!ended) process->Signal(SIGKILL);
      outcomes.push_back(process->Wait());
      if (!ended) outcomes.back().output += "\n[this rank hung and was killed by the test]";
    }
    return outcomes;
  }

 private:
  std::vector<std::unique_ptr<Process>> processes_;
};

}  // namespace kinefit::testing
