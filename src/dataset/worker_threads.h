#pragma once

#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace kinefit {

// Adds `count` threads that run `work`; fewer where the system starts no more (ulimit -u, a control
// group's limit). Returns how many were started.
int64_t StartThreads(int64_t count, const std::function<void()>& work,
                     std::vector<std::thread>* threads);

}  // namespace kinefit
