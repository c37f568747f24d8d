#include "memory/cuda_cache.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "files/error.h"
#include "random/stream.h"

namespace kinefit {
namespace {

constexpr int64_t kKiB = 1024;
constexpr int64_t kMiB = 1024 * kKiB;
constexpr int64_t kGiB = 1024 * kMiB;
using Use = CudaCache::Piece::Use;

CudaCacheOptions Options(int64_t capacity, bool expandable = false, int64_t outside = 0) {
  CudaCacheOptions options;
  options.capacity = capacity;
  options.expandable = expandable;
  options.outside = outside;
  return options;
}

int64_t Take(CudaCache& cache, int64_t bytes, int stream = 0) {
  const std::optional<int64_t> id = cache.Allocate(bytes, stream);
  EXPECT_TRUE(id.has_value()) << bytes;
  return id.value_or(-1);
}

// "A2 F18 | U980": allocated, free and unmapped pieces in MiB ("512B" where it is not a whole
// number), segments apart.
std::string Layout(const CudaCache& cache) {
  std::string text;
  int64_t segment = -1;
  for (const CudaCache::Piece& piece : cache.Pieces()) {
    if (!text.empty()) text += piece.segment == segment ? " " : " | ";
    segment = piece.segment;
    text += piece.use == Use::kAllocated ? 'A' : piece.use == Use::kFree ? 'F' : 'U';
    text += piece.bytes % kMiB == 0 ? std::to_string(piece.bytes / kMiB)
                                    : std::to_string(piece.bytes) + "B";
  }
  return text;
}

// ---- Each rule ----

TEST(CudaCache, RoundsSizesUpTo512) {
  CudaCache cache;
  Take(cache, 1);
  EXPECT_EQ(cache.state().allocated, 512);
  Take(cache, 512);
  EXPECT_EQ(cache.state().allocated, 1024);
  Take(cache, 513);
  EXPECT_EQ(cache.state().allocated, 2048);
  EXPECT_EQ(cache.state().requested, 1 + 512 + 513);
  EXPECT_EQ(cache.peak_allocated(), 2048);
}

TEST(CudaCache, SegmentSizesFollowTheBlock) {
  EXPECT_EQ(CudaCache::SegmentBytes(1), 2 * kMiB);
  EXPECT_EQ(CudaCache::SegmentBytes(kMiB), 2 * kMiB);
  EXPECT_EQ(CudaCache::SegmentBytes(kMiB + 1), 20 * kMiB);
  EXPECT_EQ(CudaCache::SegmentBytes(10 * kMiB - 512), 20 * kMiB);
  // Rounded up to 10 MiB first, and that is no longer under 10 MiB.
  EXPECT_EQ(CudaCache::SegmentBytes(10 * kMiB - 511), 10 * kMiB);
  EXPECT_EQ(CudaCache::SegmentBytes(10 * kMiB), 10 * kMiB);
  EXPECT_EQ(CudaCache::SegmentBytes(10 * kMiB + 1), 12 * kMiB);
  EXPECT_EQ(CudaCache::SegmentBytes(61 * kMiB), 62 * kMiB);
  for (const int64_t bytes : {int64_t{1}, kMiB, kMiB + 1, 10 * kMiB - 511, 61 * kMiB}) {
    CudaCache cache;
    Take(cache, bytes);
    EXPECT_EQ(cache.state().reserved, CudaCache::SegmentBytes(bytes)) << bytes;
    EXPECT_EQ(cache.state().segments, 1);
  }
}

TEST(CudaCache, PoolsDoNotShare) {
  CudaCache cache;
  Take(cache, 2 * kMiB);  // 18 MiB of the large pool stay free
  Take(cache, kMiB);      // small pool: a segment of its own all the same
  EXPECT_EQ(Layout(cache), "A2 F18 | A1 F1");
  EXPECT_EQ(cache.state().reserved, 22 * kMiB);
  EXPECT_EQ(cache.state().largest_free, 18 * kMiB);
}

TEST(CudaCache, StreamsDoNotShare) {
  CudaCache cache;
  const int64_t block = Take(cache, 30 * kMiB);
  cache.Free(block);
  Take(cache, 30 * kMiB, /*stream=*/1);
  EXPECT_EQ(Layout(cache), "F30 | A30");
  Take(cache, 30 * kMiB);
  EXPECT_EQ(Layout(cache), "A30 | A30");
}

// Segments of 40, 34 and 36 MiB, all free: 34 fits 33 MiB best, then 36, then 40.
TEST(CudaCache, TakesTheSmallestBlockThatFits) {
  CudaCache cache;
  std::vector<int64_t> blocks;
  for (const int64_t size : {40, 34, 36}) blocks.push_back(Take(cache, size * kMiB));
  for (const int64_t block : blocks) cache.Free(block);
  Take(cache, 33 * kMiB);  // 1 MiB left over: not split off
  EXPECT_EQ(Layout(cache), "F40 | A34 | F36");
  Take(cache, 33 * kMiB);  // 3 MiB left over: split off
  EXPECT_EQ(Layout(cache), "F40 | A34 | A33 F3");
  Take(cache, 33 * kMiB);
  EXPECT_EQ(Layout(cache), "A33 F7 | A34 | A33 F3");
}

TEST(CudaCache, TakesTheLowestOfEqualBlocks) {
  CudaCache cache;
  std::vector<int64_t> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(Take(cache, 30 * kMiB));
  cache.Free(blocks[2]);
  cache.Free(blocks[0]);
  Take(cache, 30 * kMiB);
  EXPECT_EQ(Layout(cache), "A30 | A30 | F30");
}

// 2 MiB - 1 MiB - 1047552 = 1024 bytes; one block of 512 leaves 512, which is still split off.
TEST(CudaCache, SmallPoolSplitsDownTo512Bytes) {
  CudaCache cache;
  Take(cache, kMiB);
  Take(cache, kMiB - 1024);
  EXPECT_EQ(Layout(cache), "A1 A1047552B F1024B");
  Take(cache, 1);
  EXPECT_EQ(Layout(cache), "A1 A1047552B A512B F512B");
  EXPECT_EQ(cache.state().largest_free, 512);
}

TEST(CudaCache, LargePoolKeepsRemaindersUpTo1MiB) {
  CudaCache cache;
  Take(cache, 19 * kMiB);  // a segment of 20 MiB: 1 MiB left over
  EXPECT_EQ(Layout(cache), "A20");
  EXPECT_EQ(cache.state().requested, 19 * kMiB);
  EXPECT_EQ(cache.state().allocated, 20 * kMiB);
  Take(cache, 19 * kMiB - 512);  // also of 20 MiB: 1 MiB + 512 bytes left over
  EXPECT_EQ(Layout(cache), "A20 | A19922432B F1049088B");
}

// Five blocks of 4 MiB in one segment of 20. Freed in the order 1, 3, 2: first two gaps, then one
// with both neighbours; then 0 and 4 make the segment whole.
TEST(CudaCache, FreedBlocksMergeWithTheirNeighbours) {
  CudaCache cache;
  std::vector<int64_t> b;
  for (int i = 0; i < 5; ++i) b.push_back(Take(cache, 4 * kMiB));
  EXPECT_EQ(Layout(cache), "A4 A4 A4 A4 A4");
  cache.Free(b[1]);
  cache.Free(b[3]);
  EXPECT_EQ(Layout(cache), "A4 F4 A4 F4 A4");
  cache.Free(b[2]);
  EXPECT_EQ(Layout(cache), "A4 F12 A4");
  cache.Free(b[0]);
  EXPECT_EQ(Layout(cache), "F16 A4");
  cache.Free(b[4]);
  EXPECT_EQ(Layout(cache), "F20");
  EXPECT_EQ(cache.state().reserved, 20 * kMiB);
  EXPECT_EQ(cache.state().allocated, 0);
}

TEST(CudaCache, SegmentsDoNotMerge) {
  CudaCache cache;
  const int64_t a = Take(cache, 30 * kMiB);
  const int64_t b = Take(cache, 30 * kMiB);
  cache.Free(a);
  cache.Free(b);
  Take(cache, 60 * kMiB);
  EXPECT_EQ(Layout(cache), "F30 | F30 | A60");
}

// 100 MiB. Segments of 40 (free) and 20 (partly in use) leave 40: 50 MiB need the cached 40 back.
TEST(CudaCache, FlushesWholeFreeSegmentsWhenTheDeviceIsFull) {
  CudaCache cache(Options(100 * kMiB));
  cache.Free(Take(cache, 40 * kMiB));
  Take(cache, 4 * kMiB);
  EXPECT_EQ(Layout(cache), "A4 F36");  // of the free 40
  Take(cache, 50 * kMiB);
  EXPECT_EQ(Layout(cache), "A4 F36 | A50");
  EXPECT_EQ(cache.flushes(), 0);
  EXPECT_EQ(cache.device_free(), 10 * kMiB);

  CudaCache full(Options(100 * kMiB));
  const int64_t small = Take(full, 4 * kMiB);
  full.Free(Take(full, 40 * kMiB));
  EXPECT_EQ(Layout(full), "A4 F16 | F40");
  Take(full, 50 * kMiB);  // 20 + 40 + 50 > 100
  EXPECT_EQ(Layout(full), "A4 F16 | A50");
  EXPECT_EQ(full.flushes(), 1);
  EXPECT_EQ(full.state().reserved, 70 * kMiB);
  EXPECT_EQ(full.at_peak().reserved, 70 * kMiB);  // 60 before the flush
  full.Free(small);
}

// 64 MiB with 64 MiB reserved. Freeing every second block of 16 leaves 32 MiB free, none of which
// can be put together: a block of 20 MiB does not fit, and the cache can be used on.
TEST(CudaCache, RunsOutOfMemoryForFragmentation) {
  CudaCache cache(Options(64 * kMiB));
  std::vector<int64_t> b;
  const int64_t whole = Take(cache, 64 * kMiB);
  cache.Free(whole);
  for (int i = 0; i < 4; ++i) b.push_back(Take(cache, 16 * kMiB));
  EXPECT_EQ(Layout(cache), "A16 A16 A16 A16");
  cache.Free(b[0]);
  cache.Free(b[2]);
  EXPECT_EQ(cache.Allocate(20 * kMiB), std::nullopt);
  EXPECT_EQ(Layout(cache), "F16 A16 F16 A16");
  EXPECT_EQ(cache.flushes(), 1);
  EXPECT_EQ(cache.device_free(), 0);
  EXPECT_EQ(cache.state().largest_free, 16 * kMiB);
  EXPECT_DOUBLE_EQ(cache.state().fragmentation(), 0.5);
  Take(cache, 16 * kMiB);
  EXPECT_EQ(Layout(cache), "A16 A16 F16 A16");
}

TEST(CudaCache, OutsideBytesAreNotThereToTake) {
  CudaCache cache(Options(100 * kMiB, false, 10 * kMiB));
  EXPECT_EQ(cache.device_free(), 90 * kMiB);
  EXPECT_EQ(cache.Allocate(92 * kMiB), std::nullopt);
  Take(cache, 90 * kMiB);
  CudaCache none(Options(kMiB, false, 10 * kMiB));
  EXPECT_EQ(none.device_free(), 0);
  EXPECT_EQ(none.Allocate(1), std::nullopt);
}

TEST(CudaCache, FlushGivesBackWhatIsWhole) {
  CudaCache cache;
  const int64_t a = Take(cache, 30 * kMiB);
  Take(cache, 2 * kMiB);
  const int64_t c = Take(cache, 100);
  cache.Free(a);
  cache.Free(c);
  EXPECT_EQ(cache.Flush(), 32 * kMiB);
  EXPECT_EQ(Layout(cache), "A2 F18");
  EXPECT_EQ(cache.flushes(), 0);
  EXPECT_EQ(cache.state().segments, 1);
}

// Reserved: 20, 50, 50 (the block of 10 fits into the 20's rest), 80, then 80 with 30 freed.
TEST(CudaCache, KeepsTheStateOfTheReservedPeak) {
  CudaCache cache;
  Take(cache, 2 * kMiB);
  const int64_t b = Take(cache, 30 * kMiB);
  Take(cache, 10 * kMiB);
  cache.Free(b);
  Take(cache, 40 * kMiB);
  EXPECT_EQ(cache.at_peak().reserved, 90 * kMiB);
  EXPECT_EQ(cache.at_peak().allocated, 52 * kMiB);
  EXPECT_EQ(cache.at_peak().largest_free, 30 * kMiB);
  EXPECT_EQ(cache.at_peak().segments, 3);
  Take(cache, 30 * kMiB);  // more allocated, but no more reserved
  EXPECT_EQ(cache.peak_allocated(), 82 * kMiB);
  EXPECT_EQ(cache.at_peak().allocated, 52 * kMiB);
  EXPECT_DOUBLE_EQ(cache.at_peak().fragmentation(), 1 - 52.0 / 90.0);
}

TEST(CudaCache, RefusesWhatMakesNoSense) {
  CudaCache cache;
  EXPECT_THROW(cache.Allocate(0), Error);
  EXPECT_THROW(cache.Allocate(-1), Error);
  EXPECT_THROW(cache.Allocate(CudaCache::kLargestBlock + 1), Error);
  EXPECT_THROW(cache.Allocate(1, -1), Error);
  EXPECT_THROW(cache.Allocate(1, 256), Error);
  EXPECT_THROW(cache.Free(0), Error);
  const int64_t id = Take(cache, 1);
  cache.Free(id);
  EXPECT_THROW(cache.Free(id), Error);
  EXPECT_THROW(cache.Free(-1), Error);
  EXPECT_THROW(CudaCache(Options(-1)), Error);
  EXPECT_THROW(CudaCache(Options(0, false, -1)), Error);
  EXPECT_EQ(CudaCache().state().fragmentation(), 0);
}

// ---- Expandable segments. The range of a device of 800 MiB has 900. ----

TEST(ExpandableCudaCache, MapsGranulesAtTheEndOfOneRange) {
  CudaCache cache(Options(800 * kMiB, true));
  Take(cache, 2 * kMiB);
  EXPECT_EQ(Layout(cache), "A2 F18 U880");
  Take(cache, 30 * kMiB);  // 18 are there: 12 more, in granules of 20
  EXPECT_EQ(Layout(cache), "A2 A30 F8 U860");
  Take(cache, 48 * kMiB);
  EXPECT_EQ(Layout(cache), "A2 A30 A48 U820");
  EXPECT_EQ(cache.state().reserved, 80 * kMiB);
  EXPECT_EQ(cache.state().segments, 1);
  Take(cache, 1);  // the small pool has a range of its own, and granules of 2 MiB
  EXPECT_EQ(Layout(cache), "A2 A30 A48 U820 | A512B F2096640B U898");
  EXPECT_EQ(cache.state().segments, 2);
}

TEST(ExpandableCudaCache, SplitsTheLargePoolDownTo512Bytes) {
  CudaCache cache(Options(800 * kMiB, true));
  Take(cache, 20 * kMiB - 512);
  EXPECT_EQ(Layout(cache), "A20971008B F512B U880");
}

// The free 10 MiB that could grow count as 10 + 860: the 12 MiB in the middle are taken first.
TEST(ExpandableCudaCache, KeepsTheBlockThatCanGrowForLast) {
  CudaCache cache(Options(800 * kMiB, true));
  Take(cache, 8 * kMiB);
  const int64_t b = Take(cache, 12 * kMiB);
  Take(cache, 10 * kMiB);
  cache.Free(b);
  EXPECT_EQ(Layout(cache), "A8 F12 A10 F10 U860");
  const int64_t c = Take(cache, 10 * kMiB);
  EXPECT_EQ(Layout(cache), "A8 A10 F2 A10 F10 U860");
  cache.Free(c);
  Take(cache, 11 * kMiB);
  Take(cache, 11 * kMiB);  // nothing of that size: the end grows
  EXPECT_EQ(Layout(cache), "A8 A11 F1 A10 A11 F19 U840");
}

// Of the two free 5 MiB around the gap the second is taken first: the other one can grow into it.
TEST(ExpandableCudaCache, UnmapsBetweenBlocksAndFillsTheGapFirst) {
  CudaCache cache(Options(800 * kMiB, true));
  Take(cache, 15 * kMiB);
  const int64_t b = Take(cache, 30 * kMiB);
  Take(cache, 15 * kMiB);
  EXPECT_EQ(Layout(cache), "A15 A30 A15 U840");
  cache.Free(b);
  EXPECT_EQ(cache.Flush(), 20 * kMiB);  // [15, 45) holds the granule [20, 40)
  EXPECT_EQ(Layout(cache), "A15 F5 U20 F5 A15 U840");
  EXPECT_EQ(cache.state().reserved, 40 * kMiB);
  Take(cache, 4 * kMiB);
  EXPECT_EQ(Layout(cache), "A15 F5 U20 A4 F1 A15 U840");
  Take(cache, 24 * kMiB);  // 5 + 20, where the end would do as well
  EXPECT_EQ(Layout(cache), "A15 A24 F1 A4 F1 A15 U840");
  EXPECT_EQ(cache.state().reserved, 60 * kMiB);
}

// 5 + 20 + 5: mapping the gap merges all three.
TEST(ExpandableCudaCache, MappedMemoryMergesWithBothNeighbours) {
  CudaCache cache(Options(800 * kMiB, true));
  Take(cache, 15 * kMiB);
  const int64_t b = Take(cache, 30 * kMiB);
  Take(cache, 15 * kMiB);
  cache.Free(b);
  cache.Flush();
  Take(cache, 30 * kMiB);
  EXPECT_EQ(Layout(cache), "A15 A30 A15 U840");
}

TEST(ExpandableCudaCache, GrowsTheEndWhereTheGapIsTooSmall) {
  CudaCache cache(Options(800 * kMiB, true));
  Take(cache, 15 * kMiB);
  const int64_t b = Take(cache, 30 * kMiB);
  Take(cache, 15 * kMiB);
  cache.Free(b);
  cache.Flush();
  Take(cache, 31 * kMiB);
  EXPECT_EQ(Layout(cache), "A15 F5 U20 F5 A15 A31 F9 U800");
}

// Blocks of different requests merge, since they are all in one range; segments would not.
TEST(ExpandableCudaCache, FreedNeighboursMerge) {
  CudaCache cache(Options(80 * kMiB, true));
  std::vector<int64_t> b;
  for (int i = 0; i < 4; ++i) b.push_back(Take(cache, 20 * kMiB));
  cache.Free(b[1]);
  cache.Free(b[2]);
  EXPECT_EQ(Layout(cache), "A20 F40 A20 U20");  // a range of 90, in whole granules 100
  Take(cache, 35 * kMiB);
  EXPECT_EQ(Layout(cache), "A20 A35 F5 A20 U20");
  EXPECT_EQ(cache.state().reserved, 80 * kMiB);
}

// 40 MiB free in two places: unmapped there, mapped at the end. Segments would be out of memory.
TEST(ExpandableCudaCache, FlushMovesMemoryToWhereItIsNeeded) {
  CudaCache cache(Options(100 * kMiB, true));  // a range of 112.5, in whole granules 120
  std::vector<int64_t> b;
  for (int i = 0; i < 5; ++i) b.push_back(Take(cache, 20 * kMiB));
  cache.Free(b[1]);
  cache.Free(b[3]);
  cache.Free(b[4]);
  EXPECT_EQ(Layout(cache), "A20 F20 A20 F40 U20");
  Take(cache, 60 * kMiB);
  EXPECT_EQ(Layout(cache), "A20 U20 A20 A60");
  EXPECT_EQ(cache.flushes(), 1);
  EXPECT_EQ(cache.state().reserved, 100 * kMiB);
  EXPECT_EQ(cache.Allocate(512 * kKiB + kMiB), std::nullopt);
  EXPECT_EQ(cache.flushes(), 2);
}

TEST(ExpandableCudaCache, ABlockLargerThanTheDeviceIsOutOfMemory) {
  CudaCache cache(Options(100 * kMiB, true));
  EXPECT_EQ(cache.Allocate(101 * kMiB), std::nullopt);
  EXPECT_EQ(cache.Allocate(500 * kMiB), std::nullopt);
  EXPECT_EQ(cache.state().reserved, 0);
  Take(cache, 100 * kMiB);
}

TEST(ExpandableCudaCache, NeedsNoCapacity) {
  CudaCache cache(Options(0, true));
  Take(cache, 300 * kGiB);
  EXPECT_EQ(cache.state().reserved, 300 * kGiB);
}

// ---- What holds for any sequence ----

// Allocates and frees at random and in any order. Sizes are around the limits of the rules.
class RandomUse {
 public:
  RandomUse(uint64_t seed, const CudaCacheOptions& options)
      : random_(seed, "cuda_cache_test"), cache_(options), target_(random_.Integer(5, 100)) {}

  void Step() {
    const auto live = static_cast<int64_t>(ids_.size());
    if (live > 0 && random_.Chance(live > target_ ? 0.7 : 0.35)) {
      const int64_t which = random_.Integer(0, live);
      cache_.Free(ids_[which]);
      ids_.erase(ids_.begin() + which);
      return;
    }
    const int64_t bytes = Size();
    if (const std::optional<int64_t> id = cache_.Allocate(bytes)) {
      ids_.push_back(*id);
    } else {
      ++out_of_memory_;
    }
  }
  void FreeAll() {
    for (const int64_t id : ids_) cache_.Free(id);
    ids_.clear();
  }

  CudaCache& cache() { return cache_; }
  int64_t live() const { return static_cast<int64_t>(ids_.size()); }
  int64_t out_of_memory() const { return out_of_memory_; }

 private:
  int64_t Size() {
    const std::vector<int64_t> limits = {512, kMiB, 2 * kMiB, 10 * kMiB, 19 * kMiB, 20 * kMiB};
    switch (random_.Integer(0, 5)) {
      case 0:
        return random_.Integer(1, 4 * kKiB);
      case 1:
        return random_.Integer(1, kMiB + 1);
      case 2:
        return random_.Integer(kMiB, 10 * kMiB);
      case 3:
        return random_.Integer(10 * kMiB, 60 * kMiB);
      default: {
        const int64_t limit = limits[random_.Integer(0, static_cast<int64_t>(limits.size()))];
        const int64_t step = random_.Chance(0.5) ? 1 : 512;
        return std::max<int64_t>(limit + random_.Integer(-1, 2) * step, 1);
      }
    }
  }

  RandomStream random_;
  CudaCache cache_;
  int64_t target_;
  int64_t out_of_memory_ = 0;
  std::vector<int64_t> ids_;
};

// Every byte of every segment belongs to exactly one piece, and the sums are the state's.
void CheckPieces(const CudaCache& cache, int64_t live, const CudaCacheOptions& options,
                 std::map<int64_t, int64_t>& segment_sizes) {
  int64_t allocated = 0, reserved = 0, blocks = 0, end = 0, largest_free = 0;
  std::map<int64_t, int64_t> sizes, mapped;
  const CudaCache::Piece* before = nullptr;
  const std::vector<CudaCache::Piece> pieces = cache.Pieces();
  for (const CudaCache::Piece& piece : pieces) {
    ASSERT_GT(piece.bytes, 0);
    ASSERT_GE(piece.address, end) << "pieces overlap";
    if (before != nullptr && before->segment == piece.segment) {
      ASSERT_EQ(piece.address, end) << "a hole in a segment";
      ASSERT_TRUE(piece.use == Use::kAllocated || piece.use != before->use) << "not merged";
      ASSERT_EQ(piece.small, before->small);
    } else {
      ASSERT_EQ(sizes.count(piece.segment), 0U) << "a segment in two parts";
    }
    const int64_t granule = !options.expandable ? 512 : piece.small ? 2 * kMiB : 20 * kMiB;
    if (piece.use == Use::kUnmapped) {
      ASSERT_EQ(piece.address % granule, 0);
      ASSERT_EQ(piece.bytes % granule, 0);
    } else {
      reserved += piece.bytes;
      mapped[piece.segment] += piece.bytes;
    }
    if (piece.use == Use::kFree) largest_free = std::max(largest_free, piece.bytes);
    allocated += piece.use == Use::kAllocated ? piece.bytes : 0;
    blocks += piece.use == Use::kAllocated ? 1 : 0;
    sizes[piece.segment] += piece.bytes;
    end = piece.address + piece.bytes;
    before = &piece;
  }
  for (const auto& [segment, size] : sizes) {
    ASSERT_EQ(segment_sizes.emplace(segment, size).first->second, size) << "a segment changed";
  }
  const CudaCacheState state = cache.state();
  ASSERT_EQ(state.allocated, allocated);
  ASSERT_EQ(state.reserved, reserved);
  ASSERT_EQ(state.largest_free, largest_free);
  ASSERT_EQ(state.segments, static_cast<int64_t>(mapped.size()));
  ASSERT_EQ(blocks, live);
  ASSERT_LE(state.requested, state.allocated);
  ASSERT_LE(state.allocated, state.reserved);
  ASSERT_EQ(state.reserved % (2 * kMiB), 0);
  ASSERT_LE(state.reserved, cache.at_peak().reserved);
  ASSERT_LE(state.allocated, cache.peak_allocated());
  if (options.capacity > 0) {
    ASSERT_LE(state.reserved + options.outside, options.capacity);
  }
}

// Nothing is left that a flush could give back.
void CheckFlushed(const CudaCache& cache, bool expandable) {
  std::map<int64_t, std::vector<CudaCache::Piece>> segments;
  for (const CudaCache::Piece& piece : cache.Pieces()) segments[piece.segment].push_back(piece);
  for (const auto& [segment, pieces] : segments) {
    if (!expandable) {
      ASSERT_FALSE(pieces.size() == 1 && pieces[0].use == Use::kFree);
    }
    for (const CudaCache::Piece& piece : pieces) {
      if (!expandable || piece.use != Use::kFree) continue;
      const int64_t granule = piece.small ? 2 * kMiB : 20 * kMiB;
      const int64_t next = (piece.address + granule - 1) / granule * granule;
      ASSERT_GT(next + granule, piece.address + piece.bytes) << "a free granule is still mapped";
    }
  }
}

class AnyUse : public testing::TestWithParam<std::tuple<bool, int64_t>> {
 protected:
  CudaCacheOptions options() const {
    const auto [expandable, capacity] = GetParam();
    return Options(capacity, expandable, capacity == 0 ? 0 : 13 * kMiB);
  }
};

TEST_P(AnyUse, TheBooksAreRight) {
  int64_t flushes = 0, out_of_memory = 0;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    RandomUse use(seed, options());
    std::map<int64_t, int64_t> segment_sizes;
    for (int i = 0; i < 600; ++i) {
      use.Step();
      ASSERT_NO_FATAL_FAILURE(CheckPieces(use.cache(), use.live(), options(), segment_sizes))
          << "seed " << seed << ", step " << i;
      if (i % 200 == 199) {
        const int64_t reserved = use.cache().state().reserved;
        const int64_t back = use.cache().Flush();
        EXPECT_EQ(use.cache().state().reserved, reserved - back);
        ASSERT_NO_FATAL_FAILURE(CheckFlushed(use.cache(), options().expandable));
      }
    }
    flushes += use.cache().flushes();
    out_of_memory += use.out_of_memory();
    use.FreeAll();
    EXPECT_EQ(use.cache().state().allocated, 0);
    EXPECT_EQ(use.cache().state().requested, 0);
    use.cache().Flush();
    EXPECT_EQ(use.cache().state().reserved, 0);
    EXPECT_EQ(use.cache().state().segments, 0);
    EXPECT_EQ(use.cache().state().largest_free, 0);
  }
  // The tight devices do what they are for.
  const bool tight = options().capacity > 0 && options().capacity < kGiB;
  EXPECT_EQ(flushes > 0, tight);
  EXPECT_EQ(out_of_memory > 0, tight);
}

INSTANTIATE_TEST_SUITE_P(Devices, AnyUse,
                         testing::Combine(testing::Bool(), testing::Values(int64_t{0}, 200 * kMiB,
                                                                           500 * kMiB, 64 * kGiB)));

// Without a flush an expandable pool has no hole: what is mapped is one run from its beginning.
TEST(ExpandableCudaCache, OnlyGrowsAtItsEndUnlessFlushed) {
  RandomUse use(99, Options(0, true));
  for (int i = 0; i < 1000; ++i) {
    use.Step();
    std::map<int64_t, int> unmapped;
    for (const CudaCache::Piece& piece : use.cache().Pieces()) {
      ASSERT_EQ(unmapped[piece.segment], 0) << "memory mapped behind a hole";
      if (piece.use == Use::kUnmapped) ++unmapped[piece.segment];
    }
    ASSERT_LE(unmapped.size(), 2U);
  }
}

// What PyTorch 2.5.1's own allocator did with the same requests. It was run without a GPU, on a
// driver that only counted bytes and gave out ascending addresses; `states` folds allocated and
// reserved bytes, the largest free block and the flushes after each of 2000 steps into one number.
struct Recorded {
  uint64_t seed;
  bool expandable;
  int64_t capacity;
  int64_t peak_allocated;
  int64_t peak_reserved;
  int64_t flushes;
  int64_t out_of_memory;
  uint64_t states;
};

uint64_t Fold(uint64_t hash, const CudaCache& cache) {
  const CudaCacheState state = cache.state();
  for (const int64_t value :
       {state.allocated, state.reserved, state.largest_free, cache.flushes()}) {
    hash = (hash ^ static_cast<uint64_t>(value)) * 1099511628211U;
  }
  return hash;
}

TEST(CudaCache, DoesWhatPyTorchDoes) {
  const std::vector<Recorded> recorded = {
      {1, false, 0, 911529984, 1251999744, 0, 0, 1446969541764413989U},
      {2, false, 200 * kMiB, 189612032, 209715200, 186, 180, 2777769829592989722U},
      {3, false, 500 * kMiB, 482393088, 524288000, 55, 45, 6729991679523819821U},
      {4, false, 1024 * kMiB, 514154496, 704643072, 0, 0, 14404762186064168485U},
      {5, true, 0, 758274048, 830472192, 0, 0, 17049179669579403813U},
      {6, true, 200 * kMiB, 190310400, 205520896, 267, 266, 3199053373736991567U},
      {7, true, 500 * kMiB, 482255872, 511705088, 17, 15, 2583120071511580982U},
      {8, true, 1024 * kMiB, 1027739136, 1069547520, 57, 45, 15066495191454306970U},
  };
  for (const Recorded& r : recorded) {
    RandomUse use(r.seed, Options(r.capacity, r.expandable));
    uint64_t states = 14695981039346656037U;
    for (int i = 0; i < 2000; ++i) {
      use.Step();
      states = Fold(states, use.cache());
    }
    EXPECT_EQ(use.cache().peak_allocated(), r.peak_allocated) << r.seed;
    EXPECT_EQ(use.cache().at_peak().reserved, r.peak_reserved) << r.seed;
    EXPECT_EQ(use.cache().flushes(), r.flushes) << r.seed;
    EXPECT_EQ(use.out_of_memory(), r.out_of_memory) << r.seed;
    EXPECT_EQ(states, r.states) << r.seed;
  }
}

// ---- Traces ----

TracedBlock Block(int64_t bytes, int64_t born, int64_t died = TracedBlock::kAlive) {
  TracedBlock block;
  block.bytes = bytes;
  block.born = born;
  block.died = died;
  return block;
}

// Reserved 30, 60, then 60 again: the third block takes the first one's place.
TEST(ReplayOnCuda, FollowsBirthsAndDeaths) {
  const CudaReplay replay = ReplayOnCuda(
      {Block(30 * kMiB, 1, 3), Block(29 * kMiB, 2, 6), Block(0, 4, 5), Block(30 * kMiB, 5)});
  EXPECT_EQ(replay.peak_allocated, 60 * kMiB);
  EXPECT_EQ(replay.at_peak.reserved, 60 * kMiB);
  EXPECT_EQ(replay.at_peak.allocated, 60 * kMiB);
  EXPECT_EQ(replay.at_peak.requested, 59 * kMiB);
  EXPECT_EQ(replay.at_peak.segments, 2);
  EXPECT_EQ(replay.at_end.allocated, 30 * kMiB);
  EXPECT_EQ(replay.at_end.reserved, 60 * kMiB);
  EXPECT_EQ(replay.at_end.largest_free, 30 * kMiB);
  EXPECT_EQ(replay.flushes, 0);
  EXPECT_FALSE(replay.out_of_memory);
}

TEST(ReplayOnCuda, AtTheSameTimeDeathComesFirst) {
  const CudaReplay replay = ReplayOnCuda({Block(30 * kMiB, 1, 2), Block(30 * kMiB, 2)});
  EXPECT_EQ(replay.at_peak.reserved, 30 * kMiB);
}

TEST(ReplayOnCuda, AnEmptyTraceTakesNothing) {
  const CudaReplay replay = ReplayOnCuda({});
  EXPECT_EQ(replay.peak_allocated, 0);
  EXPECT_EQ(replay.at_end.reserved, 0);
}

// 1 GiB, 100 MiB of them not PyTorch's. 400 are in use and 400 free in the same segment as 40 in
// use: 500 find neither a block nor the memory.
TEST(ReplayOnCuda, SaysWhereMemoryRanOut) {
  const std::vector<TracedBlock> trace = {Block(440 * kMiB, 10, 12), Block(40 * kMiB, 13),
                                          Block(400 * kMiB, 14, 99), Block(499 * kMiB, 15, 16),
                                          Block(1, 17)};
  // At 13 the 440 are one free segment, of which 40 and then 400 are taken again: 440 reserved.
  const CudaReplay fits = ReplayOnCuda(trace, Options(kGiB, false, 84 * kMiB));
  EXPECT_FALSE(fits.out_of_memory);
  EXPECT_EQ(fits.at_peak.reserved, 440 * kMiB + 500 * kMiB);

  const CudaReplay replay = ReplayOnCuda(trace, Options(kGiB, false, 100 * kMiB));
  ASSERT_TRUE(replay.out_of_memory);
  EXPECT_EQ(replay.out_of_memory->block, 3);
  EXPECT_EQ(replay.out_of_memory->time, 15);
  EXPECT_EQ(replay.out_of_memory->requested, 499 * kMiB);
  EXPECT_EQ(replay.out_of_memory->tried, 500 * kMiB);
  EXPECT_EQ(replay.out_of_memory->state.allocated, 440 * kMiB);
  EXPECT_EQ(replay.out_of_memory->state.reserved, 440 * kMiB);
  EXPECT_EQ(replay.out_of_memory->device_free, (1024 - 100 - 440) * kMiB);
  EXPECT_EQ(replay.flushes, 1);
  EXPECT_EQ(replay.at_end.allocated, 440 * kMiB);  // the block of 1 byte was not tried
}

TEST(ReplayOnCuda, RefusesBrokenTraces) {
  EXPECT_THROW(ReplayOnCuda({Block(1, 2), Block(1, 1)}), Error);
  EXPECT_THROW(ReplayOnCuda({Block(-1, 1)}), Error);
  EXPECT_THROW(ReplayOnCuda({Block(1, 1, 1)}), Error);
}

TEST(ReplayOnCuda, TakesWhatAMemoryTraceRecords) {
  MemoryTrace trace;
  const auto options = at::TensorOptions().device(at::kMeta).dtype(at::kFloat);
  {
    const at::Tensor a = at::empty({25, kMiB / 4}, options);  // 25 MiB: a segment of 26
    const at::Tensor b = at::empty({100}, options);           // 400 bytes
  }
  const at::Tensor c = at::empty({24, kMiB / 4}, options);  // into the 26, 2 MiB split off
  trace.Stop();
  const CudaReplay replay = ReplayOnCuda(trace.blocks());
  EXPECT_EQ(replay.peak_allocated, 26 * kMiB + 512);
  EXPECT_EQ(replay.at_peak.requested, 25 * kMiB + 400);
  EXPECT_EQ(replay.at_end.reserved, 28 * kMiB);
  EXPECT_EQ(replay.at_end.allocated, 24 * kMiB);
}

// Like a training step: activations pile up, then go in reverse with short-lived blocks between.
std::vector<TracedBlock> StepTrace(uint64_t seed, int64_t layers) {
  RandomStream random(seed, "cuda_cache_test.step");
  std::vector<TracedBlock> trace;
  std::vector<size_t> saved;
  int64_t time = 0;
  const auto size = [&] {
    return random.Chance(0.4) ? random.Integer(1, kMiB) : random.Integer(kMiB, 80 * kMiB);
  };
  for (int64_t i = 0; i < layers; ++i) {
    saved.push_back(trace.size());
    trace.push_back(Block(size(), ++time));
    trace.push_back(Block(size(), time + 1, time + 2));
    time += 2;
  }
  for (; !saved.empty(); saved.pop_back()) {
    trace.push_back(Block(size(), time + 1, time + 4));
    trace.push_back(Block(size(), time + 2, time + 3));
    time += 4;
    trace[saved.back()].died = ++time;
  }
  return trace;
}

TEST(ReplayOnCuda, TheSameTraceGivesTheSame) {
  const std::vector<TracedBlock> trace = StepTrace(3, 300);
  for (const bool expandable : {false, true}) {
    const CudaCacheOptions options = Options(8 * kGiB, expandable);
    const CudaReplay first = ReplayOnCuda(trace, options);
    const CudaReplay second = ReplayOnCuda(trace, options);
    EXPECT_GT(first.at_peak.reserved, 0);
    EXPECT_EQ(first.peak_allocated, second.peak_allocated);
    EXPECT_EQ(first.at_peak.reserved, second.at_peak.reserved);
    EXPECT_EQ(first.at_peak.allocated, second.at_peak.allocated);
    EXPECT_EQ(first.at_end.largest_free, second.at_end.largest_free);
    EXPECT_EQ(first.at_end.segments, second.at_end.segments);
    EXPECT_EQ(first.flushes, second.flushes);
  }
}

// Planning replays traces again and again. The limit is 20 times what an idle machine takes.
TEST(ReplayOnCuda, IsFast) {
  const std::vector<TracedBlock> trace = StepTrace(1, 2500);  // 10,000 blocks, 20,000 events
  for (const bool expandable : {false, true}) {
    double fastest = 1e9;
    for (int i = 0; i < 5; ++i) {
      const auto start = std::chrono::steady_clock::now();
      const CudaReplay replay = ReplayOnCuda(trace, Options(0, expandable));
      EXPECT_GT(replay.at_peak.reserved, 0);
      const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - start;
      fastest = std::min(fastest, ms.count());
    }
    EXPECT_LT(fastest, 100) << "milliseconds";
    RecordProperty(expandable ? "expandable_ms" : "ms", std::to_string(fastest));
    std::printf("20,000 events%s: %.2f ms\n", expandable ? ", expandable" : "", fastest);
  }
}

}  // namespace
}  // namespace kinefit
