#include "files/text_mark.h"

#include "files/error.h"

namespace kinefit {

std::string_view WithoutByteOrderMark(std::string_view text, const std::string& where) {
  if (text.substr(0, 3) == "\xef\xbb\xbf") return text.substr(3);
  if (text.substr(0, 2) == "\xff\xfe" || text.substr(0, 2) == "\xfe\xff") {
    throw Error("this text is in UTF-16", where,
                "save it as UTF-8, for example: iconv -f UTF-16 -t UTF-8 OLD > NEW");
  }
  return text;
}

}  // namespace kinefit
