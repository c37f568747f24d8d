#include "memory/bytes.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "files/error.h"

namespace kinefit {

int64_t ParseBytes(const std::string& text, const std::string& where) {
  static const std::map<std::string, double> kUnits = {
      {"b", 1.0},      {"bytes", 1.0}, {"k", 0x1p10},   {"kib", 0x1p10}, {"m", 0x1p20},
      {"mib", 0x1p20}, {"g", 0x1p30},  {"gib", 0x1p30}, {"t", 0x1p40},   {"tib", 0x1p40},
      {"kb", 1e3},     {"mb", 1e6},    {"gb", 1e9},     {"tb", 1e12}};
  const char* begin = text.c_str();
  char* end = nullptr;
  const double number = std::strtod(begin, &end);
  std::string unit;
  for (const char* c = end; *c != 0; ++c) {
    if (std::isspace(static_cast<unsigned char>(*c)) == 0) {
      unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
    }
  }
  if (end != begin && unit.empty()) {
    throw Error("\"" + text + "\" has no unit", where,
                "write what it counts, for example \"" + text + "GiB\" or \"" + text + "MiB\"");
  }
  const auto known = kUnits.find(unit);
  const double bytes = known == kUnits.end() ? 0 : std::floor(number * known->second);
  if (end == begin || !std::isfinite(bytes) || bytes < 1 || bytes > 0x1p62) {
    throw Error("\"" + text + "\" is no amount of memory", where,
                "write a number and a unit, for example \"6GiB\" or \"512MiB\"");
  }
  return static_cast<int64_t>(bytes);
}

std::string FormatAmount(int64_t bytes) {
  static constexpr std::array<const char*, 3> kUnits = {"KiB", "MiB", "GiB"};
  if (bytes < 1024 && bytes > -1024) return std::to_string(bytes) + " bytes";
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (std::abs(value) >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%.2f %s", value, kUnits[unit]);
  return text.data();
}

std::string AmountOption(int64_t bytes) {
  std::string text = FormatAmount(bytes);
  text.erase(text.find(' '), 1);
  return text;
}

}  // namespace kinefit
