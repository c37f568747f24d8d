#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace kinefit {

// `kinefit launch`: starts the ranks of a run on this machine, watches them, and brings all down
// when one fails, with one message that says which, where, when and why; then starts them again if
// it may. Where several machines take part, each runs one launcher; that of node 0 leads.
struct LaunchOptions {
  std::vector<std::string> command;  // program by path, arguments: what every rank runs
  int64_t ranks = 1;                 // on this machine
  int64_t nodes = 1;
  int64_t node = 0;                 // this machine's number; node 0 leads
  std::string rendezvous_host;      // node 0's address, for all nodes; "": one machine
  int64_t rendezvous_port = 0;      // where the launchers meet
  double rendezvous_timeout = 600;  // seconds to wait for the other nodes
  int64_t port = 0;                 // where the ranks meet (MASTER_PORT); 0: any free one
  int64_t max_restarts = 0;
  bool shrink = false;   // start again without what was lost
  double timeout = 300;  // seconds without a sign of life
  double grace = 3;      // seconds between SIGTERM and SIGKILL after a failure
  double pause = 1;      // seconds before the first restart; doubles each time, up to 60
  std::vector<std::string> devices;  // GPUs that the ranks may use, in order; empty: as they are
  // More arguments for a start with `world` ranks instead of the `wanted` of the first one, so that
  // the run stays the same; nothing if it cannot with this number. May be empty: any number will
  // do.
  std::function<std::optional<std::vector<std::string>>(int64_t wanted, int64_t world)>
      arguments_for_world;
  std::string log_folder;  // rank_N.log of every rank
};

// Runs the command to its end. Returns what the program is to end with: 0; the exit code of the
// rank that failed (128 + signal where one killed it, 1 where it stalled); 128 + signal after a
// signal to the launcher, which passes it on (a second one kills the ranks at once). Signals that
// were ignored at the start stay ignored. Messages go to standard error, rank 0's output to
// standard output. Throws Error for options that do not work here: a port already taken, an
// unwritable folder, a program that cannot be started. REQUIRES: called from the main thread, once
// per process.
int Launch(const LaunchOptions& options);

// A port that is free now on this machine. `wanted` > 0: that one; throws Error if it is taken.
int64_t FreePort(int64_t wanted);

}  // namespace kinefit
