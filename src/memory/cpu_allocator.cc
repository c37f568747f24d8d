#include "memory/cpu_allocator.h"

#include <c10/util/Exception.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <string>

#include "libtorch/versions.h"
#include "memory/allocation_faults.h"
#include "memory/block_cache.h"

namespace kinefit {
namespace {

constexpr size_t kCachedFrom = size_t{64} << 10;
constexpr uint64_t kSmall = 0x6b696e6566697421;     // "kinefit!": from malloc
constexpr uint64_t kLarge = 0x6b696e6566697432;     // from the cache
constexpr uint64_t kReserved = 0x6b696e6566697433;  // from malloc, counted in the reserve

std::atomic<int64_t> current_bytes{0};
std::atomic<int64_t> peak_bytes{0};
std::atomic<int64_t> allocation_count{0};
std::atomic<int64_t> budget_bytes{0};
std::atomic<int64_t> reserved_bytes{0};  // part of current_bytes that reserves still hold
thread_local int uses_of_reserve = 0;

// Never deleted: LibTorch's own statics release memory after main has returned.
BlockCache& Cache() {
  static auto* const cache = new BlockCache;
  return *cache;
}

std::string Amount(int64_t bytes) {
  constexpr std::array<const char*, 4> kUnits = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.2f %s", value, kUnits[unit]);
  return bytes < 1024 ? std::to_string(bytes) + " B" : text.data();
}

[[noreturn]] void ThrowOutOfMemory(size_t bytes, const char* why) {
  const int64_t budget = budget_bytes.load(std::memory_order_relaxed);
  std::string text =
      "out of memory: tried to allocate " +
      Amount(static_cast<int64_t>(std::min<size_t>(bytes, std::numeric_limits<int64_t>::max()))) +
      "; " + Amount(current_bytes.load(std::memory_order_relaxed));
  if (budget > 0) text += " of the budget of " + Amount(budget);
  // No backtrace: making one takes milliseconds and memory.
  throw c10::OutOfMemoryError(text + " are in use" + why, /*backtrace=*/{});
}

// Adds to what is alive unless the budget forbids it. Returns what is alive then, -1 if forbidden.
int64_t Reserve(int64_t bytes) {
  const int64_t budget = budget_bytes.load(std::memory_order_relaxed);
  if (budget == 0) return current_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t now = current_bytes.load(std::memory_order_relaxed);
  do {
    if (bytes > budget - now) return -1;
  } while (!current_bytes.compare_exchange_weak(now, now + bytes, std::memory_order_relaxed));
  return now + bytes;
}

void Unreserve(int64_t bytes) { current_bytes.fetch_sub(bytes, std::memory_order_relaxed); }

void CountGranted(int64_t now) {
  int64_t peak = peak_bytes.load(std::memory_order_relaxed);
  while (now > peak && !peak_bytes.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
  allocation_count.fetch_add(1, std::memory_order_relaxed);
}

// From malloc, aligned by hand: glibc's aligned_alloc does without its per-thread lists.
Block* TakeSmall(size_t bytes) {
  const size_t size = bytes + 2 * sizeof(Block);
  void* origin = std::malloc(size);
  if (origin == nullptr) {
    Cache().Release();
    origin = std::malloc(size);
    if (origin == nullptr) return nullptr;
  }
  const auto at = reinterpret_cast<uintptr_t>(origin);
  const uintptr_t padding = (sizeof(Block) - at % sizeof(Block)) % sizeof(Block);
  auto* block = reinterpret_cast<Block*>(static_cast<char*>(origin) + padding);
  block->magic = kSmall;
  block->origin = origin;
  return block;
}

Block* TakeLarge(size_t bytes) {
  const auto budget = static_cast<size_t>(budget_bytes.load(std::memory_order_relaxed));
  Block* block = Cache().Take(bytes, budget);
  if (block != nullptr) block->magic = kLarge;
  return block;
}

void Release(void* data) {
  if (data == nullptr) return;
  Block* block = static_cast<Block*>(data) - 1;
  const uint64_t magic = block->magic;
  if (magic != kSmall && magic != kLarge && magic != kReserved) {
    std::fputs("kinefit: memory released that its allocator never handed out\n", stderr);
    std::abort();
  }
  const int64_t bytes = block->requested;
  block->magic = 0;
  if (magic == kLarge) {
    Cache().Give(block);
  } else {
    std::free(block->origin);
  }
  if (magic == kReserved) {
    reserved_bytes.fetch_add(bytes, std::memory_order_relaxed);
    return;
  }
  Unreserve(bytes);  // last: what is alive never looks less than it is
}

// Out of the reserve; null if it has not as much left.
void* TakeReserved(size_t bytes) {
  const auto counted = static_cast<int64_t>(bytes);
  int64_t left = reserved_bytes.load(std::memory_order_relaxed);
  do {
    if (counted > left) return nullptr;
  } while (!reserved_bytes.compare_exchange_weak(left, left - counted, std::memory_order_relaxed));
  Block* block = TakeSmall(bytes);
  if (block == nullptr) {
    reserved_bytes.fetch_add(counted, std::memory_order_relaxed);
    return nullptr;
  }
  block->magic = kReserved;
  block->requested = counted;
  allocation_count.fetch_add(1, std::memory_order_relaxed);
  return block->data();
}

void* Take(size_t bytes) {
  if (uses_of_reserve > 0 && bytes < kCachedFrom) {
    if (void* data = TakeReserved(bytes)) return data;
  }
  if (AllocationMustFail(bytes)) ThrowOutOfMemory(bytes, " (made to fail by a test)");
  if (bytes > size_t{1} << 60) ThrowOutOfMemory(bytes, "");
  const auto counted = static_cast<int64_t>(bytes);
  const int64_t now = Reserve(counted);
  if (now < 0) ThrowOutOfMemory(bytes, "");
  Block* block = bytes < kCachedFrom ? TakeSmall(bytes) : TakeLarge(bytes);
  if (block == nullptr) {
    Unreserve(counted);
    ThrowOutOfMemory(bytes, ", and the system gives no more");
  }
  block->requested = counted;
  CountGranted(now);
  return block->data();
}

class CpuAllocator final : public TensorAllocator {
 public:
  c10::DeleterFnPtr raw_deleter() const override { return &Release; }

 protected:
  c10::DataPtr Allocate(size_t bytes) const override {
    void* data = bytes == 0 ? nullptr : Take(bytes);
    return {data, data, &Release, c10::Device(c10::DeviceType::CPU)};
  }
};

}  // namespace

void InstallCpuAllocator() {
  static std::once_flag once;
  std::call_once(once, [] {
    c10::SetAllocator(c10::DeviceType::CPU, new CpuAllocator, /*priority=*/1);
    InjectAllocationFaults(std::getenv("KINEFIT_FAIL_ALLOCATIONS"));
  });
}

MemoryUse CpuMemoryUse() {
  return {current_bytes.load(std::memory_order_relaxed), peak_bytes.load(std::memory_order_relaxed),
          allocation_count.load(std::memory_order_relaxed), static_cast<int64_t>(Cache().held())};
}

void ResetPeak() {
  peak_bytes.store(current_bytes.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

void SetMemoryBudget(int64_t bytes) { budget_bytes.store(bytes, std::memory_order_relaxed); }

int64_t MemoryBudget() { return budget_bytes.load(std::memory_order_relaxed); }

void ReleaseCache() { Cache().Release(); }

AllocationReserve::AllocationReserve(int64_t bytes) : bytes_(bytes) {
  const int64_t now = Reserve(bytes);
  if (now < 0) ThrowOutOfMemory(static_cast<size_t>(bytes), "");
  CountGranted(now);
  reserved_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

AllocationReserve::~AllocationReserve() {
  reserved_bytes.fetch_sub(bytes_, std::memory_order_relaxed);
  Unreserve(bytes_);
}

AllocationReserve::Use::Use() { ++uses_of_reserve; }
AllocationReserve::Use::~Use() { --uses_of_reserve; }

}  // namespace kinefit
