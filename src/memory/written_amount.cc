#include "memory/written_amount.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <string>

namespace kinefit {
namespace {

struct Unit {
  std::string_view name;
  double bytes;
};

// Longer names first: "mib" ends in "b".
constexpr std::array<Unit, 15> kUnits = {{{"bytes", 1},
                                          {"byte", 1},
                                          {"kib", 0x1p10},
                                          {"mib", 0x1p20},
                                          {"gib", 0x1p30},
                                          {"tib", 0x1p40},
                                          {"pib", 0x1p50},
                                          {"eib", 0x1p60},
                                          {"kb", 0x1p10},
                                          {"mb", 0x1p20},
                                          {"gb", 0x1p30},
                                          {"tb", 0x1p40},
                                          {"pb", 0x1p50},
                                          {"eb", 0x1p60},
                                          {"b", 1}}};

constexpr size_t kLongestNumber = 400;

bool IsNumberCharacter(char c) {
  return (c >= '0' && c <= '9') || c == '.' || c == ',' || c == '-' || c == '+' || c == 'e';
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

const Unit* UnitAt(std::string_view text, size_t begin) {
  for (const Unit& unit : kUnits) {
    if (text.compare(begin, unit.name.size(), unit.name) == 0) return &unit;
  }
  return nullptr;
}

const Unit* UnitBefore(std::string_view text, size_t end) {
  for (const Unit& unit : kUnits) {
    if (end >= unit.name.size() &&
        text.substr(end - unit.name.size(), unit.name.size()) == unit.name) {
      return &unit;
    }
  }
  return nullptr;
}

// REQUIRES: `digits` has a digit.
WrittenAmount Evaluate(std::string_view digits, const Unit& unit) {
  std::string plain;
  for (const char c : digits) {
    if (c != ',') plain += c;
  }
  char* end = nullptr;
  const double number = std::strtod(plain.c_str(), &end);
  const double bytes = number * unit.bytes;
  WrittenAmount amount;
  if (*end != 0 || std::isnan(bytes)) {
    amount.state = WrittenAmount::kNotANumber;
  } else if (bytes < 0 || digits[0] == '-') {
    amount.state = WrittenAmount::kNegative;
  } else if (bytes >= 0x1p64 * 0.999 && bytes <= 0x1p64 * 1.001) {
    amount.state = WrittenAmount::kNotKnown;
  } else if (bytes >= 0x1p55) {
    amount.state = WrittenAmount::kTooLarge;
  } else {
    amount.bytes = std::llround(bytes);
  }
  return amount;
}

// Cuts what cannot begin a number ("...the5mib"), and a comma or point that ended a sentence.
size_t FirstOfNumber(std::string_view text, size_t begin, size_t end) {
  while (begin < end && !IsDigit(text[begin]) && text[begin] != '-' && text[begin] != '+') ++begin;
  // "e-5" after a word, or "--5": the sign next to the digits counts.
  while (begin + 1 < end && !IsDigit(text[begin]) && !IsDigit(text[begin + 1])) ++begin;
  return begin;
}

}  // namespace

std::optional<WrittenAmount> AmountAt(std::string_view text, size_t begin) {
  size_t end = begin;
  while (end < text.size() && end - begin < kLongestNumber && IsNumberCharacter(text[end])) ++end;
  if (end == begin || end == text.size()) return std::nullopt;
  if (!IsDigit(text[begin]) && text[begin] != '-' && text[begin] != '+') return std::nullopt;
  // The "e" of "eib" was taken for an exponent.
  if (text[end - 1] == 'e') --end;
  if (end == begin || !IsDigit(text[end - 1])) return std::nullopt;
  const Unit* unit = UnitAt(text, end);
  if (unit == nullptr) return std::nullopt;
  WrittenAmount amount = Evaluate(text.substr(begin, end - begin), *unit);
  amount.begin = begin;
  amount.end = end + unit->name.size();
  return amount;
}

std::optional<WrittenAmount> AmountBefore(std::string_view text, size_t end) {
  const Unit* unit = UnitBefore(text, end);
  if (unit == nullptr) return std::nullopt;
  const size_t last = end - unit->name.size();
  size_t first = last;
  while (first > 0 && last - first < kLongestNumber && IsNumberCharacter(text[first - 1])) --first;
  first = FirstOfNumber(text, first, last);
  if (first == last || !IsDigit(text[last - 1])) return std::nullopt;
  WrittenAmount amount = Evaluate(text.substr(first, last - first), *unit);
  amount.begin = first;
  amount.end = end;
  return amount;
}

}  // namespace kinefit
