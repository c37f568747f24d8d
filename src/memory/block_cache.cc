#include "memory/block_cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace kinefit {
namespace {

constexpr size_t kPiece = size_t{2} << 20;  // a huge page
// Free blocks below this wait for a neighbour to be given back; nobody asks for less.
constexpr size_t kSmallest = size_t{64} << 10;
constexpr uintptr_t kRoomToGrow = uintptr_t{1} << 40;

size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

size_t PageSize() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

char* Begin(Block* block) { return reinterpret_cast<char*>(block); }
char* End(Block* block) { return Begin(block) + block->size; }
Block* Above(Block* block) { return block->last ? nullptr : reinterpret_cast<Block*>(End(block)); }

Block* MakeFreeBlock(char* at, size_t size, Block* below, bool last) {
  ASAN_UNPOISON_MEMORY_REGION(at, sizeof(Block));
  return new (at) Block{0, 0, nullptr, size, below, nullptr, nullptr, true, last};
}

// Where the next region of the process goes: with so much room behind it that it can grow for the
// whole run.
void* RegionHint() {
  static std::mutex mutex;
  static uintptr_t hint = 0;
  const std::lock_guard<std::mutex> lock(mutex);
  if (hint < 2 * kRoomToGrow) {
    void* probe = mmap(nullptr, PageSize(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe == MAP_FAILED) return nullptr;
    munmap(probe, PageSize());
    hint = reinterpret_cast<uintptr_t>(probe);
    if (hint < 2 * kRoomToGrow) return nullptr;  // a small address space: anywhere
  }
  hint = (hint - kRoomToGrow) / kPiece * kPiece;
  return reinterpret_cast<void*>(hint);  // NOLINT(performance-no-int-to-ptr)
}

// Fresh memory, at `hint` if that is free; null if the system has none.
char* Map(void* hint, size_t bytes) {
  void* memory =
      mmap(hint, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, /*fd=*/-1, 0);
  if (memory == MAP_FAILED) return nullptr;
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
#ifdef MADV_HUGEPAGE
  madvise(memory, bytes, MADV_HUGEPAGE);  // refused where the system has none: then small pages
#endif
  return static_cast<char*>(memory);
}

}  // namespace

BlockCache::Bin BlockCache::BinOf(size_t size) {
  const int power = 63 - __builtin_clzll(size);
  return {power, static_cast<int>((size >> (power - 4)) & (kParts - 1))};
}

bool BlockCache::Binned(const Block* block) const {
  return block != end_ && block->size >= kSmallest;
}

void BlockCache::Insert(Block* block) noexcept {
  if (!Binned(block)) return;
  const Bin bin = BinOf(block->size);
  Block*& head = bins_[bin.power][bin.part];
  block->previous = nullptr;
  block->next = head;
  if (head != nullptr) head->previous = block;
  head = block;
  parts_[bin.power] |= static_cast<uint16_t>(1U << bin.part);
  powers_ |= uint64_t{1} << bin.power;
}

void BlockCache::Remove(Block* block) noexcept {
  if (!Binned(block)) return;
  if (block->next != nullptr) block->next->previous = block->previous;
  if (block->previous != nullptr) {
    block->previous->next = block->next;
    return;
  }
  const Bin bin = BinOf(block->size);
  bins_[bin.power][bin.part] = block->next;
  if (block->next != nullptr) return;
  parts_[bin.power] &= static_cast<uint16_t>(~(1U << bin.part));
  if (parts_[bin.power] == 0) powers_ &= ~(uint64_t{1} << bin.power);
}

Block* BlockCache::SmallestIn(Bin bin, size_t size) const {
  Block* best = nullptr;
  for (Block* block = bins_[bin.power][bin.part]; block != nullptr; block = block->next) {
    if (block->size < size) continue;
    // Of equals the lowest, so that the high addresses become free together.
    if (best == nullptr || block->size < best->size ||
        (block->size == best->size && block < best)) {
      best = block;
    }
  }
  return best;
}

Block* BlockCache::FindFit(size_t size) const {
  const Bin bin = BinOf(size);
  if (Block* block = SmallestIn(bin, size); block != nullptr) return block;
  if (const unsigned parts = parts_[bin.power] & (~1U << bin.part) & 0xffffU; parts != 0) {
    return SmallestIn({bin.power, __builtin_ctz(parts)}, size);
  }
  const uint64_t powers = powers_ & (~uint64_t{1} << bin.power);
  if (powers == 0) return nullptr;
  const int power = __builtin_ctzll(powers);
  return SmallestIn({power, __builtin_ctz(parts_[power])}, size);
}

Block* BlockCache::FindLargest() const {
  if (powers_ == 0) return nullptr;
  const int power = 63 - __builtin_clzll(powers_);
  Block* largest = bins_[power][31 - __builtin_clz(parts_[power])];
  for (Block* block = largest; block != nullptr; block = block->next) {
    if (block->size > largest->size) largest = block;
  }
  return largest;
}

// The free block to take, the growing end only where nothing else will do.
Block* BlockCache::Fit(size_t size) const {
  if (Block* block = FindFit(size); block != nullptr) return block;
  return end_ != nullptr && end_->free && end_->size >= size ? end_ : nullptr;
}

// Bytes that must be appended so that the end holds a block of `size`.
size_t BlockCache::Growth(size_t size) const {
  return size - (end_ != nullptr && end_->free ? std::min(size, end_->size) : 0);
}

bool BlockCache::Append(size_t bytes) {
  if (end_ == nullptr) return false;
  char* at = End(end_);
  char* memory = Map(at, bytes);
  if (memory == nullptr) return false;
  if (memory != at) {  // something else stands there
    munmap(memory, bytes);
    return false;
  }
  if (end_->free) {
    end_->size += bytes;
  } else {
    end_->last = false;
    end_ = MakeFreeBlock(memory, bytes, end_, /*last=*/true);
  }
  held_.fetch_add(bytes, std::memory_order_relaxed);
  return true;
}

bool BlockCache::AddRegion(size_t bytes) {
  char* memory = Map(RegionHint(), bytes);
  if (memory == nullptr) return false;
  Block* old_end = end_;
  end_ = MakeFreeBlock(memory, bytes, nullptr, /*last=*/true);
  if (old_end != nullptr && old_end->free) Insert(old_end);
  held_.fetch_add(bytes, std::memory_order_relaxed);
  return true;
}

// Makes the end a free block of at least `size`.
bool BlockCache::Grow(size_t size) {
  const size_t more = Growth(size);
  for (const size_t unit : {kPiece, PageSize()}) {
    if (end_ != nullptr) {
      const auto at = reinterpret_cast<uintptr_t>(End(end_));
      if (Append(RoundUp(at + more, unit) - at)) return true;
    }
    if (AddRegion(RoundUp(size, unit))) return true;
  }
  return false;
}

// Leaves `size` bytes of a block that is in no bin and makes what is above a free block.
void BlockCache::CutOff(Block* block, size_t size) noexcept {
  if (block->size == size) return;
  Block* above = Above(block);
  Block* rest = MakeFreeBlock(Begin(block) + size, block->size - size, block, block->last);
  block->size = size;
  block->last = false;
  if (above != nullptr) above->below = rest;
  if (end_ == block) end_ = rest;
  Insert(rest);
}

Block* BlockCache::Take(size_t bytes, size_t limit) {
  if (bytes > size_t{1} << (kPowers - 2)) return nullptr;  // more than there are addresses
  const size_t size = std::max(RoundUp(bytes, sizeof(Block)) + sizeof(Block), kSmallest);
  const std::lock_guard<std::mutex> lock(mutex_);
  Block* block = Fit(size);
  if (block == nullptr) {
    const size_t then = held() + RoundUp(Growth(size), kPiece);
    if (limit > 0 && then > limit) ReleaseSome(then - limit);
    if (!Grow(size)) {
      ReleaseAll();
      if (!Grow(size)) return nullptr;
    }
    block = end_;
  }
  Remove(block);
  CutOff(block, size);
  block->free = false;
  ASAN_UNPOISON_MEMORY_REGION(block->data(), bytes);
  return block;
}

void BlockCache::Give(Block* block) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  block->free = true;
  block->magic = 0;
  ASAN_POISON_MEMORY_REGION(block->data(), block->size - sizeof(Block));
  if (Block* above = Above(block); above != nullptr && above->free) {
    Remove(above);
    if (end_ == above) end_ = block;
    block->size += above->size;
    block->last = above->last;
  }
  if (Block* below = block->below; below != nullptr && below->free) {
    Remove(below);
    if (end_ == block) end_ = below;
    below->size += block->size;
    below->last = block->last;
    block = below;
  }
  if (Block* above = Above(block); above != nullptr) above->below = block;
  Insert(block);
}

void BlockCache::Release() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  ReleaseAll();
}

void BlockCache::ReleaseAll() noexcept {
  for (auto& bins : bins_) {
    for (Block* head : bins) {
      for (Block* block = head; block != nullptr;) {
        Block* next = block->next;
        Unmap(block);
        block = next;
      }
    }
  }
  if (end_ != nullptr && end_->free) Unmap(end_);
}

// Gives about `bytes` bytes back, in as few blocks as possible and no more than needed.
void BlockCache::ReleaseSome(size_t bytes) noexcept {
  while (bytes > 0) {
    Block* block = FindFit(std::max(bytes + 2 * PageSize(), kSmallest));
    if (block == nullptr) block = FindLargest();
    const size_t given = block == nullptr ? 0 : Unmap(block);
    if (given == 0) return;
    bytes -= std::min(bytes, given);
  }
}

// Gives the whole pages of a free block back: its region ends there, and what is above becomes a
// region of its own. Returns how many bytes; 0 where the system would not have them.
size_t BlockCache::Unmap(Block* block) noexcept {
  const uintptr_t page = PageSize();
  const auto at = reinterpret_cast<uintptr_t>(block);
  const uintptr_t end = at + block->size;
  Block* const below = block->below;
  Block* const above = Above(block);
  // The header stays unless the region starts with it: its neighbour below knows it.
  const uintptr_t from = RoundUp(below == nullptr ? at : at + sizeof(Block), page);
  const uintptr_t to = end / page * page;
  if (to <= from) return 0;
  Remove(block);
  char* const first = Begin(block) + (from - at);
  ASAN_UNPOISON_MEMORY_REGION(first, to - from);  // others may get these addresses
  if (munmap(first, to - from) != 0) {            // too many regions: keep it
    Insert(block);
    return 0;
  }
  held_.fetch_sub(to - from, std::memory_order_relaxed);
  if (above != nullptr) above->below = nullptr;
  if (to < end) {
    above->below = MakeFreeBlock(first + (to - from), end - to, nullptr, /*last=*/false);
    Insert(above->below);
  }
  if (block == end_) end_ = from > at ? block : nullptr;
  if (from > at) {
    block->size = from - at;
    block->last = true;
    Insert(block);
  }
  return to - from;
}

}  // namespace kinefit
