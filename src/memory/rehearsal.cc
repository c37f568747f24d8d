#include "memory/rehearsal.h"

#include <algorithm>
#include <map>
#include <utility>

namespace kinefit {
namespace {

constexpr size_t kCurvePoints = 120;

struct Event {
  int64_t time;
  int block;
  bool born;
};

std::vector<Event> EventsOf(const MemoryTrace& trace) {
  std::vector<Event> events;
  events.reserve(trace.blocks().size() * 2);
  for (size_t i = 0; i < trace.blocks().size(); ++i) {
    const TracedBlock& block = trace.blocks()[i];
    events.push_back({block.born, static_cast<int>(i), true});
    if (block.died != TracedBlock::kAlive) {
      events.push_back({block.died, static_cast<int>(i), false});
    }
  }
  std::sort(events.begin(), events.end(),
            [](const Event& a, const Event& b) { return a.time < b.time; });
  return events;
}

bool IsActivation(const TracedBlock& block) {
  return block.role == MemoryRole::kActivations || block.role == MemoryRole::kWorkspace;
}

// Follows a step through its segments' forward and backward passes.
class SegmentCourse {
 public:
  SegmentCourse(const MemoryTrace& trace, int segments,
                const std::function<int(const std::string&)>& segment_of)
      : trace_(trace), kept_(static_cast<size_t>(segments)) {
    for (const std::string& layer : trace.layers()) layer_segments_.push_back(segment_of(layer));
  }

  // What every segment holds when the first backward pass of a segment begins.
  void FindKept(int64_t begin, int64_t end) {
    int64_t turn = end;
    for (const TracedBlock& block : trace_.blocks()) {
      if (block.born > begin && block.backward && SegmentOf(block) >= 0) {
        turn = std::min(turn, block.born);
      }
    }
    for (const TracedBlock& block : trace_.blocks()) {
      if (block.born <= begin || block.born >= turn || block.died <= turn) continue;
      const int segment = SegmentOf(block);
      if (segment >= 0 && IsActivation(block)) kept_[static_cast<size_t>(segment)] += block.bytes;
    }
  }

  void See(const TracedBlock& block, int64_t alive) {
    const int segment = SegmentOf(block);
    if (segment >= 0) {
      const uint32_t bit = 1U << static_cast<uint32_t>(segment);
      if (block.backward) {
        begun_ &= ~bit;  // its own is in flux from here on
      } else {
        if (turned_) begun_ = 0;  // the next micro-batch
        begun_ |= bit;
      }
      turned_ = block.backward;
    }
    uint32_t standing = begun_;
    if (segment >= 0) standing &= ~(1U << static_cast<uint32_t>(segment));
    int64_t rest = alive;
    for (size_t j = 0; j < kept_.size(); ++j) {
      if ((standing >> j & 1U) != 0) rest -= kept_[j];
    }
    int64_t& most = phases_[{segment, standing}];
    most = std::max(most, rest);
  }

  void Store(Rehearsal* result) const {
    result->kept = kept_;
    for (const auto& [key, bytes] : phases_) {
      result->phases.push_back({key.first, key.second, bytes});
    }
  }

 private:
  int SegmentOf(const TracedBlock& block) const {
    return block.layer < 0 ? -1 : layer_segments_[static_cast<size_t>(block.layer)];
  }

  const MemoryTrace& trace_;
  std::vector<int> layer_segments_;
  std::vector<int64_t> kept_;
  std::map<std::pair<int, uint32_t>, int64_t> phases_;
  uint32_t begun_ = 0;
  bool turned_ = false;
};

// Whether an activation outlives the forward pass that made it by more than a few operations: alive
// at the peak of a backward pass, but made before it.
void AddToRole(const TracedBlock& block, bool saved, Rehearsal* result) {
  switch (block.role) {
    case MemoryRole::kWeights:
      result->weights += block.bytes;
      break;
    case MemoryRole::kGradients:
      result->gradients += block.bytes;
      break;
    case MemoryRole::kOptimizer:
      result->optimizer += block.bytes;
      break;
    case MemoryRole::kInput:
      result->input += block.bytes;
      break;
    case MemoryRole::kPrefetch:
      result->prefetch += block.bytes;
      break;
    case MemoryRole::kWorkspace:
      result->workspace += block.bytes;
      break;
    case MemoryRole::kActivations:
      (saved ? result->saved : result->temporaries) += block.bytes;
      break;
  }
}

}  // namespace

Rehearsal Summarise(const MemoryTrace& trace, int64_t begin, int64_t end, int segments,
                    const std::function<int(const std::string& layer)>& segment_of) {
  Rehearsal result;
  SegmentCourse course(trace, segments, segment_of);
  course.FindKept(begin, end);
  int64_t alive = 0;
  int64_t peak_time = begin;
  result.curve.assign(kCurvePoints, 0);
  int64_t turn = end;  // where backward passes begin
  for (const TracedBlock& block : trace.blocks()) {
    if (block.born > begin && block.backward) turn = std::min(turn, block.born);
  }
  for (const Event& event : EventsOf(trace)) {
    if (event.time > end) break;
    const TracedBlock& block = trace.blocks()[static_cast<size_t>(event.block)];
    alive += event.born ? block.bytes : -block.bytes;
    if (event.time <= begin || !event.born) continue;
    if (alive > result.peak) {
      result.peak = alive;
      peak_time = event.time;
    }
    const auto slice =
        static_cast<size_t>(static_cast<int64_t>(kCurvePoints - 1) * (event.time - begin) /
                            std::max<int64_t>(end - begin, 1));
    result.curve[slice] = std::max(result.curve[slice], alive);
    course.See(block, alive);
  }
  for (size_t i = 1; i < kCurvePoints; ++i) {
    if (result.curve[i] == 0) result.curve[i] = result.curve[i - 1];
  }
  course.Store(&result);

  std::map<int, int64_t> by_layer;
  for (const TracedBlock& block : trace.blocks()) {
    if (block.born > peak_time || peak_time >= block.died) continue;
    AddToRole(block, !block.backward && block.died > turn, &result);
    if (block.layer >= 0 && IsActivation(block)) by_layer[block.layer] += block.bytes;
  }
  for (const auto& [layer, bytes] : by_layer) {
    result.layers.push_back({trace.layers()[static_cast<size_t>(layer)], bytes});
  }
  std::stable_sort(result.layers.begin(), result.layers.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return result;
}

int64_t LargestFitting(const std::function<int64_t(int64_t)>& peak, int64_t budget, int64_t limit) {
  // Memory is nearly linear in the batch: aim at where the line meets the budget, and keep the
  // answer between a batch that fits and one that does not.
  int64_t fits = 0;
  int64_t fails = limit + 1;
  int64_t fits_peak = 0;
  int64_t fails_peak = 0;  // 0 = none has failed yet
  int64_t candidate = 1;
  while (fails - fits > 1) {
    const int64_t need = peak(candidate);
    if (need <= budget) {
      fits = candidate;
      fits_peak = need;
    } else {
      fails = candidate;
      fails_peak = need;
    }
    if (fails_peak == 0) {
      candidate = fits * 2;
    } else {
      const double slope =
          static_cast<double>(fails_peak - fits_peak) / static_cast<double>(fails - fits);
      candidate = fits + static_cast<int64_t>(static_cast<double>(budget - fits_peak) / slope);
    }
    candidate = std::max(fits + 1, std::min(candidate, fails - 1));
  }
  return fits;
}

}  // namespace kinefit
