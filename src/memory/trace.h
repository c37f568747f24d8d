#pragma once

#include <c10/core/Allocator.h>

#include <cstdint>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

namespace kinefit {

// What a block of memory is for.
enum class MemoryRole {
  kWeights,
  kGradients,
  kOptimizer,
  kInput,
  kPrefetch,
  kActivations,
  kWorkspace
};

// One block that was allocated while a trace recorded. Times count allocations and releases.
struct TracedBlock {
  static constexpr int64_t kAlive = std::numeric_limits<int64_t>::max();
  int64_t bytes = 0;
  MemoryRole role = MemoryRole::kActivations;
  int layer = -1;         // index into MemoryTrace::layers(), -1 = none
  bool backward = false;  // allocated in an operation's backward pass
  int64_t born = 0;
  int64_t died = kAlive;
};

// Records every allocation on the meta device from its construction to Stop(); nothing of that
// size is ever allocated. At most one records at a time (the constructor waits for the other).
class MemoryTrace {
 public:
  MemoryTrace();
  ~MemoryTrace();
  MemoryTrace(const MemoryTrace&) = delete;
  MemoryTrace& operator=(const MemoryTrace&) = delete;

  void Stop();

  // The role of blocks allocated from now on.
  void SetRole(MemoryRole role) { role_ = role; }
  MemoryRole role() const { return role_; }

  // Starts a new peak at what is alive now.
  void ResetPeak() { peak_ = current_; }

  // The block behind a tensor's storage, e.g. to give a gradient its role afterwards; null if it
  // was not allocated while this trace recorded.
  TracedBlock* Find(const c10::DataPtr& data);

  const std::vector<TracedBlock>& blocks() const { return blocks_; }
  const std::vector<std::string>& layers() const { return layers_; }
  int64_t current() const { return current_; }
  int64_t peak() const { return peak_; }
  // Allocations and releases so far.
  int64_t now() const { return clock_; }

  // For the allocator.
  int64_t Allocated(int64_t bytes);
  void Released(int64_t block);

 private:
  int LayerOf(const std::string* name);

  std::vector<TracedBlock> blocks_;
  std::vector<std::string> layers_;
  MemoryRole role_ = MemoryRole::kActivations;
  std::unordered_map<std::string, int> layer_index_;
  int64_t clock_ = 0;
  int64_t current_ = 0;
  int64_t peak_ = 0;
  int64_t serial_ = 0;
  bool recording_ = true;
};

// The trace that records now, null if none.
MemoryTrace* RecordingTrace();

}  // namespace kinefit
