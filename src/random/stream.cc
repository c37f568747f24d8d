#include "random/stream.h"

#include <cmath>

namespace kinefit {
namespace {

constexpr uint64_t kFnvOffset = 1469598103934665603ULL;
constexpr uint64_t kFnvPrime = 1099511628211ULL;

uint64_t Mix(uint64_t value) {  // splitmix64 finaliser
  value += 0x9E3779B97F4A7C15ULL;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

uint32_t High(uint64_t value) { return static_cast<uint32_t>(value >> 32); }
uint32_t Low(uint64_t value) { return static_cast<uint32_t>(value); }

}  // namespace

RandomStream::RandomStream(uint64_t seed, std::string_view purpose, uint64_t a, uint64_t b) {
  uint64_t hash = kFnvOffset;
  for (const char c : purpose) hash = (hash ^ static_cast<unsigned char>(c)) * kFnvPrime;
  const uint64_t key = Mix(seed ^ Mix(hash));
  const uint64_t lane = Mix(a ^ Mix(b ^ Mix(key)));
  key_ = {Low(key), High(key)};
  counter_ = {0, 0, Low(lane), High(lane)};
}

void RandomStream::Refill() {
  std::array<uint32_t, 4> c = counter_;
  uint32_t k0 = key_[0];
  uint32_t k1 = key_[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53U} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57U} * c[2];
    c = {High(p1) ^ c[1] ^ k0, Low(p1), High(p0) ^ c[3] ^ k1, Low(p0)};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  block_ = c;
  if (++counter_[0] == 0) ++counter_[1];
  used_ = 0;
}

uint32_t RandomStream::Bits() {
  if (used_ == 4) Refill();
  return block_[static_cast<size_t>(used_++)];
}

double RandomStream::Uniform() {
  const uint64_t high = Bits() >> 5;
  const uint64_t low = Bits() >> 6;
  return static_cast<double>((high << 26) | low) * (1.0 / 9007199254740992.0);
}

int64_t RandomStream::Integer(int64_t low, int64_t high) {
  const uint64_t range = static_cast<uint64_t>(high - low);
  const uint64_t limit = UINT64_MAX - UINT64_MAX % range;  // rejection keeps it unbiased
  uint64_t draw = 0;
  do {
    draw = (static_cast<uint64_t>(Bits()) << 32) | Bits();
  } while (draw >= limit);
  return low + static_cast<int64_t>(draw % range);
}

double RandomStream::Normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - Uniform()));
  return radius * std::cos(6.283185307179586 * Uniform());
}

std::vector<int64_t> RandomStream::Permutation(int64_t n) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) order[static_cast<size_t>(i)] = i;
  for (int64_t i = n - 1; i > 0; --i) {
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(Integer(0, i + 1))]);
  }
  return order;
}

}  // namespace kinefit
