#include "files/text.h"

#include "files/error.h"

namespace kinefit {

std::string_view WithoutByteOrderMark(std::string_view text, const std::string& where) {
  const std::string_view start = text.substr(0, 2);
  if (start == "\xFF\xFE" || start == "\xFE\xFF") {
    throw Error("the file is in UTF-16", where, "save it as UTF-8");
  }
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  return text;
}

}  // namespace kinefit
