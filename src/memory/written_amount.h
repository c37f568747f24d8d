#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kinefit {

// An amount of memory as programs write it, squeezed: "62.00mib", "0bytes", "31451456kb". All units
// count powers of 1024: so do PyTorch, Apple's Metal backend ("GB") and the Linux kernel ("kB").
struct WrittenAmount {
  enum State {
    kUsable,
    kNegative,
    kTooLarge,   // 2^55 bytes and more: no machine has that; sums of the others cannot overflow
    kNotKnown,   // 2^64 - 1, NVML's way of saying that the driver does not know
    kNotANumber  // digits that make no number
  };
  State state = kUsable;
  int64_t bytes = 0;  // if usable
  size_t begin = 0;   // of the text, where the number starts
  size_t end = 0;     // where the unit ends
};

// The amount that starts exactly at `text[begin]`. Digits may be grouped by commas. Absent if no
// number with a unit stands there.
std::optional<WrittenAmount> AmountAt(std::string_view text, size_t begin);

// The amount that ends exactly before `text[end]`.
std::optional<WrittenAmount> AmountBefore(std::string_view text, size_t end);

}  // namespace kinefit
