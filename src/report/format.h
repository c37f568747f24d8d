#pragma once

#include <cstdint>
#include <string>

namespace kinefit {

// "0.8 s", "42 s", "3m 05s", "1h 02m", "2d 04h". Negative, infinite or NaN: "?".
std::string FormatDuration(double seconds);

// "512 B", "38.0 KiB", "1.15 GiB": three significant digits, binary units.
std::string FormatBytes(int64_t bytes);

// 0.9834 -> "98.34 %".
std::string FormatPercent(double share, int decimals = 2);

}  // namespace kinefit
