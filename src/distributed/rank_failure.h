#pragma once

#include <cstdint>
#include <string>

namespace kinefit {

// Why a group of ranks came to an early end, as one launcher saw it or another told it.
struct RankFailure {
  int64_t rank = -1;  // -1: no rank's fault but a machine's or the link's
  std::string host;
  int64_t step = -1;       // optimizer steps it had done; -1: none, or not known
  std::string phase;       // what it was doing (NameOf); "" if not known
  std::string why;         // "was killed by signal 9 (Killed)", "ended with exit code 3", ...
  std::string last;        // its own last words, one line; "" if none
  std::string log;         // path on its host; "" if none
  int exit_code = 1;       // what the launcher ends with if it does not start again
  bool again = true;       // false: the same input fails the same way
  bool peer_lost = false;  // it only says that others went away; one of them is to blame
};

// "rank 1 on node7 was killed by signal 9 (Killed) after step 120, while computing\n  it said: …"
std::string Describe(const RankFailure& failure);

// Its own reason for ending, from the error file that it wrote (torchrun's format; "" or no such
// file: none) or else from the end of its log from `log_start` on: the last message of kinefit
// ("kinefit: …" with its "where" and "to do"), else the last line. One line, without control
// characters, at most 600 bytes.
std::string LastWords(const std::string& error_file, const std::string& log, uint64_t log_start);

// The last `lines` lines of the log from `log_start` on, without control characters.
std::string LogTail(const std::string& log, uint64_t log_start, int lines);

// Whether these words say no more than that another rank, or the way to it, has gone: what Gloo,
// NCCL and c10d's store say when a peer dies or is late.
bool SaysPeerLost(const std::string& words);

// One line of printable text, cut at `limit` bytes.
std::string PlainLine(const std::string& text, size_t limit);

}  // namespace kinefit
