#pragma once

#include <string>
#include <string_view>

namespace kinefit {

// `text` without the byte order mark that Windows programs put before UTF-8. Throws Error, naming
// `where`, for UTF-16, which would be read as rubbish.
std::string_view WithoutByteOrderMark(std::string_view text, const std::string& where);

}  // namespace kinefit
