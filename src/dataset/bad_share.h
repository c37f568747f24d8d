#pragma once

#include <cstdint>

namespace kinefit {

// So many bad clips never stop anything by themselves: of thirty clips of one's own, one percent is
// none.
constexpr int64_t kFewBadClips = 3;

// The one rule on clips that cannot be used, wherever clips are read, converted or packed: whether
// `bad` different clips of `all` are more than the share that may be.
inline bool TooManyBad(int64_t bad, int64_t all, double max_share) {
  return bad > kFewBadClips && static_cast<double>(bad) > max_share * static_cast<double>(all);
}

}  // namespace kinefit
