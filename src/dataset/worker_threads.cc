#include "dataset/worker_threads.h"

#include <system_error>

namespace kinefit {

int64_t StartThreads(int64_t count, const std::function<void()>& work,
                     std::vector<std::thread>* threads) {
  if (count < 1) return 0;
  threads->reserve(threads->size() + static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    try {
      threads->emplace_back(work);
    } catch (const std::system_error&) {
      return i;
    }
  }
  return count;
}

}  // namespace kinefit
