#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kinefit {

// Columns a terminal needs for UTF-8 text: 2 for East Asian wide characters and emoji, 0 for
// combining marks and control characters. Invalid bytes count 1 each.
int64_t DisplayWidth(std::string_view text);

// The longest prefix of whole characters that fits into `columns`.
std::string_view PrefixOfWidth(std::string_view text, int64_t columns);

// Rows of equal meaning, the first one the header, aligned into columns separated by two spaces,
// with a rule under the header. Columns whose every cell below the header is a number (a percentage
// and "-" included) are flushed right. Short rows are filled up with empty cells. Every line ends
// in
// '\n' and has no trailing blanks. Line breaks and tabs in cells become spaces.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace kinefit
