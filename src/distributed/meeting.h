#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "distributed/launch.h"
#include "distributed/rank_failure.h"

namespace kinefit {

// One start of the ranks of all machines, as this machine's launcher sees it.
struct RoundPlan {
  int64_t start = 0;  // how often the ranks were started before
  int64_t world = 1;
  int64_t wanted_world = 1;  // of the first start
  int64_t first_rank = 0;    // here
  int64_t ranks = 1;         // here
  int64_t port = 0;
};

// What the other launchers say while the ranks run.
struct News {
  std::optional<RankFailure> failure;
  bool verdict = false;  // node 0 has decided: `failure` is everybody's
  int signal = 0;        // to be passed on; 0: none
  bool over = false;     // the run is over, see End()
};

struct MeetingEnd {
  int exit_code = 1;
  std::string text;  // why; "" after a regular end
};

// How the launchers of several machines keep together: node 0 leads, the others hold a connection
// to it. Calls return soon, except Begin.
class Meeting {
 public:
  virtual ~Meeting() = default;

  // Waits for the others and returns the next start, or nothing: `interrupted` said so, or the run
  // is over (End). `ranks`: how many this machine can start. The ranks meet at `port` of node 0 (0:
  // any free one; node 0's call counts).
  virtual std::optional<RoundPlan> Begin(int64_t ranks,
                                         const std::function<bool()>& interrupted) = 0;
  virtual News Look() = 0;
  // Something failed here. Of node 0: this is the verdict.
  virtual void Tell(const RankFailure& failure) = 0;
  virtual void TellSignal(int number) = 0;
  // All ranks here have ended with this code. Of node 0: true once all others have, too.
  virtual bool AllEnded(int exit_code) = 0;
  // Node 0: the run is over. Nothing elsewhere.
  virtual void TellOver(int exit_code, const std::string& text) = 0;
  virtual const MeetingEnd& End() const = 0;
};

// For options.nodes > 1; `options` must outlive it. Throws Error if node 0's port is taken.
std::unique_ptr<Meeting> MakeMeeting(const LaunchOptions& options, const std::string& host);

// The most ranks, `world` at most, with which the run can go on as it began with `wanted`.
int64_t UsableWorld(const LaunchOptions& options, int64_t wanted, int64_t world);

// In one call, so that lines of several processes do not mix: "kinefit launch: " and `text`.
void SayFromLauncher(const std::string& text);

}  // namespace kinefit
