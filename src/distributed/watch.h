#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "distributed/environment.h"
#include "distributed/process_group.h"

namespace kinefit {

// Keeps an eye on the ranks of a run through the store they share: a thread of each rank writes a
// sign of life there, with what the rank is at, and reads those of the others. It finds out which
// rank is to blame when a call of all ranks fails, and ends this process when another rank says
// that it has failed or has given no sign for the time-out.
class Watch {
 public:
  // `who` each rank is, for messages: "process 4242 on host". `store` is this object's own
  // connection. `end_process` must not return.
  Watch(const RankEnvironment& environment, const std::vector<std::string>& who, Store store,
        std::chrono::milliseconds timeout, std::function<void(const std::string&)> end_process);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // What this rank is at. Any thread.
  void Tell(int64_t step, const std::string& doing);
  void TellWaiting(bool waiting);  // in a call of all ranks

  // This rank failed. Tells the others; returns when they have heard, or after a few seconds.
  void Fail(const std::string& reason);
  // A call of all ranks failed with `error`: finds out why, tells the others, ends the process.
  [[noreturn]] void EndBecauseOfError(const std::string& error);
  // Regular end: waits until all ranks are here, and stops watching.
  void Leave();

 private:
  struct Sign {        // of life, of one rank
    std::string text;  // as it stands in the store
    int64_t count = -1;
    int64_t step = -1;
    bool waiting = false;
    std::string doing;
    std::string who;  // "rank 1 (process 4242 on host)"
    std::chrono::steady_clock::time_point changed;
  };

  void Run();
  void WriteSign();
  void ReadSigns();
  bool ReadFailure(std::string* reason);
  std::string Declare(const std::string& reason);
  std::string Blame(const std::string& error);
  std::string Describe(const Sign& sign) const;
  std::string SilentRank(std::chrono::milliseconds longer_than);
  void Hear();
  void AwaitHearing();
  bool HoldsStore() const { return rank_ == 0 && !served_; }
  [[noreturn]] void EndBecauseOf(std::string reason);

  const int64_t rank_;
  const int64_t world_;
  const bool served_;  // the store, by who started the ranks
  const Store store_;
  const std::chrono::milliseconds timeout_;
  const std::chrono::milliseconds interval_;
  const std::function<void(const std::string&)> end_process_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<Sign> signs_;
  int64_t step_ = -1;
  std::string doing_ = "starting";
  bool waiting_ = false;
  bool stop_ = false;
  bool store_lost_ = false;
  bool asking_ = false;  // the store, since:
  std::chrono::steady_clock::time_point asked_;

  int64_t count_ = 0;
  std::atomic<bool> ending_{false};
  std::atomic<bool> heard_{false};  // of a failure: the others may know
  std::thread thread_;
};

// "process 4242 on host": this process.
std::string WhoAmI();

}  // namespace kinefit
