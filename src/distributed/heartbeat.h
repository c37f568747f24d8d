#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

namespace kinefit {

// What a rank is doing, for whoever watches it. kWaiting alone means "the others may be at fault":
// a rank that is overdue in any other phase is itself the one that hangs.
enum class RankPhase : int64_t {
  kStarting = 0,    // reading the configuration and the data set, planning, building the network
  kLoading = 1,     // waiting for its own loader
  kComputing = 2,   // forward, backward, update
  kWaiting = 3,     // inside a collective or at the rendezvous: needs every other rank
  kValidating = 4,  // one beat per batch
  kSaving = 5,      // writing a checkpoint
  kEnding = 6,      // the run is over; tidying up
};
const char* NameOf(RankPhase phase);

// A rank's sign of life: its step, its phase and when it last said so, in a small file that
// `kinefit launch` maps as well, so that a beat is a few stores into memory and no system call.
// The trainer beats at least once per micro-batch and per validation batch, and whenever the phase
// changes. Between two beats less time must pass than --timeout of the launcher: a rank whose last
// beat is older is taken for stalled and killed. Any thread may beat.
class Heartbeat {
 public:
  // This process's own: KINEFIT_STATUS_DIR/rank_RANK, both variables as the launcher sets them.
  // Without them, or where the file cannot be mapped, beats go nowhere.
  static Heartbeat& Own();

  // Writes into `path`, which the watcher has made (HeartbeatFile). "": goes nowhere.
  explicit Heartbeat(const std::string& path);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // `step`: optimizer steps that are done, counted over the whole run (StepReport::iteration).
  void Beat(int64_t step, RankPhase phase);
  // The same step, another phase. Returns the phase before.
  RankPhase Enter(RankPhase phase);

 private:
  struct Record* record_ = nullptr;
  std::mutex mutex_;
};

// Marks the time inside a collective.
class WaitingForRanks {
 public:
  WaitingForRanks() : before_(Heartbeat::Own().Enter(RankPhase::kWaiting)) {}
  ~WaitingForRanks() { Heartbeat::Own().Enter(before_); }
  WaitingForRanks(const WaitingForRanks&) = delete;
  WaitingForRanks& operator=(const WaitingForRanks&) = delete;

 private:
  RankPhase before_;
};

// What a watcher sees.
struct RankStatus {
  bool beats = false;  // false: never a beat, so that nothing follows from its silence
  int64_t step = -1;   // -1: none yet
  RankPhase phase = RankPhase::kStarting;
  double age = 0;  // seconds since the last beat; before the first, since the file was made
};

// The watcher's side: makes the file (throws Error where it cannot), reads it, removes it.
class HeartbeatFile {
 public:
  explicit HeartbeatFile(const std::string& path);
  ~HeartbeatFile();
  HeartbeatFile(const HeartbeatFile&) = delete;
  HeartbeatFile& operator=(const HeartbeatFile&) = delete;

  RankStatus Read() const;

 private:
  std::string path_;
  struct Record* record_ = nullptr;
};

}  // namespace kinefit
