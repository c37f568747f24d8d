#include "memory/allocation_faults.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <optional>
#include <thread>
#include <vector>

#include "files/error.h"
#include "memory/cpu_allocator.h"

namespace kinefit {
namespace {

const bool kInstalled = (InstallCpuAllocator(), true);

// Which of `count` allocations of `bytes` each are refused.
std::vector<int> Refused(int count, int64_t bytes) {
  std::vector<int> refused;
  for (int i = 1; i <= count; ++i) {
    try {
      at::empty({bytes}, at::kByte);
    } catch (const c10::OutOfMemoryError&) {
      refused.push_back(i);
    }
  }
  return refused;
}

TEST(AllocationFaults, RefuseTheChosenAllocations) {
  FailAllocationAfter(3);
  EXPECT_EQ(Refused(9, 100), std::vector<int>({3}));
  EXPECT_EQ(StopAllocationFaults(), 1);

  AllocationFault fault;
  fault.after = 2;
  fault.every = 3;
  InjectAllocationFault(fault);
  EXPECT_EQ(Refused(9, 100000), std::vector<int>({2, 5, 8}));
  EXPECT_EQ(StopAllocationFaults(), 3);
  EXPECT_EQ(Refused(9, 100), std::vector<int>());

  InjectAllocationFaults("4,2,9");
  EXPECT_EQ(Refused(12, 100), std::vector<int>({2, 4, 9}));
  EXPECT_EQ(StopAllocationFaults(), 3);
}

TEST(AllocationFaults, CountOnlyTheSizesAndTheThreadAskedFor) {
  AllocationFault fault;
  fault.after = 2;
  fault.min_bytes = 1000;
  InjectAllocationFault(fault);
  EXPECT_EQ(Refused(5, 999), std::vector<int>());
  EXPECT_EQ(Refused(5, 1000), std::vector<int>({2}));

  fault.min_bytes = 0;
  fault.this_thread_only = true;
  InjectAllocationFault(fault);
  std::thread([] { EXPECT_EQ(Refused(5, 100), std::vector<int>()); }).join();
  EXPECT_EQ(Refused(5, 100), std::vector<int>({2}));
}

TEST(AllocationFaults, AListThatIsNoneIsAnError) {
  InjectAllocationFaults(nullptr);
  InjectAllocationFaults("");
  for (const char* list : {"x", "0", "-1", "3,", ",3", "3;4", "3,,4"}) {
    EXPECT_THROW(InjectAllocationFaults(list), Error) << list;
  }
  EXPECT_EQ(Refused(5, 100), std::vector<int>());
}

// A network of the operations that kinefit's networks are made of, and its optimizer.
struct Net {
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> momentum;
  at::Tensor mean;
  at::Tensor variance;

  Net() {
    at::manual_seed(7);
    weights = {
        at::randn({8, 3, 1, 3, 3}), at::ones({8}),     at::zeros({8}), at::randn({8, 8, 3, 1, 1}),
        at::randn({8, 4, 3, 1, 1}), at::randn({5, 4}), at::randn({5})};
    for (at::Tensor& weight : weights) weight.requires_grad_();
    mean = at::zeros({8});
    variance = at::ones({8});
  }

  at::Tensor Forward(const at::Tensor& input) {
    at::Tensor x = at::conv3d(input, weights[0], {}, {1, 2, 2}, {0, 1, 1});
    x = at::batch_norm(x, weights[1], weights[2], mean, variance, true, 0.1, 1e-5, false);
    x = at::max_pool3d(at::relu(x), {1, 3, 3}, {1, 2, 2}, {0, 1, 1});
    x = x + at::relu(at::conv3d(x, weights[3], {}, {1, 1, 1}, {1, 0, 0}));
    x = at::conv_transpose3d(x, weights[4], {}, {2, 1, 1}, {1, 0, 0}, {1, 0, 0});
    x = at::dropout(at::adaptive_avg_pool3d(x, {1, 1, 1}).flatten(1), 0.5, true);
    return at::linear(x, weights[5], weights[6]);
  }

  void Step() {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < weights.size(); ++i) {
      const at::Tensor gradient = weights[i].grad().add(weights[i], 1e-4);
      if (momentum.size() <= i) {
        momentum.push_back(gradient.clone());
      } else {
        momentum[i].mul_(0.9).add_(gradient);
      }
      weights[i].sub_(momentum[i], 0.01);
      weights[i].mutable_grad().reset();
    }
  }
};

// Everything from fresh weights to those after two steps, flattened. Tensors of a few hundred KiB,
// so that both kinds of blocks occur and operations use all threads.
at::Tensor TrainTwoSteps() {
  Net net;
  const at::Tensor input = at::randn({4, 3, 4, 48, 48});
  const at::Tensor labels = at::randint(5, {4}, at::kLong);
  for (int step = 0; step < 2; ++step) {
    at::cross_entropy_loss(net.Forward(input), labels).backward();
    net.Step();
  }
  std::vector<at::Tensor> flat = {net.mean, net.variance};
  for (const at::Tensor& weight : net.weights) flat.push_back(weight.detach().flatten());
  return at::cat(flat);
}

// The promise recovery rests on: wherever in a step memory runs out, the caller gets the error and
// nothing else happens.
TEST(AllocationFaults, EveryAllocationOfAStepMayFail) {
  at::set_num_threads(2);
  const at::Tensor expected = TrainTwoSteps();
  const int64_t before = CpuMemoryUse().current;
  int64_t failures = 0;
  for (int64_t n = 1;; ++n) {
    FailAllocationAfter(n);
    std::optional<at::Tensor> result;
    try {
      result = TrainTwoSteps();
    } catch (const c10::OutOfMemoryError& error) {
      ++failures;
      ASSERT_NE(std::string(error.what()).find("out of memory: tried"), std::string::npos);
    }
    const int64_t injected = StopAllocationFaults();
    if (result.has_value()) {
      EXPECT_EQ(injected, 0) << "allocation " << n << " failed and nobody was told";
      EXPECT_TRUE(result->equal(expected));
      if (injected == 0) break;
    }
    result.reset();
    ASSERT_EQ(CpuMemoryUse().current, before) << "after allocation " << n << " failed";
    if (n % 10 == 0) {
      ASSERT_TRUE(TrainTwoSteps().equal(expected)) << "after failure " << n;
    }
  }
  EXPECT_GT(failures, 150);
  EXPECT_TRUE(TrainTwoSteps().equal(expected));
  RecordProperty("failures", static_cast<int>(failures));
}

}  // namespace
}  // namespace kinefit
