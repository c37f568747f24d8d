#include "distributed/watch.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <sstream>
#include <system_error>

#include "files/error.h"

namespace kinefit {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kFailure = "failure";
constexpr int kMissedSigns = 3;  // after which a rank whose connection broke counts as gone
constexpr seconds kPatience(4);  // for words about a failure to get round

std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }
std::string Text(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

std::string SignKey(int64_t rank) { return "sign/" + std::to_string(rank); }

std::string SecondsText(milliseconds time) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g s", static_cast<double>(time.count()) / 1000);
  return text;
}

milliseconds Since(Clock::time_point time) {
  return std::chrono::duration_cast<milliseconds>(Clock::now() - time);
}

bool MeansTimeOut(const std::string& error) {
  return error.find("imed out") != std::string::npos || error.find("imeout") != std::string::npos;
}

}  // namespace

std::string WhoAmI() {
  char name[256] = {};
  const bool named = gethostname(name, sizeof(name) - 1) == 0;
  return "process " + std::to_string(getpid()) + " on " + (named ? name : "unknown host");
}

Watch::Watch(const RankEnvironment& environment, const std::vector<std::string>& who, Store store,
             milliseconds timeout, std::function<void(const std::string&)> end_process)
    : rank_(environment.rank),
      world_(environment.world),
      served_(environment.store_is_served),
      store_(std::move(store)),
      timeout_(timeout),
      // One store answers for all: many ranks ask it less often.
      interval_(std::max<int64_t>(
          std::min<int64_t>(timeout.count() / 10, std::max<int64_t>(500, environment.world * 20)),
          50)),
      end_process_(std::move(end_process)),
      signs_(static_cast<size_t>(environment.world)) {
  for (size_t r = 0; r < signs_.size(); ++r) {
    signs_[r].changed = Clock::now();
    signs_[r].who = "rank " + std::to_string(r) + " (" + who.at(r) + ")";
  }
  WriteSign();
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (const std::system_error&) {
    throw ResourceError("the system starts no thread to watch the other ranks with", "",
                        "allow more processes (ulimit -u, or the limit of the control group)");
  }
}

Watch::~Watch() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Watch::Tell(int64_t step, const std::string& doing) {
  const std::lock_guard<std::mutex> lock(mutex_);
  step_ = step;
  doing_ = doing;
}

void Watch::TellWaiting(bool waiting) {
  const std::lock_guard<std::mutex> lock(mutex_);
  waiting_ = waiting;
}

void Watch::WriteSign() {
  std::ostringstream text;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    text << ++count_ << ' ' << step_ << ' ' << waiting_ << ' ' << doing_;
  }
  store_->set(SignKey(rank_), Bytes(text.str()));
}

void Watch::ReadSigns() {
  for (int64_t r = 0; r < world_; ++r) {
    if (!store_->check({SignKey(r)})) continue;
    const std::string text = Text(store_->get(SignKey(r)));
    const std::lock_guard<std::mutex> lock(mutex_);
    Sign& sign = signs_[static_cast<size_t>(r)];
    if (text == sign.text) continue;
    sign.text = text;
    sign.changed = Clock::now();
    std::istringstream in(text);
    in >> sign.count >> sign.step >> sign.waiting >> std::ws;
    std::getline(in, sign.doing);
  }
}

bool Watch::ReadFailure(std::string* reason) {
  if (!store_->check({kFailure})) return false;
  *reason = Text(store_->get(kFailure));
  return true;
}

// The first reason declared is everybody's.
std::string Watch::Declare(const std::string& reason) {
  return Text(store_->compareSet(kFailure, {}, Bytes(reason)));
}

// Ranks take their steps together: this rank's own step says where another one is, if that one's
// last sign is older. REQUIRES: mutex_ held.
std::string Watch::Describe(const Sign& sign) const {
  std::string text = sign.who;
  const int64_t step = std::max(sign.step, step_);
  if (step >= 0) text += " at step " + std::to_string(step + 1);
  if (!sign.doing.empty() && step == sign.step) text += ", " + sign.doing;
  return text;
}

// Who has given no sign for so long, as a reason; "" if nobody. REQUIRES: mutex_ held.
std::string Watch::SilentRank(milliseconds longer_than) {
  for (int64_t r = 0; r < world_; ++r) {
    const Sign& sign = signs_[static_cast<size_t>(r)];
    if (r == rank_ || Since(sign.changed) <= longer_than) continue;
    return Describe(sign);
  }
  return "";
}

void Watch::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_ && !store_lost_) {
    wake_.wait_for(lock, interval_, [this] { return stop_; });
    if (stop_) return;
    asking_ = true;
    asked_ = Clock::now();
    lock.unlock();
    std::string reason;
    bool failed = false;
    try {
      WriteSign();
      ReadSigns();
      failed = ReadFailure(&reason);
      if (failed) {
        Hear();
        if (HoldsStore()) AwaitHearing();
      }
    } catch (const std::exception&) {
      lock.lock();
      store_lost_ = true;
      asking_ = false;
      break;
    }
    if (failed) {
      if (!ending_.exchange(true)) end_process_(reason);
      return;
    }
    lock.lock();
    asking_ = false;
    // A long question means that this process stood still, not the others.
    if (Since(asked_) > interval_) continue;
    const std::string silent = SilentRank(timeout_);
    if (silent.empty()) continue;
    lock.unlock();
    EndBecauseOf(silent + ": no sign of life for " + SecondsText(timeout_) +
                 " (stopped, or its machine or link is down)");
  }
  // Without the store the others' signs cannot be seen any more; whoever held it is gone. The next
  // call of all ranks fails, or waits in vain: then this thread ends the process.
  const Clock::time_point lost = Clock::now();
  while (!stop_ && Since(lost) < timeout_) wake_.wait_for(lock, interval_);
  if (stop_) return;
  lock.unlock();
  EndBecauseOf(Blame("the store is lost"));
}

// Whoever says that it failed, and whoever holds the store, which ends with it, stays until the
// others have heard of it.
void Watch::Hear() {
  if (!heard_.exchange(true)) store_->add("heard", 1);
}

void Watch::Fail(const std::string& reason) {
  if (ending_.exchange(true)) return;
  heard_ = true;  // the others are counted, not this rank's own watching
  try {
    std::string who;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (store_lost_ || (asking_ && Since(asked_) > kPatience)) return;
      Sign self = signs_[static_cast<size_t>(rank_)];
      self.step = step_;
      self.doing = "";
      who = Describe(self);
    }
    Declare(who + ": " + reason);
    AwaitHearing();
  } catch (const std::exception&) {
    // The store is gone: there is nobody to tell.
  }
}

// All but the rank that failed have heard of it, or do not hear any more.
void Watch::AwaitHearing() {
  const Clock::time_point begin = Clock::now();
  while (store_->add("heard", 0) < world_ - 1 && Since(begin) < kPatience) {
    std::this_thread::sleep_for(milliseconds(50));
  }
}

// Why a call of all ranks failed, from what is known.
std::string Watch::Blame(const std::string& error) {
  const bool time_out = MeansTimeOut(error);
  // Words about it may be on their way; and a rank that is gone shows by its silence.
  const milliseconds grace = interval_ * kMissedSigns + milliseconds(200);
  std::string reason;
  const Clock::time_point begin = Clock::now();
  while (Since(begin) < grace) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (store_lost_ || (asking_ && Since(asked_) > grace)) break;
    }
    std::this_thread::sleep_for(milliseconds(50));
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (store_lost_ || (asking_ && Since(asked_) > grace / 2)) {
    const std::string silence = time_out ? "has not answered for " + SecondsText(timeout_) +
                                               " (stopped, or its machine or link is down)"
                                         : "has gone without a word (killed?)";
    if (served_) return "the starter of the ranks, which holds their store, " + silence;
    return Describe(signs_[0]) + ": " + silence;
  }
  const std::string silent = SilentRank(interval_ * 2 + milliseconds(100));
  if (!silent.empty()) {
    return silent + ": " +
           (time_out ? "has not answered for " + SecondsText(timeout_) +
                           " (stopped, or its machine or link is down)"
                     : "has gone without a word (killed?)");
  }
  if (time_out) {
    std::string absent;
    for (int64_t r = 0; r < world_; ++r) {
      const Sign& sign = signs_[static_cast<size_t>(r)];
      if (r != rank_ && !sign.waiting) absent += (absent.empty() ? "" : "; ") + Describe(sign);
    }
    if (!absent.empty()) {
      return absent + ": kept the others waiting for more than " + SecondsText(timeout_) +
             " (distributed.timeout)";
    }
  }
  return "the connection between ranks broke: " + error;
}

void Watch::EndBecauseOfError(const std::string& error) {
  EndBecauseOf(Blame(error.substr(0, error.find('\n'))));
}

void Watch::EndBecauseOf(std::string reason) {
  bool ask = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ask = !store_lost_ && !(asking_ && Since(asked_) > interval_ * 2);
  }
  if (ask) {
    try {
      reason = Declare(reason);
      Hear();
      if (HoldsStore()) AwaitHearing();
    } catch (const std::exception&) {
      // What is known here has to do.
    }
  }
  // The first thread to come ends the process; another has nothing to add.
  if (!ending_.exchange(true)) end_process_(reason);
  for (;;) std::this_thread::sleep_for(seconds(1));
}

void Watch::Leave() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  try {
    store_->add("left", 1);
    const Clock::time_point begin = Clock::now();
    // Whoever holds the store stays until the others have left; they need not wait for it.
    while (rank_ == 0 && !served_ && store_->add("left", 0) < world_ && Since(begin) < timeout_) {
      std::this_thread::sleep_for(milliseconds(20));
    }
  } catch (const std::exception&) {
    // The others are done.
  }
}

}  // namespace kinefit
