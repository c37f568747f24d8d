#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace kinefit {

// A named, counter-based random stream (Philox4x32-10, Salmon et al., SC'11). The n-th draw is a
// function of (seed, purpose, a, b, n) alone: never of threads, of earlier streams or of the
// platform. Cheap to make; copy it to fork. Not thread-safe: one stream, one thread.
class RandomStream {
 public:
  // `purpose` names the use ("sampler", "augment", "drop_path", ...); `a` and `b` are usually
  // epoch and sample index.
  RandomStream(uint64_t seed, std::string_view purpose, uint64_t a = 0, uint64_t b = 0);

  uint32_t Bits();
  // Uniform in [0, 1), 53 bits.
  double Uniform();
  double Uniform(double low, double high) { return low + (high - low) * Uniform(); }
  // Uniform integer in [low, high). REQUIRES: low < high.
  int64_t Integer(int64_t low, int64_t high);
  // Standard normal (Box-Muller).
  double Normal();
  bool Chance(double probability) { return Uniform() < probability; }
  // What, with the number of a block of four words, makes these words: for devices that draw the
  // same numbers by themselves.
  std::array<uint32_t, 2> key() const { return key_; }
  std::array<uint32_t, 2> lane() const { return {counter_[2], counter_[3]}; }
  // Fisher-Yates permutation of 0..n-1.
  std::vector<int64_t> Permutation(int64_t n);

 private:
  void Refill();

  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

}  // namespace kinefit
