#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace kinefit {

// One child process of the launcher, in a process group of its own (so that Ctrl-C reaches the
// launcher alone, which passes it on once), with /dev/null as input and a log file as output. The
// kernel kills it when the launcher dies, in whatever way.
class RankProcess {
 public:
  struct Start {
    std::vector<std::string> command;                              // program by path, arguments
    std::vector<std::pair<std::string, std::string>> environment;  // over the launcher's own
    std::vector<std::string> without;                              // variables taken away
    std::string log;                                               // appended to
  };

  // Throws Error if the program cannot be started or the log not be written. To be called from the
  // launcher's main thread, with whose end the child dies.
  explicit RankProcess(const Start& start);
  // Kills what is left, and waits for it.
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  // Looks whether it has ended or been stopped; never waits. True once it has ended; whatever it
  // had started in its process group is dead then as well.
  bool Look();
  bool ended() const { return ended_; }
  // As a shell shows it: the exit code, or 128 + the signal that killed it.
  int exit_code() const;
  bool killed_by_signal() const;
  bool stopped() const { return stopped_; }  // by SIGSTOP and the like, at the last look
  pid_t pid() const { return pid_; }
  // Where in the log its output begins.
  uint64_t log_start() const { return log_start_; }
  // To it and to what it has started. Nothing once it has ended.
  void Signal(int number);

 private:
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
  bool stopped_ = false;
  uint64_t log_start_ = 0;
};

}  // namespace kinefit
