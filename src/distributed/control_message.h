#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "distributed/rank_failure.h"

namespace kinefit {

// What launchers on several machines say to that of node 0, and it to them. One message is one line
// of JSON, at most kMostControlBytes long with its end:
//
//   {"kinefit_launch": 1, "kind": "join", "nodes": 2, "node": 1, "ranks": 8, "host": "b"}
//
// Who comes from the network is not trusted: a line that is no such message, or has a number out of
// its range or a text that is too long, is refused as a whole.
enum class ControlKind {
  kJoin,     // to node 0: `node` of `nodes` is there with `ranks` ranks, on `host`
  kRound,    // from node 0: start number `start`; `world` ranks in all (`wanted_world` in the first
             // start), `ranks` of them here from `first_rank` on; they meet at `port`
  kFailed,   // both ways: start `start` is over, because of `failure`
  kEnded,    // to node 0: all ranks here have ended with `exit_code`, 0 or 128 + a signal
  kOver,     // from node 0: the run is over; end with `exit_code`, for `text` if not ""
  kSignal,   // both ways: pass signal number `exit_code` on
  kAlive,    // both ways, now and then
  kRefused,  // from node 0: it does not take part, for `text`
};

struct ControlMessage {
  ControlKind kind = ControlKind::kAlive;
  int64_t nodes = 0;
  int64_t node = 0;
  int64_t ranks = 0;
  int64_t start = 0;
  int64_t world = 0;
  int64_t wanted_world = 0;
  int64_t first_rank = 0;
  int64_t port = 0;
  int exit_code = 0;
  std::string host;
  std::string text;
  RankFailure failure;
};

constexpr size_t kMostControlBytes = 4096;

// With its end of line. Texts are cut where they would not fit.
std::string FormatControlMessage(const ControlMessage& message);

// `line` without its end. Nothing, and what is wrong in `*problem`, if it is no message.
std::optional<ControlMessage> ParseControlMessage(std::string_view line, std::string* problem);

}  // namespace kinefit
