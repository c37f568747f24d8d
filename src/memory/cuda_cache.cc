#include "memory/cuda_cache.h"

#include <algorithm>
#include <limits>
#include <string>

#include "files/error.h"

namespace kinefit {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kUnit = 512;                  // kMinBlockSize in PyTorch
constexpr int64_t kLargestSmall = kMiB;         // kSmallSize
constexpr int64_t kSmallSegment = 2 * kMiB;     // kSmallBuffer
constexpr int64_t kLargeSegment = 20 * kMiB;    // kLargeBuffer
constexpr int64_t kOwnSegmentFrom = 10 * kMiB;  // kMinLargeAlloc
constexpr int64_t kSegmentUnit = 2 * kMiB;      // kRoundLarge
constexpr int kStreams = 256;                   // far more than PyTorch's pools of streams hold

constexpr int64_t RoundUp(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

void CheckSize(int64_t bytes) {
  if (bytes > 0 && bytes <= CudaCache::kLargestBlock) return;
  throw Error("a block of " + std::to_string(bytes) + " bytes", "CUDA cache",
              "ask for 1 to 2^50 bytes");
}

// Addresses a range of an expandable pool has: 9/8 of the device, in granules of both pools.
int64_t RangeBytes(int64_t capacity) {
  const int64_t bytes = capacity == 0 ? 2 * CudaCache::kLargestBlock : capacity + capacity / 8;
  return RoundUp(bytes, kLargeSegment);
}

}  // namespace

CudaCache::CudaCache(const CudaCacheOptions& options) : options_(options) {
  if (options.capacity < 0 || options.capacity > kLargestBlock || options.outside < 0) {
    throw Error("a device of " + std::to_string(options.capacity) + " bytes with " +
                    std::to_string(options.outside) + " outside PyTorch",
                "CUDA cache", "give 0 or more, at most 2^50 bytes");
  }
}

int64_t CudaCache::SegmentBytes(int64_t bytes) {
  CheckSize(bytes);
  const int64_t size = RoundUp(bytes, kUnit);
  if (size <= kLargestSmall) return kSmallSegment;
  if (size < kOwnSegmentFrom) return kLargeSegment;
  return RoundUp(size, kSegmentUnit);
}

int64_t CudaCache::Granule(int pool) { return IsSmall(pool) ? kSmallSegment : kLargeSegment; }

int64_t CudaCache::device_free() const {
  if (options_.capacity == 0) return std::numeric_limits<int64_t>::max();
  return std::max<int64_t>(options_.capacity - options_.outside - reserved_, 0);
}

CudaCacheState CudaCache::state() const {
  CudaCacheState state;
  state.requested = requested_;
  state.allocated = allocated_;
  state.reserved = reserved_;
  state.segments = segments_;
  for (const Pool& pool : pools_) {
    if (!pool.free.empty()) {
      state.largest_free = std::max(state.largest_free, pool.free.rbegin()->size);
    }
  }
  return state;
}

std::optional<int64_t> CudaCache::Allocate(int64_t bytes, int stream) {
  CheckSize(bytes);
  const int64_t size = RoundUp(bytes, kUnit);
  const int pool = PoolFor(size, stream);
  const int64_t peak_before = at_peak_.reserved;
  int block = TakeFree(pool, size);
  if (block == kNone) block = TakeFromDriver(pool, size);
  if (block == kNone) {
    ++flushes_;
    Flush();
    block = TakeFromDriver(pool, size);
  }
  if (block == kNone) return std::nullopt;

  if (Splits(pool, blocks_[block].size - size)) InsertFree(SplitOff(block, size));
  blocks_[block].allocated = true;
  blocks_[block].requested = bytes;
  requested_ += bytes;
  allocated_ += blocks_[block].size;
  peak_allocated_ = std::max(peak_allocated_, allocated_);
  if (at_peak_.reserved > peak_before && reserved_ == at_peak_.reserved) at_peak_ = state();
  handed_out_.push_back(block);
  return static_cast<int64_t>(handed_out_.size()) - 1;
}

void CudaCache::Free(int64_t id) {
  if (id < 0 || id >= static_cast<int64_t>(handed_out_.size()) || handed_out_[id] == kNone) {
    throw Error("block " + std::to_string(id) + " is not in use", "CUDA cache",
                "free each block once, by the id it was handed out with");
  }
  const int block = handed_out_[id];
  handed_out_[id] = kNone;
  requested_ -= blocks_[block].requested;
  allocated_ -= blocks_[block].size;
  blocks_[block].allocated = false;
  Absorb(block, blocks_[block].prev);
  Absorb(block, blocks_[block].next);
  InsertFree(block);
}

int64_t CudaCache::Flush() {
  const int64_t before = reserved_;
  for (int pool = 0; pool < static_cast<int>(pools_.size()); ++pool) FlushPool(pool);
  return before - reserved_;
}

std::vector<CudaCache::Piece> CudaCache::Pieces() const {
  std::vector<Piece> pieces;
  for (const Block& block : blocks_) {
    if (!block.live) continue;
    const Piece::Use use = !block.mapped     ? Piece::Use::kUnmapped
                           : block.allocated ? Piece::Use::kAllocated
                                             : Piece::Use::kFree;
    pieces.push_back(
        {block.segment, block.address, block.size, use, block.pool / 2, IsSmall(block.pool)});
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.address < b.address; });
  return pieces;
}

int CudaCache::PoolFor(int64_t size, int stream) {
  if (stream < 0 || stream >= kStreams) {
    throw Error("stream " + std::to_string(stream), "CUDA cache", "number streams from 0 to 255");
  }
  const size_t pool = 2 * static_cast<size_t>(stream) + (size <= kLargestSmall ? 0 : 1);
  if (pool >= pools_.size()) pools_.resize(pool / 2 * 2 + 2);
  return static_cast<int>(pool);
}

int CudaCache::NewBlock(const Block& block) {
  if (recycled_.empty()) {
    blocks_.push_back(block);
    return static_cast<int>(blocks_.size()) - 1;
  }
  const int index = recycled_.back();
  recycled_.pop_back();
  blocks_[index] = block;
  return index;
}

void CudaCache::Recycle(int block) {
  blocks_[block].live = false;
  recycled_.push_back(block);
}

int CudaCache::NewSegment(int pool, int64_t size, bool mapped) {
  Block block;
  block.address = next_address_;
  block.size = size;
  block.segment = static_cast<int>(segment_reserved_.size());
  block.pool = pool;
  block.mapped = mapped;
  segment_reserved_.push_back(0);
  next_address_ += size;
  return NewBlock(block);
}

void CudaCache::InsertFree(int block) {
  const Block& b = blocks_[block];
  pools_[b.pool].free.insert({b.size, b.address, block});
}

void CudaCache::EraseFree(int block) {
  const Block& b = blocks_[block];
  pools_[b.pool].free.erase({b.size, b.address, block});
}

int CudaCache::TakeFree(int pool, int64_t size) {
  std::set<FreeBlock>& free = pools_[pool].free;
  auto best = free.lower_bound({size, 0, kNone});
  if (best == free.end()) return kNone;
  if (options_.expandable) {
    // A free block that memory can be mapped behind counts as large as it can become, so that it is
    // used last and kept for growing.
    const auto potential = [this](const FreeBlock& candidate) {
      const int next = blocks_[candidate.block].next;
      const bool grows = next != kNone && !blocks_[next].mapped;
      return candidate.size + (grows ? blocks_[next].size : 0);
    };
    for (auto next = std::next(best); next != free.end() && potential(*next) < potential(*best);
         ++next) {
      best = next;
    }
  }
  const int block = best->block;
  free.erase(best);
  return block;
}

int CudaCache::TakeFromDriver(int pool, int64_t size) {
  return options_.expandable ? TakeMapped(pool, size) : TakeSegment(pool, size);
}

int CudaCache::TakeSegment(int pool, int64_t size) {
  const int64_t bytes = SegmentBytes(size);
  if (bytes > device_free()) return kNone;
  const int block = NewSegment(pool, bytes, /*mapped=*/true);
  Reserve(blocks_[block].segment, bytes);
  return block;
}

int CudaCache::TakeMapped(int pool, int64_t size) {
  int block = FindRoom(pool, size);
  if (block == kNone) return kNone;
  if (!blocks_[block].mapped && !Map(block, std::min(blocks_[block].size, size))) return kNone;
  while (blocks_[block].size < size) {
    const int next = blocks_[block].next;
    // Mapping merges `next` with the free block before it. What was mapped stays if this fails, as
    // in PyTorch.
    if (!Map(next, std::min(blocks_[next].size, size - blocks_[block].size))) return kNone;
    block = next;
  }
  EraseFree(block);
  return block;
}

// Goes through the gaps of the pool, of which there are few: one behind the mapped memory, and
// those that a flush left. The first block of the lowest run of free and unmapped blocks that is
// large enough and begins with an unmapped block or the free one before it.
int CudaCache::FindRoom(int pool, int64_t size) {
  for (const auto& [address, unmapped] : pools_[pool].unmapped) {
    const int prev = blocks_[unmapped].prev;
    const int first = prev != kNone && !blocks_[prev].allocated ? prev : unmapped;
    if (HasRoom(first, size)) return first;
  }
  const int64_t range = RangeBytes(options_.capacity);
  if (size > range) return kNone;
  const int block = NewSegment(pool, range, /*mapped=*/false);
  pools_[pool].unmapped.emplace(blocks_[block].address, block);
  return block;
}

bool CudaCache::HasRoom(int first, int64_t size) const {
  int64_t room = 0;
  for (int block = first; room < size; block = blocks_[block].next) {
    if (block == kNone || blocks_[block].allocated) return false;
    room += blocks_[block].size;
  }
  return true;
}

// Maps memory to the beginning of an unmapped block, which becomes free and merges with the free
// blocks around it. False, and nothing done, if the driver has too little.
bool CudaCache::Map(int block, int64_t bytes) {
  const int pool = blocks_[block].pool;
  const int64_t mapped = RoundUp(bytes, Granule(pool));
  if (mapped > device_free()) return false;
  pools_[pool].unmapped.erase(blocks_[block].address);
  if (mapped < blocks_[block].size) {
    const int rest = SplitOff(block, mapped);
    pools_[pool].unmapped.emplace(blocks_[rest].address, rest);
  }
  blocks_[block].mapped = true;
  Absorb(block, blocks_[block].prev);
  Absorb(block, blocks_[block].next);
  InsertFree(block);
  Reserve(blocks_[block].segment, mapped);
  return true;
}

// Gives the granules back that lie wholly within a free block.
void CudaCache::Unmap(int block) {
  const int64_t granule = Granule(blocks_[block].pool);
  const int64_t begin = blocks_[block].address;
  const int64_t first = RoundUp(begin, granule);
  const int64_t last = (begin + blocks_[block].size) / granule * granule;
  if (first >= last) return;
  EraseFree(block);
  if (last < begin + blocks_[block].size) InsertFree(SplitOff(block, last - begin));
  if (first > begin) {
    const int middle = SplitOff(block, first - begin);
    InsertFree(block);
    block = middle;
  }
  blocks_[block].mapped = false;
  Reserve(blocks_[block].segment, first - last);
  Absorb(block, blocks_[block].prev);
  Absorb(block, blocks_[block].next);
  pools_[blocks_[block].pool].unmapped.emplace(blocks_[block].address, block);
}

bool CudaCache::Splits(int pool, int64_t remainder) const {
  if (IsSmall(pool) || options_.expandable) return remainder >= kUnit;
  return remainder > kLargestSmall;
}

// Shortens `block` to `size` and returns the rest behind it, in the same state and in none of its
// pool's sets.
int CudaCache::SplitOff(int block, int64_t size) {
  Block rest = blocks_[block];
  rest.address += size;
  rest.size -= size;
  rest.prev = block;
  const int index = NewBlock(rest);
  if (rest.next != kNone) blocks_[rest.next].prev = index;
  blocks_[block].size = size;
  blocks_[block].next = index;
  return index;
}

// Makes a neighbour part of `block` if it is there and in the same state. `block` itself must be in
// none of its pool's sets.
void CudaCache::Absorb(int block, int neighbour) {
  if (neighbour == kNone) return;
  Block& a = blocks_[block];
  const Block& b = blocks_[neighbour];
  if (b.allocated || b.mapped != a.mapped) return;
  if (b.mapped) {
    EraseFree(neighbour);
  } else {
    pools_[b.pool].unmapped.erase(b.address);
  }
  a.size += b.size;
  if (a.prev == neighbour) {
    a.address = b.address;
    a.prev = b.prev;
    if (a.prev != kNone) blocks_[a.prev].next = block;
  } else {
    a.next = b.next;
    if (a.next != kNone) blocks_[a.next].prev = block;
  }
  Recycle(neighbour);
}

// Books memory taken from the driver, or given back if `bytes` is negative.
void CudaCache::Reserve(int segment, int64_t bytes) {
  const bool was = segment_reserved_[segment] > 0;
  segment_reserved_[segment] += bytes;
  reserved_ += bytes;
  segments_ += static_cast<int>(segment_reserved_[segment] > 0) - static_cast<int>(was);
  if (reserved_ > at_peak_.reserved) at_peak_ = state();
}

void CudaCache::FlushPool(int pool) {
  std::vector<int> candidates;
  for (const FreeBlock& free : pools_[pool].free) candidates.push_back(free.block);
  for (const int block : candidates) {
    if (options_.expandable) {
      Unmap(block);
    } else if (blocks_[block].prev == kNone && blocks_[block].next == kNone) {
      EraseFree(block);
      Reserve(blocks_[block].segment, -blocks_[block].size);
      Recycle(block);
    }
  }
}

namespace {

void CheckTrace(const std::vector<TracedBlock>& blocks) {
  int64_t time = std::numeric_limits<int64_t>::min();
  for (size_t i = 0; i < blocks.size(); ++i) {
    const TracedBlock& block = blocks[i];
    if (block.bytes < 0 || block.born < time || block.died <= block.born) {
      throw Error("block " + std::to_string(i) + " has " + std::to_string(block.bytes) +
                      " bytes, is born at " + std::to_string(block.born) + " and dies at " +
                      std::to_string(block.died),
                  "memory trace", "give blocks in the order of their birth, with a life each");
    }
    time = block.born;
  }
}

// Indices of the blocks that die, in that order.
std::vector<size_t> Deaths(const std::vector<TracedBlock>& blocks) {
  std::vector<size_t> deaths;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].bytes > 0 && blocks[i].died != TracedBlock::kAlive) deaths.push_back(i);
  }
  std::stable_sort(deaths.begin(), deaths.end(),
                   [&](size_t a, size_t b) { return blocks[a].died < blocks[b].died; });
  return deaths;
}

}  // namespace

CudaReplay ReplayOnCuda(const std::vector<TracedBlock>& blocks, const CudaCacheOptions& options) {
  CheckTrace(blocks);
  const std::vector<size_t> deaths = Deaths(blocks);
  CudaCache cache(options);
  CudaReplay replay;
  std::vector<int64_t> ids(blocks.size());
  auto death = deaths.begin();
  const auto free_until = [&](int64_t time) {
    for (; death != deaths.end() && blocks[*death].died <= time; ++death) cache.Free(ids[*death]);
  };
  for (size_t i = 0; i < blocks.size() && !replay.out_of_memory; ++i) {
    free_until(blocks[i].born);
    if (blocks[i].bytes == 0) continue;
    if (const std::optional<int64_t> id = cache.Allocate(blocks[i].bytes)) {
      ids[i] = *id;
    } else {
      replay.out_of_memory = {static_cast<int64_t>(i), blocks[i].born,
                              blocks[i].bytes,         CudaCache::SegmentBytes(blocks[i].bytes),
                              cache.state(),           cache.device_free()};
    }
  }
  if (!replay.out_of_memory) free_until(TracedBlock::kAlive - 1);
  replay.peak_allocated = cache.peak_allocated();
  replay.at_peak = cache.at_peak();
  replay.at_end = cache.state();
  replay.flushes = cache.flushes();
  return replay;
}

}  // namespace kinefit
