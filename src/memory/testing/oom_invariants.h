#pragma once

#include <string>

#include "memory/diagnosis.h"

namespace kinefit {

// What holds for every diagnosis, whatever the message: "" or which promise it breaks.
inline std::string BrokenPromise(const Diagnosis& d) {
  if (d.headline.empty() || d.why.empty() || d.advice.empty()) return "something is not explained";
  if (d.message.line < 1 || d.message.count < 1) return "the message has no place";
  if (d.message.excerpt.size() > 200) return "the excerpt is long";
  int64_t sum = 0;
  for (const MemoryShare& share : d.shares) {
    sum += share.bytes;
    if (share.what.empty()) return "a share has no name";
    if (share.bytes < 0 && share.holder != Holder::kElsewhere &&
        share.holder != Holder::kRounding) {
      return "a share is negative";
    }
  }
  if (!d.shares.empty() && sum != d.message.capacity) return "the shares do not add up";
  for (const auto& budget : {d.available, d.if_alone}) {
    if (budget && (*budget <= 0 || *budget > *d.message.capacity)) return "a budget cannot be";
  }
  if (d.available && d.if_alone && *d.available > *d.if_alone) {
    return "more is left with others than without";
  }
  return NameOf(d.cause).empty() ? "the cause has no name" : "";
}

}  // namespace kinefit
