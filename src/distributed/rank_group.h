#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distributed/heartbeat.h"
#include "distributed/rank_failure.h"
#include "distributed/rank_process.h"

namespace kinefit {

// The ranks of one run on this machine, from one start to its end.
struct RankGroupOptions {
  std::vector<std::string> command;  // program by path, arguments
  int64_t first_rank = 0;
  int64_t ranks = 1;    // on this machine
  int64_t world = 1;    // on all machines
  int64_t node = 0;     // this machine's number
  std::string host;     // its name, for messages
  std::string address;  // where the ranks meet
  int64_t port = 0;
  int64_t start = 0;  // how often the group was started before
  int64_t max_restarts = 0;
  double timeout = 300;              // seconds without a sign of life
  std::vector<std::string> devices;  // CUDA_VISIBLE_DEVICES, one per local rank; empty: as it is
  std::string log_folder;
  std::string status_folder;
  bool show = false;  // rank 0's output on standard output
};

// Starts the ranks and watches them. Never blocks except in BringDown, for `grace` at most.
class RankGroup {
 public:
  enum State { kRunning, kEnded, kFailed };

  // Throws Error if they cannot be started; then none is left running.
  explicit RankGroup(const RankGroupOptions& options);
  // Kills what still runs.
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  // One look at everything; to be called every few dozen milliseconds. kEnded: all have ended, with
  // 0 or because a signal asked them to. kFailed: failure() says which is to blame.
  State Look();
  // To every rank that still runs.
  void Signal(int number);
  // Once a signal has been passed on: ranks that it ends are no failure.
  void ExpectEndBy(int signal) { expected_signal_ = signal; }
  // SIGTERM, and SIGKILL to those that are still there after `grace`. None is left afterwards.
  void BringDown(std::chrono::milliseconds grace);

  // REQUIRES: kFailed.
  const RankFailure& failure() const { return *failure_; }
  // REQUIRES: kEnded. 0, or 128 + the signal that the ranks obeyed.
  int exit_code() const;
  // The largest step any rank has done; -1 if none has.
  int64_t step() const;
  // The end of a rank's log since this start.
  std::string TailOf(int64_t rank, int lines) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Member;

  RankFailure FailureOf(const Member& member) const;
  RankFailure StallOf(const Member& member, double seconds) const;
  const Member* FirstEnded(bool may_blame_others) const;
  const Member* Stalled(double seconds) const;
  bool EndedWell(const Member& member) const;
  void ShowOutput();

  RankGroupOptions options_;
  std::vector<std::unique_ptr<Member>> members_;
  std::optional<RankFailure> failure_;
  std::optional<Clock::time_point> suspicion_;  // since when a rank says that another has gone
  int expected_signal_ = 0;
  uint64_t shown_ = 0;  // bytes of rank 0's log
};

}  // namespace kinefit
