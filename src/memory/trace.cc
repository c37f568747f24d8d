#include "memory/trace.h"

#include <mutex>

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

class TracingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) const override {
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

void MemoryTrace::SetLayer(const std::string& name) {
  if (layer_ >= 0 && layers_[layer_] == name) return;
  for (layer_ = 0; layer_ < static_cast<int>(layers_.size()); ++layer_) {
    if (layers_[layer_] == name) return;
  }
  layers_.push_back(name);
}

TracedBlock* MemoryTrace::Find(const c10::DataPtr& data) {
  const auto* ticket = static_cast<const Ticket*>(data.get_context());
  if (ticket == nullptr || data.get_deleter() != &Release || ticket->serial != serial_) {
    return nullptr;
  }
  return &blocks_[ticket->block];
}

int64_t MemoryTrace::Allocated(int64_t bytes) {
  blocks_.push_back({bytes, role_, layer_, ++clock_, TracedBlock::kAlive});
  current_ += bytes;
  if (current_ > peak_) {
    peak_ = current_;
    peak_time_ = clock_;
  }
  return static_cast<int64_t>(blocks_.size()) - 1;
}

void MemoryTrace::Released(int64_t block) {
  blocks_[block].died = ++clock_;
  current_ -= blocks_[block].bytes;
}

MemoryTrace* RecordingTrace() { return recording; }

}  // namespace kinefit
