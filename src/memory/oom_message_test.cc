#include "memory/oom_message.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "memory/testing/oom_texts.h"

namespace kinefit {
namespace {

constexpr int64_t kKib = int64_t{1} << 10;
constexpr int64_t kMib = int64_t{1} << 20;

// "22.45 GiB" as the parser must read it: to the byte, rounded.
int64_t Gib(double amount) { return std::llround(amount * 0x1p30); }
int64_t Mib(double amount) { return std::llround(amount * 0x1p20); }

OomMessage Only(const std::string& text) {
  const std::vector<OomMessage> found = FindOomMessages(text);
  EXPECT_EQ(found.size(), 1u) << text;
  return found.empty() ? OomMessage() : found[0];
}

TEST(FindOomMessages, ReadsTheListForm) {
  const OomMessage m = Only(OomTexts()[1]);
  EXPECT_EQ(m.kind, OomKind::kGpu);
  EXPECT_EQ(m.source, "CUDA");
  EXPECT_EQ(m.gpu, 0);
  EXPECT_EQ(m.requested, 20 * kMib);
  EXPECT_EQ(m.capacity, Gib(11.17));
  EXPECT_EQ(m.allocated, Gib(10.40));
  EXPECT_EQ(m.free, Mib(19.25));
  EXPECT_EQ(m.unused, Gib(10.70) - Gib(10.40));
  EXPECT_FALSE(m.process || m.allowed || m.graphs || m.rank);
  EXPECT_TRUE(m.others.empty());
  EXPECT_TRUE(m.doubts.empty());
}

TEST(FindOomMessages, CachedWasOnceWhatIsNotInTensors) {
  const OomMessage m = Only(OomTexts()[0]);
  EXPECT_EQ(m.requested, 1024 * kKib);
  EXPECT_EQ(m.free, 576 * kKib);
  EXPECT_EQ(m.unused, Mib(30.96));
}

TEST(FindOomMessages, ReadsWhatIsCutOff) {
  const OomMessage m = Only(OomTexts()[3]);
  EXPECT_EQ(m.gpu, 1);
  EXPECT_EQ(m.requested, 62 * kMib);
  EXPECT_EQ(m.free, Mib(8.12));
  EXPECT_FALSE(m.unused);
  const OomMessage cut = Only(
      "RuntimeError: CUDA out of memory. Tried to allocate 2.87 GiB (GPU 0; 14.76 GiB total "
      "capacity; 11.88 GiB already alloc");
  EXPECT_EQ(cut.capacity, Gib(14.76));
  EXPECT_FALSE(cut.allocated);
  const OomMessage bare = Only("RuntimeError: CUDA out of memory.");
  EXPECT_EQ(bare.kind, OomKind::kGpuBare);
}

TEST(FindOomMessages, ReadsTheSentenceForm) {
  const OomMessage m = Only(OomTexts()[4]);
  EXPECT_EQ(m.requested, 138 * kMib);
  EXPECT_EQ(m.capacity, Gib(15.90));
  EXPECT_EQ(m.free, Mib(8.44));
  EXPECT_EQ(m.allocated, Gib(14.12));
  EXPECT_EQ(m.unused, Mib(410.41));
  EXPECT_EQ(m.process, Gib(15.32));
  ASSERT_EQ(m.others.size(), 1u);
  EXPECT_EQ(m.others[0].pid, 1246);
  EXPECT_EQ(m.others[0].bytes, 577 * kMib);
}

TEST(FindOomMessages, ReadsProcessesInAnyOrderAndGraphs) {
  const OomMessage m = Only(
      "CUDA out of memory. Tried to allocate 572.00 MiB. GPU 0 has a total capacity of 39.49 GiB "
      "of "
      "which 321.31 MiB is free. Process 3721 has 414.00 MiB memory in use. Including non-PyTorch "
      "memory, this process has 37.46 GiB memory in use. Process 1374 has 1.50 GiB memory in use. "
      "Of "
      "the allocated memory 36.04 GiB is allocated by PyTorch, and 321.37 MiB is reserved by "
      "PyTorch "
      "but unallocated.");
  EXPECT_EQ(m.process, Gib(37.46));
  ASSERT_EQ(m.others.size(), 2u);
  EXPECT_EQ(m.others[0].bytes, 414 * kMib);
  EXPECT_EQ(m.others[1].pid, 1374);
  EXPECT_EQ(m.others[1].bytes, Gib(1.5));
  const OomMessage graphs = Only(OomTexts()[5]);
  EXPECT_EQ(graphs.gpu, 3);
  EXPECT_EQ(graphs.allocated, Gib(72.36));
  EXPECT_EQ(graphs.graphs, 436 * kMib);
  EXPECT_EQ(graphs.unused, Gib(6.10));
}

TEST(FindOomMessages, KnowsOtherMakesOfGpu) {
  EXPECT_EQ(Only(OomTexts()[6]).source, "HIP");
  EXPECT_EQ(Only(OomTexts()[6]).allocated, 0);
  const OomMessage xpu = Only(OomTexts()[7]);
  EXPECT_EQ(xpu.source, "XPU");
  EXPECT_EQ(xpu.allowed, Gib(8.27));
  const OomMessage block = Only(OomTexts()[8]);
  EXPECT_EQ(block.largest, Gib(4));
  EXPECT_FALSE(block.free);
  const OomMessage mps = Only(OomTexts()[9]);
  EXPECT_EQ(mps.source, "MPS");
  EXPECT_EQ(mps.capacity, Gib(6.80));
  EXPECT_EQ(mps.process, Gib(5.56) + Gib(1.10));
  EXPECT_EQ(mps.requested, 768 * kMib);
}

TEST(FindOomMessages, RecognisesEveryForm) {
  const std::vector<OomKind> kinds = {OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpu,
                                      OomKind::kGpuBare,
                                      OomKind::kGpuBare,
                                      OomKind::kGpuBare,
                                      OomKind::kGpuLibrary,
                                      OomKind::kGpuLibrary,
                                      OomKind::kHostAllocation,
                                      OomKind::kHostAllocation,
                                      OomKind::kHostAllocation,
                                      OomKind::kHostAllocation,
                                      OomKind::kBudget,
                                      OomKind::kHostKilled,
                                      OomKind::kHostKilled,
                                      OomKind::kHostKilled,
                                      OomKind::kHostKilled,
                                      OomKind::kKilled,
                                      OomKind::kKilled,
                                      OomKind::kKilled,
                                      OomKind::kSharedMemory,
                                      OomKind::kKilled,
                                      OomKind::kWorkerEnded,
                                      OomKind::kHostAllocation,
                                      OomKind::kSharedMemory};
  ASSERT_EQ(kinds.size(), OomTexts().size());
  for (size_t i = 0; i < kinds.size(); ++i) EXPECT_EQ(Only(OomTexts()[i]).kind, kinds[i]) << i;
}

TEST(FindOomMessages, ReadsTheHostsFigures) {
  EXPECT_EQ(Only(OomTexts()[16]).requested, 123456);
  EXPECT_EQ(Only(OomTexts()[17]).requested, 1981808640);
  EXPECT_EQ(Only(OomTexts()[18]).requested, Gib(1.5));
  const OomMessage budget = Only(OomTexts()[20]);
  EXPECT_EQ(budget.requested, 62 * kMib);
  EXPECT_EQ(budget.allocated, Gib(5.90));
  EXPECT_EQ(budget.capacity, Gib(6));
  const OomMessage refused = Only(OomTexts()[31]);
  EXPECT_EQ(refused.requested, 512);
  EXPECT_EQ(refused.allocated, 34 * kMib);
  const OomMessage killed = Only(OomTexts()[21]);
  EXPECT_EQ(killed.pid, 25315);
  EXPECT_EQ(killed.program, "python3");
  EXPECT_EQ(killed.memory, Gib(30));
  EXPECT_FALSE(killed.container_limit);
  EXPECT_TRUE(Only(OomTexts()[22]).container_limit);
  EXPECT_EQ(Only(OomTexts()[29]).program, "DataLoader worker");
  EXPECT_EQ(Only(OomTexts()[29]).pid, 46794);
}

// What must not be taken for a message.
TEST(FindOomMessages, IgnoresWhatOnlySoundsLikeIt) {
  for (const char* text :
       {"", "\n\n", "all went well", "I tried to allocate a seat.", "loss 137.5 code 1370",
        "If you encounter CUDA out of memory, set --tile with a smaller number. This line is long "
        "enough that it is clear it was not pasted on its own, but is a hint that some program "
        "printed among many others, and it goes on for a while, as such hints do in logs, because "
        "their authors mean well.",
        "step 137 loss 0.2", "the whole team killed it", "exit code 1", "returned 1379"}) {
    EXPECT_TRUE(FindOomMessages(text).empty()) << text;
  }
}

// The same message as terminals, launchers and mails deliver it.
TEST(FindOomMessages, SeesThroughWrappingColoursAndPrefixes) {
  const OomMessage plain = Only(OomTexts()[4]);
  std::string wrapped;  // every 40 columns, in the middle of words and numbers
  std::string prefixed;
  std::string colored = "\x1b[31m";
  std::string quoted = "> ";
  for (size_t i = 0; i < OomTexts()[4].size(); ++i) {
    const char c = OomTexts()[4][i];
    if (i > 0 && i % 40 == 0) {
      wrapped += "\r\n";
      prefixed += "\n[rank1]:   ";
      quoted += "\n> > ";
    }
    if (i % 30 == 0) colored += "\x1b[1;33m";
    wrapped += c;
    prefixed += c;
    colored += c;
    quoted += c;
  }
  const std::string traceback =
      "[rank1]: Traceback (most recent call last):\n[rank1]:   File \"train.py\", line 3\n";
  for (const std::string& text : {wrapped, traceback + "[rank1]: " + prefixed, colored, quoted}) {
    const OomMessage m = Only(text);
    EXPECT_EQ(m.requested, plain.requested) << text;
    EXPECT_EQ(m.capacity, plain.capacity);
    EXPECT_EQ(m.free, plain.free);
    EXPECT_EQ(m.allocated, plain.allocated);
    EXPECT_EQ(m.unused, plain.unused);
    EXPECT_EQ(m.process, plain.process);
    EXPECT_EQ(m.others.size(), 1u);
  }
  EXPECT_EQ(Only(traceback + "[rank1]: " + prefixed).rank, 1);
  EXPECT_EQ(Only(traceback + "[rank1]: " + prefixed).line, 3);
  EXPECT_EQ(Only("[default12]:" + OomTexts()[1]).rank, 12);
  EXPECT_EQ(Only("[1,7]<stderr>: " + OomTexts()[1]).rank, 7);
  EXPECT_EQ(Only("(Worker pid=77, ip=10.0.0.1) " + OomTexts()[1]).requested, 20 * kMib);
}

TEST(FindOomMessages, TellsRanksApartAndCountsRepeats) {
  std::string log;
  for (int i = 0; i < 5; ++i) {
    log += "noise\n[rank0]: " + OomTexts()[1] + "\n[rank1]: " + OomTexts()[1] + "\n";
  }
  log += OomTexts()[5] + "\n";
  const std::vector<OomMessage> found = FindOomMessages(log);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].rank, 0);
  EXPECT_EQ(found[0].count, 5);
  EXPECT_EQ(found[0].line, 2);
  EXPECT_EQ(found[1].rank, 1);
  EXPECT_EQ(found[1].line, 3);
  EXPECT_FALSE(found[2].rank);
  EXPECT_EQ(found[2].line, 16);
}

TEST(FindOomMessages, DropsWhatSaysLessAboutTheSameDeath) {
  const std::vector<OomMessage> found =
      FindOomMessages(OomTexts()[21] + "\n" + OomTexts()[24] + "\n" + OomTexts()[25]);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].pid, 25315);
}

TEST(FindOomMessages, FindsOneMessageInMegabytes) {
  std::string log;
  while (log.size() < (16u << 20)) {
    log += "2024-01-01 Epoch [3][415/1736] lr: 1.000e-02 memory: 21333 loss: 0.5844\n";
  }
  const size_t lines = static_cast<size_t>(std::count(log.begin(), log.end(), '\n'));
  const OomMessage m = Only(log + OomTexts()[3] + "\n" + log.substr(0, 1000));
  EXPECT_EQ(m.line, static_cast<int64_t>(lines) + 1);
  EXPECT_EQ(m.requested, 62 * kMib);
  EXPECT_EQ(m.excerpt.substr(0, 20), "CUDA out of memory. ");
  // One line without end.
  const OomMessage flat = Only(std::string(3u << 20, 'x') + OomTexts()[3]);
  EXPECT_EQ(flat.line, 1);
  EXPECT_LE(flat.excerpt.size(), 200u);
}

TEST(FindOomMessages, KeepsTwoHundredAndCountsTheRest) {
  std::string log;
  for (int i = 0; i < 250; ++i) {
    log += "CUDA out of memory. Tried to allocate " + std::to_string(i + 1) +
           ".00 MiB (GPU 0; 8.00 GiB total capacity; 7.00 GiB already allocated; 0 bytes free)\n";
  }
  int64_t left_out = 0;
  EXPECT_EQ(FindOomMessages(log, &left_out).size(), 200u);
  EXPECT_EQ(left_out, 50);
}

// Each says in words what it does not believe, and keeps the rest.
TEST(FindOomMessages, DoubtsWhatCannotBe) {
  const auto doubts = [](const std::string& figures) {
    const OomMessage m = Only("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; " + figures);
    EXPECT_EQ(m.requested, 20 * kMib);
    std::string all;
    for (const std::string& doubt : m.doubts) all += doubt;
    return std::make_pair(m, all);
  };
  const auto contains = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  const auto negative =
      doubts("11.17 GiB total capacity; -10.40 GiB already allocated; 19.25 MiB free)");
  EXPECT_FALSE(negative.first.allocated);
  EXPECT_EQ(negative.first.capacity, Gib(11.17));
  EXPECT_PRED2(contains, negative.second, "negative");
  const auto huge = doubts("99999999999999999999 GiB total capacity; 1.00 GiB already allocated)");
  EXPECT_FALSE(huge.first.capacity);
  EXPECT_PRED2(contains, huge.second, "no machine");
  const auto overfull =
      doubts("8.00 GiB total capacity; 1.00 GiB already allocated; 9.00 GiB free)");
  EXPECT_FALSE(overfull.first.free);
  EXPECT_FALSE(overfull.first.capacity);
  EXPECT_PRED2(contains, overfull.second, "9.00 GiB are free of 8.00 GiB");
  const auto reserved = doubts(
      "8.00 GiB total capacity; 5.00 GiB already allocated; 1.00 GiB free; 2.00 GiB reserved in "
      "total by PyTorch)");
  EXPECT_FALSE(reserved.first.unused);
  EXPECT_PRED2(contains, reserved.second, "reserved");
  EXPECT_FALSE(doubts("1.2.3 GiB total capacity; 1.00 GiB already allocated)").second.empty());
  EXPECT_FALSE(doubts("0 bytes total capacity; 1.00 GiB already allocated)").second.empty());
}

TEST(FindOomMessages, KnowsWhatTheDriverDoesNotKnow) {
  const std::string text =
      "CUDA out of memory. Tried to allocate 18.63 GiB. GPU 0 has a total capacity of 45.00 GiB of "
      "which 3.66 GiB is free. Process 1459 has 17179869184.00 GiB memory in use. Including "
      "non-PyTorch memory, this process has 0 bytes memory in use. Of the allocated memory 16.17 "
      "GiB "
      "is allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated.";
  const OomMessage m = Only(text);
  ASSERT_EQ(m.others.size(), 1u);
  EXPECT_FALSE(m.others[0].bytes);
  EXPECT_FALSE(m.process);
  ASSERT_EQ(m.doubts.size(), 2u);
  EXPECT_NE(m.doubts[0].find("2^64"), std::string::npos);
  EXPECT_NE(m.doubts[1].find("driver did not tell"), std::string::npos);
}

TEST(FindOomMessages, TakesImpossibleRequestsForWhatTheyAre) {
  for (const char* amount : {"more than 1EB memory", "99999999999.00 GiB"}) {
    const OomMessage m = Only(std::string("CUDA out of memory. Tried to allocate ") + amount + ".");
    EXPECT_EQ(m.kind, OomKind::kGpu);
    EXPECT_GT(m.requested.value_or(0), Gib(1e6));
    ASSERT_EQ(m.doubts.size(), 1u);
    EXPECT_NE(m.doubts[0].find("computed wrongly"), std::string::npos);
  }
}

TEST(FindOomMessages, ExcerptsCannotMoveTheCursor) {
  const OomMessage m = Only("\x1b]0;title\x07\x1b[2J\x01\x02" + OomTexts()[3] + "\x1b[31m\x07");
  for (const char c : m.excerpt) EXPECT_GE(static_cast<unsigned char>(c), 32);
}

}  // namespace
}  // namespace kinefit
