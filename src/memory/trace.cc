#include "memory/trace.h"

#include <algorithm>
#include <mutex>

#include "libtorch/versions.h"
#include "ops/layer_scope.h"

namespace kinefit {
namespace {

std::mutex one_at_a_time;
MemoryTrace* recording = nullptr;
int64_t recording_serial = 0;

// What a meta storage carries instead of memory. `serial` names the trace, so that a block
// released after its trace ended is not charged to the next one.
struct Ticket {
  int64_t serial;
  int64_t block;
};

void Release(void* context) {
  auto* ticket = static_cast<Ticket*>(context);
  if (ticket == nullptr) return;
  if (recording != nullptr && recording_serial == ticket->serial)
    recording->Released(ticket->block);
  delete ticket;
}

class TracingAllocator final : public TensorAllocator {
  c10::DataPtr Allocate(size_t bytes) const override {
    const c10::Device meta(c10::DeviceType::Meta);
    if (recording == nullptr || bytes == 0) return {nullptr, nullptr, &Release, meta};
    auto* ticket = new Ticket{recording_serial, recording->Allocated(static_cast<int64_t>(bytes))};
    return {nullptr, ticket, &Release, meta};
  }
};

void InstallTracing() {
  static std::once_flag once;
  std::call_once(
      once, [] { c10::SetAllocator(c10::DeviceType::Meta, new TracingAllocator, /*priority=*/1); });
}

}  // namespace

MemoryTrace::MemoryTrace() {
  InstallTracing();
  one_at_a_time.lock();
  serial_ = ++recording_serial;
  recording = this;
  blocks_.reserve(1 << 14);
}

MemoryTrace::~MemoryTrace() { Stop(); }

void MemoryTrace::Stop() {
  if (!recording_) return;
  recording_ = false;
  recording = nullptr;
  one_at_a_time.unlock();
}

TracedBlock* MemoryTrace::Find(const c10::DataPtr& data) {
  const auto* ticket = static_cast<const Ticket*>(data.get_context());
  if (ticket == nullptr || data.get_deleter() != &Release || ticket->serial != serial_) {
    return nullptr;
  }
  return &blocks_[ticket->block];
}

int MemoryTrace::LayerOf(const std::string* name) {
  if (name == nullptr) return -1;
  const auto [entry, added] = layer_index_.try_emplace(*name, static_cast<int>(layers_.size()));
  if (added) layers_.push_back(*name);
  return entry->second;
}

int64_t MemoryTrace::Allocated(int64_t bytes) {
  blocks_.push_back({bytes, role_, LayerOf(LayerScope::Current()), LayerScope::InBackward(),
                     ++clock_, TracedBlock::kAlive});
  current_ += bytes;
  peak_ = std::max(peak_, current_);
  return static_cast<int64_t>(blocks_.size()) - 1;
}

void MemoryTrace::Released(int64_t block) {
  blocks_[block].died = ++clock_;
  current_ -= blocks_[block].bytes;
}

MemoryTrace* RecordingTrace() { return recording; }

}  // namespace kinefit
