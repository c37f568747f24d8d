#pragma once

#include <string>
#include <string_view>

namespace kinefit {

// `text` without the byte order mark that editors and spreadsheets put in front of UTF-8. Throws
// Error naming `where` for UTF-16 and UTF-32, which no format that kinefit reads is written in.
std::string_view WithoutByteOrderMark(std::string_view text, const std::string& where);

}  // namespace kinefit
