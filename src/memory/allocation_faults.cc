#include "memory/allocation_faults.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "files/error.h"

namespace kinefit {
namespace {

std::atomic<bool> armed{false};
std::mutex mutex;  // guards everything below

AllocationFault fault;
std::thread::id fault_thread;
int64_t counted = 0;  // allocations since the fault was injected
int64_t refused = 0;
std::vector<int64_t> listed;  // which of them to refuse, ascending; empty: as `fault` says

void Arm(const AllocationFault& next, std::vector<int64_t> list) {
  const std::lock_guard<std::mutex> lock(mutex);
  fault = next;
  fault_thread = std::this_thread::get_id();
  counted = 0;
  refused = 0;
  listed = std::move(list);
  armed.store(true, std::memory_order_relaxed);
}

bool IsDue() {
  if (!listed.empty()) return std::binary_search(listed.begin(), listed.end(), counted);
  if (counted < fault.after) return false;
  return fault.every > 0 ? (counted - fault.after) % fault.every == 0 : counted == fault.after;
}

bool IsLast() { return listed.empty() ? fault.every <= 0 : counted >= listed.back(); }

}  // namespace

void InjectAllocationFault(const AllocationFault& next) { Arm(next, {}); }

void FailAllocationAfter(int64_t n) {
  AllocationFault next;
  next.after = n;
  InjectAllocationFault(next);
}

int64_t StopAllocationFaults() {
  const std::lock_guard<std::mutex> lock(mutex);
  armed.store(false, std::memory_order_relaxed);
  return refused;
}

void InjectAllocationFaults(const char* list) {
  if (list == nullptr || *list == 0) return;
  std::vector<int64_t> numbers;
  for (const char* at = list;;) {
    char* end = nullptr;
    const int64_t number = std::strtoll(at, &end, 10);
    if (end == at || number < 1 || (*end != 0 && *end != ',')) {
      throw Error("\"" + std::string(list) + "\" is no list of allocations",
                  "KINEFIT_FAIL_ALLOCATIONS", "write their numbers, for example \"17,4000\"");
    }
    numbers.push_back(number);
    if (*end == 0) break;
    at = end + 1;
  }
  std::sort(numbers.begin(), numbers.end());
  Arm({}, std::move(numbers));
}

bool AllocationMustFail(size_t bytes) {
  if (!armed.load(std::memory_order_relaxed)) return false;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!armed.load(std::memory_order_relaxed)) return false;
  if (static_cast<int64_t>(bytes) < fault.min_bytes) return false;
  if (fault.this_thread_only && std::this_thread::get_id() != fault_thread) return false;
  ++counted;
  if (!IsDue()) return false;
  ++refused;
  if (IsLast()) armed.store(false, std::memory_order_relaxed);
  return true;
}

}  // namespace kinefit
