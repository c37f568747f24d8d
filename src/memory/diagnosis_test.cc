#include "memory/diagnosis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "memory/testing/oom_invariants.h"
#include "memory/testing/oom_texts.h"
#include "random/stream.h"

namespace kinefit {
namespace {

int64_t Gib(double amount) { return std::llround(amount * 0x1p30); }
int64_t Mib(double amount) { return std::llround(amount * 0x1p20); }

Diagnosis Explain(const std::string& text) {
  const std::vector<OomMessage> found = FindOomMessages(text);
  EXPECT_EQ(found.size(), 1u) << text;
  return found.empty() ? Diagnosis() : Diagnose(found[0]);
}

int64_t ShareOf(const Diagnosis& d, Holder holder) {
  int64_t bytes = 0;
  for (const MemoryShare& share : d.shares) bytes += share.holder == holder ? share.bytes : 0;
  return bytes;
}

int64_t Sum(const Diagnosis& d) {
  int64_t sum = 0;
  for (const MemoryShare& share : d.shares) sum += share.bytes;
  return sum;
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

bool AnyContains(const std::vector<std::string>& texts, const std::string& part) {
  return std::any_of(texts.begin(), texts.end(),
                     [&](const std::string& text) { return Contains(text, part); });
}

// A list-form message, amounts in GiB but the request and the free memory in MiB.
std::string ListForm(double request, double total, double allocated, double free, double reserved) {
  char text[300];
  std::snprintf(text, sizeof text,
                "CUDA out of memory. Tried to allocate %.2f MiB (GPU 0; %.2f GiB total capacity; "
                "%.2f GiB already allocated; %.2f MiB free; %.2f GiB reserved in total by PyTorch)",
                request, total, allocated, free, reserved);
  return text;
}

// 39.39 - 22.45 - 0.01 = 16.9 GiB were not the live tensors.
TEST(Diagnose, FindsWhatTheTruncatedMessageHides) {
  const Diagnosis d = Explain(OomTexts()[3]);
  EXPECT_EQ(d.cause, OomCause::kNotOursOrCache);
  EXPECT_EQ(ShareOf(d, Holder::kTensors), Gib(22.45));
  EXPECT_EQ(ShareOf(d, Holder::kFree), Mib(8.12));
  EXPECT_EQ(ShareOf(d, Holder::kNotLive), Gib(39.39) - Gib(22.45) - Mib(8.12));
  EXPECT_EQ(Sum(d), Gib(39.39));
  EXPECT_EQ(d.available, Gib(22.45) + Mib(8.12));
  EXPECT_PRED2(Contains, d.why, "16.93 GiB are not live tensors");
  EXPECT_PRED2(Contains, d.why, "another process");
  EXPECT_PRED2(Contains, d.why, "\"reserved\" figure is missing");
  EXPECT_PRED2(Contains, d.why, "62.00 MiB failed only because of these 16.93 GiB");
  EXPECT_PRED2(Contains, d.why,
               "Lowering the batch (and the learning rate with it) treats the "
               "wrong cause");
  ASSERT_GE(d.advice.size(), 3u);
  EXPECT_PRED2(Contains, d.advice[0], "kinefit memory");
  EXPECT_PRED2(Contains, d.advice[1], "expandable_segments");
  EXPECT_PRED2(Contains, d.advice.back(), "--memory 39.39GiB --in-use 16.93GiB");
}

TEST(Diagnose, NamesTheOtherProcess) {
  const Diagnosis d = Explain(
      "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 39.39 GiB of "
      "which 8.12 MiB is free. Process 1234 has 16.90 GiB memory in use. Including non-PyTorch "
      "memory, this process has 22.46 GiB memory in use. Of the allocated memory 21.60 GiB is "
      "allocated by PyTorch, and 310.00 MiB is reserved by PyTorch but unallocated.");
  EXPECT_EQ(d.cause, OomCause::kNotOurs);
  EXPECT_EQ(ShareOf(d, Holder::kOtherProcess), Gib(16.90));
  EXPECT_EQ(ShareOf(d, Holder::kOwnOther), Gib(22.46) - Gib(21.60) - Mib(310));
  EXPECT_EQ(Sum(d), Gib(39.39));
  EXPECT_PRED2(Contains, d.why, "process 1234 (16.90 GiB)");
  EXPECT_PRED2(Contains, d.advice[0], "ps -o pid,user,etime,args -p 1234");
}

// Without a list of processes, what is neither PyTorch's nor free is others' or a context.
TEST(Diagnose, CountsWhatIsNotPyTorchs) {
  const Diagnosis d = Explain(ListForm(60, 11.17, 0.49, 12.50, 0.52));
  EXPECT_EQ(d.cause, OomCause::kNotOurs);
  EXPECT_EQ(ShareOf(d, Holder::kNotPyTorch), Gib(11.17) - Gib(0.52) - Mib(12.5));
  EXPECT_PRED2(Contains, d.why, "contexts");
}

TEST(Diagnose, TellsFragmentation) {
  const Diagnosis d = Explain(ListForm(2048, 14.76, 8.77, 19.75, 13.71));
  EXPECT_EQ(d.cause, OomCause::kFragmented);
  EXPECT_EQ(ShareOf(d, Holder::kCache), Gib(13.71) - Gib(8.77));
  EXPECT_PRED2(Contains, d.advice[0], "expandable_segments:True");
  EXPECT_PRED2(Contains, d.why, "in pieces between live tensors");
}

// 300 MiB of cache on a full GPU are not why it is full.
TEST(Diagnose, TellsAStepThatIsSimplyTooLarge) {
  const Diagnosis d = Explain(OomTexts()[1]);
  EXPECT_EQ(d.cause, OomCause::kTensors);
  EXPECT_FALSE(Contains(d.why, "wrong cause"));
  EXPECT_PRED2(Contains, d.advice[0], "kinefit plan");
  const Diagnosis large = Explain(ListForm(6000, 15.77, 11.0, 3500, 11.1));
  EXPECT_EQ(large.cause, OomCause::kTensors);
  EXPECT_PRED2(Contains, large.why, "more than the GPU could give");
  EXPECT_PRED2(Contains, large.why, "single tensor");
}

TEST(Diagnose, TellsARequestLargerThanTheGpu) {
  const Diagnosis d = Explain(
      "CUDA out of memory. Tried to allocate 55.57 GiB. GPU 0 has a total capacty of 12.00 GiB of "
      "which 9.02 GiB is free. Of the allocated memory 984.52 MiB is allocated by PyTorch, and "
      "463.48 MiB is reserved by PyTorch but unallocated.");
  EXPECT_EQ(d.cause, OomCause::kTooLarge);
  EXPECT_PRED2(Contains, d.why, "larger than all of GPU 0");
}

TEST(Diagnose, TellsALimitOfOnesOwnAndEnoughFreeMemory) {
  const Diagnosis limit = Explain(OomTexts()[7]);
  EXPECT_EQ(limit.cause, OomCause::kOwnLimit);
  EXPECT_EQ(limit.available, Gib(8.27));
  EXPECT_PRED2(Contains, limit.why, "8.27 GiB");
  const Diagnosis free = Explain(ListForm(20, 4.00, 0.81, 2406, 0.83));
  EXPECT_EQ(free.cause, OomCause::kFreeYetFailed);
  EXPECT_PRED2(AnyContains, free.advice, "page file");
  EXPECT_EQ(Explain(OomTexts()[8]).cause, OomCause::kFreeYetFailed);
  EXPECT_PRED2(Contains, Explain(OomTexts()[8]).why, "at most 4.00 GiB in one piece");
}

// In a container the list shows this process under a number it does not know.
TEST(Diagnose, RecognisesItselfInTheList) {
  const Diagnosis d = Explain(
      "CUDA out of memory. Tried to allocate 158.00 MiB. GPU 0 has a total capacity of 23.69 GiB "
      "of "
      "which 115.69 MiB is free. Process 21422 has 23.57 GiB memory in use. Of the allocated "
      "memory "
      "22.14 GiB is allocated by PyTorch, and 910.35 MiB is reserved by PyTorch but unallocated.");
  EXPECT_EQ(d.cause, OomCause::kTensors);
  EXPECT_EQ(ShareOf(d, Holder::kOtherProcess), 0);
  EXPECT_EQ(ShareOf(d, Holder::kOwnOther), Gib(23.57) - Gib(22.14) - Mib(910.35));
  EXPECT_PRED2(AnyContains, d.notes, "Process 21422 is this process itself");
  // With a true other one beside it.
  const Diagnosis two = Explain(
      "CUDA out of memory. Tried to allocate 270.00 MiB. GPU 0 has a total capacity of 21.67 GiB "
      "of "
      "which 255.75 MiB is free. Process 2109 has 10.34 GiB memory in use. Process 1448 has 11.07 "
      "GiB memory in use. Of the allocated memory 10.08 GiB is allocated by PyTorch, and 356.49 "
      "MiB "
      "is reserved by PyTorch but unallocated.");
  EXPECT_EQ(two.cause, OomCause::kNotOurs);
  EXPECT_EQ(ShareOf(two, Holder::kOtherProcess), Gib(10.34));
  EXPECT_PRED2(AnyContains, two.notes, "Process 1448 is this process itself");
}

// Windows lets a program allocate more than the GPU has.
TEST(Diagnose, SaysWhenTheDriverMovedMemoryToTheHost) {
  const Diagnosis d = Explain(
      "CUDA out of memory. Tried to allocate 1002.00 MiB. GPU 0 has a total capacity of 8.00 GiB "
      "of "
      "which 0 bytes is free. Of the allocated memory 13.98 GiB is allocated by PyTorch, and "
      "129.48 "
      "MiB is reserved by PyTorch but unallocated.");
  EXPECT_EQ(d.cause, OomCause::kTensors);
  EXPECT_EQ(ShareOf(d, Holder::kElsewhere), Gib(8) - Gib(13.98) - Mib(129.48));
  EXPECT_EQ(Sum(d), Gib(8));
  EXPECT_PRED2(Contains, d.why, "host memory");
}

TEST(Diagnose, KeepsGraphsApartFromTensors) {
  const Diagnosis d = Explain(
      "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 47.53 GiB of "
      "which 896.00 KiB is free. Including non-PyTorch memory, this process has 47.51 GiB memory "
      "in "
      "use. Of the allocated memory 47.00 GiB is allocated by PyTorch, with 46.22 GiB allocated in "
      "private pools (e.g., CUDA Graphs), and 149.10 MiB is reserved by PyTorch but unallocated.");
  EXPECT_EQ(ShareOf(d, Holder::kTensors), Gib(47.00) - Gib(46.22));
  EXPECT_EQ(ShareOf(d, Holder::kGraphs), Gib(46.22));
  EXPECT_PRED2(AnyContains, d.advice, "CUDA graphs keep");
}

TEST(Diagnose, NoticesContextsOfOtherRanks) {
  const Diagnosis d = Explain(
      "CUDA out of memory. Tried to allocate 572.00 MiB. GPU 0 has a total capacity of 39.49 GiB "
      "of "
      "which 321.31 MiB is free. Process 11 has 414.00 MiB memory in use. Process 12 has 414.00 "
      "MiB "
      "memory in use. Including non-PyTorch memory, this process has 38.20 GiB memory in use. Of "
      "the "
      "allocated memory 36.04 GiB is allocated by PyTorch, and 321.37 MiB is reserved by PyTorch "
      "but "
      "unallocated.");
  EXPECT_PRED2(AnyContains, d.notes, "set_device");
}

TEST(Diagnose, ConcludesNothingFromFiguresThatContradictEachOther) {
  const Diagnosis d = Explain(
      "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 8.00 GiB of "
      "which 1.00 MiB is free. Process 7 has 30.00 GiB memory in use. Including non-PyTorch "
      "memory, "
      "this process has 3.00 GiB memory in use. Of the allocated memory 2.00 GiB is allocated by "
      "PyTorch, and 0 bytes is reserved by PyTorch but unallocated.");
  EXPECT_EQ(d.cause, OomCause::kUnclear);
  EXPECT_TRUE(d.shares.empty());
  EXPECT_FALSE(d.available);
  EXPECT_PRED2(Contains, d.why, "contradict");
  EXPECT_PRED2(AnyContains, d.notes, "cannot all be true");
}

TEST(Diagnose, SaysWhatIsMissing) {
  const Diagnosis d = Explain("CUDA out of memory. Tried to allocate 2.87 GiB (GPU 0; 14.76 GiB");
  EXPECT_EQ(d.cause, OomCause::kUnclear);
  EXPECT_PRED2(Contains, d.why, "the allocated amount");
  EXPECT_PRED2(Contains, d.advice[0], "whole message");
}

TEST(Diagnose, ExplainsWhatIsNotTheGpu) {
  EXPECT_PRED2(Contains, Explain(OomTexts()[14]).headline, "cuBLAS");
  EXPECT_PRED2(Contains, Explain(OomTexts()[16]).why, "not the GPU's");
  const Diagnosis budget = Explain(OomTexts()[20]);
  EXPECT_EQ(budget.cause, OomCause::kBudget);
  EXPECT_EQ(Sum(budget), Gib(6));
  EXPECT_EQ(budget.available, Gib(6));
  const Diagnosis killed = Explain(OomTexts()[21]);
  EXPECT_EQ(killed.cause, OomCause::kHostMemory);
  EXPECT_PRED2(Contains, killed.why, "process 25315 (python3), which held 30.00 GiB");
  EXPECT_PRED2(Contains, Explain(OomTexts()[22]).advice[0], "docker run --memory");
  EXPECT_PRED2(Contains, Explain(OomTexts()[25]).why, "137 (128 + 9)");
  const Diagnosis shared = Explain(OomTexts()[28]);
  EXPECT_EQ(shared.cause, OomCause::kSharedMemory);
  EXPECT_PRED2(Contains, shared.advice[0], "--shm-size");
}

TEST(DiagnoseTogether, SeesRanksOnOneGpuAndDeathsThatFollow) {
  std::vector<Diagnosis> diagnoses;
  for (const OomMessage& m : FindOomMessages(
           "[rank0]: " + OomTexts()[1] + "\n[rank1]: " + OomTexts()[1] + "\n" + OomTexts()[27])) {
    diagnoses.push_back(Diagnose(m));
  }
  const std::vector<std::string> together = DiagnoseTogether(diagnoses);
  ASSERT_EQ(together.size(), 2u);
  EXPECT_PRED2(Contains, together[0], "Ranks 0, 1 all failed on GPU 0");
  EXPECT_PRED2(Contains, together[1], "SIGKILL");
  EXPECT_TRUE(DiagnoseTogether({Explain(OomTexts()[1])}).empty());
}

// Messages with bytes changed, cut, doubled and mixed: whatever comes out keeps the promises.
TEST(Diagnose, KeepsItsPromisesForDamagedMessages) {
  RandomStream random(11, "damaged messages");
  const auto pick = [&](size_t size) {
    return static_cast<size_t>(random.Integer(0, static_cast<int64_t>(size)));
  };
  const std::string bytes = "0123456789.-, ;()eGMKiB\n\r\x1b[:\xe2\x94\x80";
  size_t found = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = OomTexts()[pick(OomTexts().size())];
    if (random.Chance(0.3)) text += "\n" + OomTexts()[pick(OomTexts().size())];
    for (int64_t changes = random.Integer(0, 12); changes > 0 && !text.empty(); --changes) {
      const size_t at = pick(text.size());
      const int64_t how = random.Integer(0, 4);
      if (how == 0) text[at] = bytes[pick(bytes.size())];
      if (how == 1) text.insert(at, 1, bytes[pick(bytes.size())]);
      if (how == 2) text.erase(at, 1 + pick(20));
      if (how == 3) text.insert(at, text.substr(pick(text.size()), pick(40)));
    }
    for (const OomMessage& message : FindOomMessages(text)) {
      ++found;
      const std::string broken = BrokenPromise(Diagnose(message));
      ASSERT_EQ(broken, "") << text;
    }
  }
  EXPECT_GT(found, 10000u);
}

TEST(Diagnosis, NoSentenceThatTheFiguresDoNotBear) {
  const auto why = [](const std::string& text) {
    const std::vector<OomMessage> found = FindOomMessages(text);
    return found.size() == 1 ? Diagnose(found[0]).why : std::to_string(found.size()) + " found";
  };
  // 2 GiB more than 7.5 are 9.5 of 9.6: not more than there is.
  const std::string small = why(
      "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 9.60 GiB total capacity; 7.50 GiB "
      "already allocated; 1.70 GiB free; 7.60 GiB reserved in total by PyTorch)");
  EXPECT_EQ(small.find("more than the GPU could give"), std::string::npos) << small;
  EXPECT_EQ(small.find("more memory than there is"), std::string::npos) << small;
  // Under a tenth of the GPU, and yet ten times what was asked for.
  const std::string cache =
      why("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 10.00 GiB total capacity; 9.20 "
          "GiB already allocated; 5.00 MiB free; 9.60 GiB reserved in total by PyTorch)");
  EXPECT_NE(cache.find("hold no tensor"), std::string::npos) << cache;
}

TEST(Diagnosis, MoreWordings) {
  const auto kind = [](const std::string& text) {
    const std::vector<OomMessage> found = FindOomMessages(text);
    return found.size() == 1 ? static_cast<int>(found[0].kind) : -1;
  };
  const auto is = [](OomKind wanted) { return static_cast<int>(wanted); };
  EXPECT_EQ(kind("RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "
                 "\"../c10/cuda/CUDACachingAllocator.cpp\":838"),
            is(OomKind::kGpuBare));
  EXPECT_EQ(kind("RuntimeError: unable to mmap 9600 bytes from file </tmp/a>: Cannot allocate"),
            is(OomKind::kHostAllocation));
  EXPECT_EQ(kind("OSError: [Errno 12] Cannot allocate memory"), is(OomKind::kHostAllocation));
  EXPECT_EQ(kind("RuntimeError: GET was unable to find an engine to execute this computation"),
            is(OomKind::kGpuLibrary));
  EXPECT_EQ(kind("RuntimeError: Unable to find a valid cuDNN algorithm to run convolution"),
            is(OomKind::kGpuLibrary));
  EXPECT_EQ(kind("  File \"torch/utils/data/_utils/pin_memory.py\", line 57\n    return "
                 "data.pin_memory(device)\nRuntimeError: CUDA error: out of memory"),
            is(OomKind::kHostAllocation));
}

}  // namespace
}  // namespace kinefit
