#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace kinefit {

// Adds small messages of the ranks of one machine up through memory that they share. A step with
// batch norms over all ranks needs a message for every norm, forward and backward, and each holds
// the computation up: through sockets it takes a few tenths of a millisecond, since several threads
// are woken one after the other, through memory about one microsecond where the ranks keep pace.
//
// The memory has two places per rank, used in turns: a rank writes message k+2 over message k when
// all others have published k+1, and so have read k. One thread per process.
class SharedMessages {
 public:
  // Rank 0 makes the memory `name` ("/kinefit-..."), before the others open it. `most`: numbers in
  // a message. Throws std::runtime_error if there is none to be had.
  SharedMessages(const std::string& name, int64_t rank, int64_t world, int64_t most,
                 std::chrono::milliseconds timeout);
  ~SharedMessages();
  SharedMessages(const SharedMessages&) = delete;
  SharedMessages& operator=(const SharedMessages&) = delete;

  int64_t most() const { return most_; }
  // Replaces `values` by their sums over ranks, added in the order of ranks. Throws
  // std::runtime_error if a rank has gone or does not come within the time-out.
  void Sum(double* values, int64_t count);

  // A name that no other memory has.
  static std::string NewName();
  // Once all have opened it: it goes when the last of them ends.
  static void Forget(const std::string& name);

 private:
  struct Line;

  double* Place(uint32_t turn, int64_t rank) const;
  void Publish(uint32_t turn);
  void Await(int64_t rank, uint32_t turn) const;
  bool Gone(int64_t rank) const;

  const int64_t rank_;
  const int64_t world_;
  const int64_t most_;
  const std::chrono::milliseconds timeout_;
  int file_ = -1;
  size_t bytes_ = 0;
  void* memory_ = nullptr;
  Line* lines_ = nullptr;  // one per rank
  double* places_ = nullptr;
  uint32_t turn_ = 0;
};

}  // namespace kinefit
