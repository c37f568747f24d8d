#include "memory/accounting.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace kinefit {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
const bool kInstalled = (InstallAccounting(), true);

TEST(Accounting, CountsWhatIsAliveAndThePeak) {
  const int64_t before = CpuMemoryUse().current;
  {
    const at::Tensor a = at::empty({kMiB}, at::kByte);
    EXPECT_EQ(CpuMemoryUse().current, before + kMiB);
    ResetPeak();
    { const at::Tensor b = at::empty({2 * kMiB}, at::kByte); }
    EXPECT_EQ(CpuMemoryUse().current, before + kMiB);
    EXPECT_EQ(CpuMemoryUse().peak, before + 3 * kMiB);
    ResetPeak();
    EXPECT_EQ(CpuMemoryUse().peak, before + kMiB);
  }
  EXPECT_EQ(CpuMemoryUse().current, before);
}

TEST(Accounting, MemoryIsAlignedAndUsable) {
  std::vector<at::Tensor> tensors;
  for (const int64_t n : {0, 1, 63, 64, 65, 4097}) {
    tensors.push_back(at::full({n}, static_cast<double>(n % 7), at::kFloat));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensors.back().data_ptr()) % 64, 0);
  }
  for (const at::Tensor& t : tensors) {
    EXPECT_TRUE(t.eq(static_cast<double>(t.numel() % 7)).all().item<bool>());
  }
}

// oneDNN takes its blocked copies from the same allocator, without a tensor around them.
TEST(Accounting, SeesTheScratchOfConvolutions) {
  const at::Tensor x = at::rand({2, 16, 4, 32, 32});
  const at::Tensor w = at::rand({32, 16, 1, 3, 3});
  const int64_t before = CpuMemoryUse().current;
  ResetPeak();
  const at::Tensor y = at::conv3d(x, w, {}, {1, 1, 1}, {0, 1, 1});
  const auto dense = static_cast<int64_t>(y.nbytes());
  EXPECT_EQ(CpuMemoryUse().current, before + dense);
  EXPECT_GE(CpuMemoryUse().peak, before + 2 * dense);
}

TEST(Accounting, IsExactOverThreads) {
  const int64_t before = CpuMemoryUse().current;
  const int64_t allocations = CpuMemoryUse().allocations;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int64_t n = 1; n <= 2000; ++n) const at::Tensor t = at::empty({n}, at::kByte);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(CpuMemoryUse().current, before);
  EXPECT_EQ(CpuMemoryUse().allocations, allocations + 4 * 2000);
}

TEST(Accounting, TooLargeARequestIsAnErrorAndCountsNothing) {
  const int64_t before = CpuMemoryUse().current;
  EXPECT_THROW(at::empty({int64_t{1} << 50}, at::kByte), c10::Error);
  EXPECT_EQ(CpuMemoryUse().current, before);
}

}  // namespace
}  // namespace kinefit
