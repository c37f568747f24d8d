#pragma once

#include <cstdint>
#include <string>

namespace kinefit {

// "6GiB", "39.39 GiB", "512 MB", "1048576 B": a number and a unit, B, KiB, MiB, GiB, TiB
// (powers of 1024; K, M, G, T alone mean the same) or KB, MB, GB, TB (powers of 1000), in any case.
// Throws Error naming `where` (the key or option the text came from) for anything else, and for
// zero or less.
int64_t ParseBytes(const std::string& text, const std::string& where);

// "62.00 MiB", "22.45 GiB", "512 bytes": as PyTorch writes amounts, so that figures can be found
// again in its messages. ParseBytes reads it back.
std::string FormatAmount(int64_t bytes);

// The same as one word, for command lines: "22.45GiB".
std::string AmountOption(int64_t bytes);

}  // namespace kinefit
