#include "memory/accounting.h"

#include <c10/core/Allocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace kinefit {
namespace {

std::atomic<int64_t> current_bytes{0};
std::atomic<int64_t> peak_bytes{0};
std::atomic<int64_t> allocation_count{0};

void Count(int64_t bytes) {
  const int64_t now = current_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t peak = peak_bytes.load(std::memory_order_relaxed);
  while (now > peak && !peak_bytes.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
  allocation_count.fetch_add(1, std::memory_order_relaxed);
}

// A block's size stands in front of it. LibTorch wants the data pointer itself as the context of
// its DataPtr (oneDNN allocates raw), so there is no other place to keep it without a table.
struct alignas(64) Header {
  uint64_t magic;
  int64_t bytes;
};
constexpr uint64_t kMagic = 0x6b696e6566697421;  // "kinefit!"

void Release(void* data) {
  if (data == nullptr) return;
  Header* header = static_cast<Header*>(data) - 1;
  if (header->magic != kMagic) {
    std::fputs("kinefit: memory released that the accounting allocator never handed out\n", stderr);
    std::abort();
  }
  header->magic = 0;
  current_bytes.fetch_sub(header->bytes, std::memory_order_relaxed);
  c10::free_cpu(header);
}

class AccountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) const override {
    if (bytes == 0) return {nullptr, nullptr, &Release, c10::Device(c10::DeviceType::CPU)};
    Header* header = static_cast<Header*>(c10::alloc_cpu(bytes + sizeof(Header)));
    *header = {kMagic, static_cast<int64_t>(bytes)};
    Count(header->bytes);
    void* data = header + 1;
    return {data, data, &Release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Release; }
};

}  // namespace

void InstallAccounting() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Never deleted: LibTorch's own statics release memory after main has returned.
    c10::SetAllocator(c10::DeviceType::CPU, new AccountingAllocator, /*priority=*/1);
  });
}

MemoryUse CpuMemoryUse() {
  return {current_bytes.load(std::memory_order_relaxed), peak_bytes.load(std::memory_order_relaxed),
          allocation_count.load(std::memory_order_relaxed)};
}

void ResetPeak() {
  peak_bytes.store(current_bytes.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

}  // namespace kinefit
