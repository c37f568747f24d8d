#include "memory/block_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "random/stream.h"

namespace kinefit {
namespace {

constexpr size_t kKiB = size_t{1} << 10;
constexpr size_t kMiB = size_t{1} << 20;

// Takes and gives back by a fixed pseudo-random sequence; what is left at its end is given back
// too. Returns the most bytes that were taken at once, with their headers.
size_t RunSequence(BlockCache& cache, uint64_t seed, int calls, size_t limit = 0) {
  RandomStream random(seed, "test");
  std::vector<Block*> taken;
  size_t now = 0;
  size_t most = 0;
  const auto give = [&](size_t i) {
    now -= taken[i]->size;
    cache.Give(taken[i]);
    taken[i] = taken.back();
    taken.pop_back();
  };
  for (int i = 0; i < calls; ++i) {
    if (!taken.empty() && random.Integer(0, 100) < 48) {
      give(static_cast<size_t>(random.Integer(0, static_cast<int64_t>(taken.size()))));
      continue;
    }
    // From 64 KiB to 16 MiB, small ones more often.
    const size_t bytes =
        (64 * kKiB << random.Integer(0, 8)) + static_cast<size_t>(random.Integer(0, 70000));
    Block* block = cache.Take(bytes, limit);
    EXPECT_NE(block, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block->data()) % 64, 0);
    EXPECT_GE(block->size, bytes + sizeof(Block));
    static_cast<char*>(block->data())[bytes - 1] = 1;
    taken.push_back(block);
    now += block->size;
    most = std::max(most, now);
  }
  while (!taken.empty()) give(taken.size() - 1);
  return most;
}

TEST(BlockCache, GivesTheSameMemoryAgain) {
  BlockCache cache;
  Block* a = cache.Take(64 * kMiB, 0);
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(cache.held(), 66 * kMiB) << "the header needs one more piece";
  cache.Give(a);
  EXPECT_EQ(cache.held(), 66 * kMiB);
  Block* b = cache.Take(64 * kMiB, 0);
  EXPECT_EQ(a, b);
  cache.Give(b);
  cache.Release();
  EXPECT_EQ(cache.held(), 0);
}

TEST(BlockCache, MergesNeighboursInAnyOrder) {
  const std::vector<std::vector<int>> orders = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2},
                                                {2, 0, 3, 1}, {0, 2, 1, 3}, {1, 2, 3, 0}};
  for (const std::vector<int>& order : orders) {
    BlockCache cache;
    std::vector<Block*> blocks;
    for (size_t i = 0; i < 4; ++i) blocks.push_back(cache.Take((i + 1) * kMiB, 0));
    const size_t held = cache.held();
    EXPECT_LE(held, 12 * kMiB);
    for (const int i : order) cache.Give(blocks[static_cast<size_t>(i)]);
    Block* whole = cache.Take(held - sizeof(Block), 0);  // only all of them together are so large
    EXPECT_EQ(whole, blocks[0]);
    EXPECT_EQ(cache.held(), held);
    cache.Give(whole);
    cache.Release();
    EXPECT_EQ(cache.held(), 0);
  }
}

TEST(BlockCache, TakesTheSmallestBlockThatFits) {
  BlockCache cache;
  std::vector<Block*> holes;
  std::vector<Block*> walls;
  for (const size_t mib : {9, 3, 5, 4, 7}) {
    holes.push_back(cache.Take(mib * kMiB, 0));
    walls.push_back(cache.Take(64 * kKiB, 0));
  }
  const size_t held = cache.held();
  for (Block* hole : holes) cache.Give(hole);
  EXPECT_EQ(cache.Take(4 * kMiB - kKiB, 0), holes[3]);
  EXPECT_EQ(cache.Take(4 * kMiB, 0), holes[2]) << "the one of 4 MiB is taken";
  EXPECT_EQ(cache.Take(8 * kMiB, 0), holes[0]);
  EXPECT_EQ(cache.held(), held);
  for (const int i : {3, 2, 0}) cache.Give(holes[static_cast<size_t>(i)]);
  for (Block* wall : walls) cache.Give(wall);
}

TEST(BlockCache, ASequenceRepeatedNeedsNoMoreMemory) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    BlockCache cache;
    const size_t most = RunSequence(cache, seed, 2000);
    const size_t held = cache.held();
    EXPECT_GE(held, most);
    EXPECT_LE(held, most + most / 4) << "holes, seed " << seed;
    for (int again = 0; again < 3; ++again) {
      RunSequence(cache, seed, 2000);
      ASSERT_EQ(cache.held(), held) << "seed " << seed;
    }
    cache.Release();
    EXPECT_EQ(cache.held(), 0);
  }
}

TEST(BlockCache, ReleaseKeepsWhatIsTakenAndItsContents) {
  BlockCache cache;
  std::vector<Block*> all;
  for (int i = 0; i < 40; ++i) {
    all.push_back(cache.Take(kMiB + static_cast<size_t>(i) * 1000, 0));
    std::memset(all.back()->data(), i, kMiB);
  }
  size_t taken = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (i % 3 == 0) {
      taken += all[i]->size;
    } else {
      cache.Give(all[i]);
    }
  }
  cache.Release();
  EXPECT_GE(cache.held(), taken);
  EXPECT_LE(cache.held(), taken + 14 * 8 * kKiB) << "two pages for each that is taken";
  Block* large = cache.Take(20 * kMiB, 0);  // goes on with regions that have been cut up
  std::memset(large->data(), 1, 20 * kMiB);
  for (size_t i = 0; i < all.size(); i += 3) {
    const std::string expected(kMiB, static_cast<char>(i));
    EXPECT_EQ(std::memcmp(all[i]->data(), expected.data(), kMiB), 0) << i;
    cache.Give(all[i]);
  }
  cache.Give(large);
  cache.Release();
  EXPECT_EQ(cache.held(), 0);
}

TEST(BlockCache, StaysAtItsLimitByGivingFreeMemoryBack) {
  BlockCache cache;
  std::vector<Block*> walls;
  std::vector<Block*> holes;
  for (int i = 0; i < 8; ++i) {
    holes.push_back(cache.Take(4 * kMiB, 64 * kMiB));
    walls.push_back(cache.Take(64 * kKiB, 64 * kMiB));
  }
  EXPECT_LE(cache.held(), 36 * kMiB);
  for (Block* hole : holes) cache.Give(hole);
  // 32 MiB are free but in holes of 4: to get 40 more within 64, some of them have to go, not all.
  Block* large = cache.Take(40 * kMiB, 64 * kMiB);
  ASSERT_NE(large, nullptr);
  EXPECT_LE(cache.held(), 64 * kMiB);
  EXPECT_GE(cache.held(), 56 * kMiB);
  walls.push_back(cache.Take(4 * kMiB - kKiB, 64 * kMiB));
  EXPECT_LE(cache.held(), 64 * kMiB);
  cache.Give(large);
  for (Block* wall : walls) cache.Give(wall);
}

TEST(BlockCache, HoldsLittleMoreThanATightLimitWhateverTheSequence) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    BlockCache cache;
    const size_t most = RunSequence(cache, seed, 2000);
    BlockCache limited;
    RunSequence(limited, seed, 2000, most);
    EXPECT_LE(limited.held(), most + 2 * kMiB + 8 * kKiB * 1000);
    RunSequence(limited, seed + 100, 500);
    limited.Release();
    EXPECT_EQ(limited.held(), 0);
  }
}

TEST(BlockCache, RefusesWhatTheSystemDoesNotHave) {
  BlockCache cache;
  cache.Give(cache.Take(kMiB, 0));
  EXPECT_EQ(cache.Take(size_t{1} << 50, 0), nullptr);
  EXPECT_EQ(cache.held(), 2 * kMiB) << "hopeless: nothing was given back for it";
  EXPECT_EQ(cache.Take(size_t{1} << 45, 0), nullptr);
  EXPECT_EQ(cache.held(), 0) << "all was given back before it was refused";
  Block* block = cache.Take(kMiB, 0);
  ASSERT_NE(block, nullptr);
  cache.Give(block);
}

}  // namespace
}  // namespace kinefit
