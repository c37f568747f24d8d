#include "ops/testing/cuda_on_cpu.h"

#include <ucontext.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <vector>

namespace kinefit::cuda {

dim3 blockIdx, threadIdx, gridDim, blockDim;

namespace {

constexpr size_t kStack = 64 << 10;
constexpr unsigned kWarp = 32;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(kStack);
  dim3 place;
  bool ended = false;
};

std::vector<double> shared_memory;
std::vector<Fiber> fibers;
size_t running = 0;
ucontext_t scheduler;
const std::function<void()>* thread_of_kernel = nullptr;
std::array<double, 1024> exchanged;

void FiberMain() {
  (*thread_of_kernel)();
  fibers[running].ended = true;
  swapcontext(&fibers[running].context, &scheduler);
}

// Every fiber to its next barrier, or its end, in turns.
void RunTogether(dim3 threads, const std::function<void()>& thread) {
  const size_t count = size_t{threads.x} * threads.y;
  while (fibers.size() < count) fibers.emplace_back();
  thread_of_kernel = &thread;
  for (size_t i = 0; i < count; ++i) {
    Fiber& fiber = fibers[i];
    fiber.place = dim3(static_cast<unsigned>(i) % threads.x, static_cast<unsigned>(i) / threads.x);
    fiber.ended = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, FiberMain, 0);
  }
  for (bool any = true; any;) {
    any = false;
    for (size_t i = 0; i < count; ++i) {
      if (fibers[i].ended) continue;
      any = true;
      running = i;
      threadIdx = fibers[i].place;
      swapcontext(&scheduler, &fibers[i].context);
    }
  }
}

void Wait() {
  const size_t own = running;
  swapcontext(&fibers[own].context, &scheduler);
  threadIdx = fibers[own].place;
}

}  // namespace

double* SharedMemory() { return shared_memory.data(); }

void __syncthreads() { Wait(); }  // NOLINT

double __shfl_xor_sync(unsigned /*mask*/, double value, int lanes) {  // NOLINT
  const size_t own = running;
  exchanged[own] = value;
  Wait();
  const double other = exchanged[own ^ static_cast<size_t>(lanes)];
  Wait();
  return other;
}

void RunBlocks(dim3 blocks, dim3 threads, size_t shared_bytes, bool together,
               const std::function<void()>& thread) {
  static_assert(kWarp == 32, "lanes are exchanged within a warp");
  shared_memory.assign(shared_bytes / sizeof(double) + 1, 1e300);
  gridDim = blocks;
  blockDim = threads;
  for (unsigned y = 0; y < blocks.y; ++y) {
    for (unsigned x = 0; x < blocks.x; ++x) {
      blockIdx = dim3(x, y);
      if (together) {
        RunTogether(threads, thread);
        continue;
      }
      for (unsigned v = 0; v < threads.y; ++v) {
        for (unsigned u = 0; u < threads.x; ++u) {
          threadIdx = dim3(u, v);
          thread();
        }
      }
    }
  }
}

}  // namespace kinefit::cuda
