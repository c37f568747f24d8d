// What the CPU allocator costs and saves against LibTorch's own, the two in turns in one run:
// allocations per second, and steps of a network whose tensors are as large as in training.
//
//   ninja -C build allocator_bench && OMP_WAIT_POLICY=passive build/bench/allocator_bench

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CPUAllocator.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "memory/cpu_allocator.h"

namespace {

using kinefit::CpuMemoryUse;

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int64_t MinorFaults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

void Use(c10::Allocator* allocator) {
  c10::SetAllocator(c10::DeviceType::CPU, allocator, /*priority=*/1);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void BenchPairs(c10::Allocator* ours, c10::Allocator* theirs) {
  std::printf("allocation and release, nanoseconds per pair; the memory itself is not touched\n");
  std::printf("%12s %12s %12s\n", "bytes", "LibTorch's", "kinefit's");
  for (const size_t bytes :
       {size_t{1} << 10, size_t{32} << 10, size_t{1} << 20, size_t{64} << 20}) {
    constexpr int kPairs = 20000;
    std::vector<double> times[2];
    for (int round = 0; round < 5; ++round) {
      for (int i = 0; i < 2; ++i) {
        c10::Allocator* allocator = i == 0 ? theirs : ours;
        times[i].push_back(Seconds([&] {
          for (int pair = 0; pair < kPairs; ++pair) allocator->allocate(bytes);
        }));
      }
    }
    std::printf("%12zu %12.0f %12.0f\n", bytes, Median(times[0]) / kPairs * 1e9,
                Median(times[1]) / kPairs * 1e9);
  }
}

// Convolution 64 -> 64, 1x3x3, batch norm and ReLU, `blocks` times, forward and backward.
class Blocks {
 public:
  Blocks(int blocks, int64_t batch) : input_(at::rand({batch, 64, 8, 56, 56})) {
    for (int i = 0; i < blocks; ++i) {
      layers_.push_back({at::rand({64, 64, 1, 3, 3}).mul_(0.05).requires_grad_(),
                         at::ones({64}).requires_grad_(), at::zeros({64}).requires_grad_(),
                         at::zeros({64}), at::ones({64})});
    }
  }

  void Step() {
    at::Tensor x = input_;
    for (Layer& layer : layers_) {
      x = at::conv3d(x, layer.weight, {}, {1, 1, 1}, {0, 1, 1});
      x = at::relu(at::batch_norm(x, layer.gamma, layer.beta, layer.mean, layer.variance, true, 0.1,
                                  1e-5, false));
    }
    x.mean().backward();
    for (Layer& layer : layers_) {
      for (at::Tensor* tensor : {&layer.weight, &layer.gamma, &layer.beta}) {
        tensor->mutable_grad().reset();
      }
    }
  }

 private:
  struct Layer {
    at::Tensor weight, gamma, beta, mean, variance;
  };
  at::Tensor input_;
  std::vector<Layer> layers_;
};

void BenchSteps(c10::Allocator* ours, c10::Allocator* theirs, int64_t batch, int rounds) {
  Use(ours);
  Blocks network(8, batch);
  std::vector<double> seconds[2];
  std::vector<double> faults[2];
  for (int round = 0; round <= rounds; ++round) {
    for (int i = 0; i < 2; ++i) {
      Use(i == 0 ? theirs : ours);
      const int64_t before = MinorFaults();
      const double time = Seconds([&] { network.Step(); });
      if (round == 0) continue;  // warms up: kernels are compiled, the cache is filled
      seconds[i].push_back(time);
      faults[i].push_back(static_cast<double>(MinorFaults() - before));
    }
  }
  const double tensor = static_cast<double>(batch) * 64 * 8 * 56 * 56 * 4 / 1e6;
  std::printf("%6lld %8.0f MB %10.2f s %10.2f s %8.2fx %12.0f %12.0f\n",
              static_cast<long long>(batch), tensor, Median(seconds[0]), Median(seconds[1]),
              Median(seconds[0]) / Median(seconds[1]), Median(faults[0]), Median(faults[1]));
  Use(ours);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  if (rounds < 1) {
    std::fputs("usage: allocator_bench [ROUNDS]\n", stderr);
    return 2;
  }
  kinefit::InstallCpuAllocator();
  c10::Allocator* ours = c10::GetAllocator(c10::DeviceType::CPU);
  c10::Allocator* theirs = c10::GetDefaultCPUAllocator();
  BenchPairs(ours, theirs);
  std::printf(
      "\neight blocks of convolution, batch norm and ReLU, forward and backward; medians of %d "
      "steps each, in turns\n",
      rounds);
  std::printf("%6s %11s %12s %12s %9s %12s %12s\n", "batch", "tensors", "LibTorch's", "kinefit's",
              "faster", "its faults", "our faults");
  for (const int64_t batch : {4, 10}) BenchSteps(ours, theirs, batch, rounds);
  std::printf("\npeak of kinefit's: %.2f GiB asked for, %.2f GiB held\n",
              static_cast<double>(CpuMemoryUse().peak) / 0x1p30,
              static_cast<double>(CpuMemoryUse().held) / 0x1p30);
  return 0;
}
