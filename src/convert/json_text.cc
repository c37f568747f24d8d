#include "convert/json_text.h"

#include "files/error.h"
#include "files/text.h"

namespace kinefit {

nlohmann::json ParseJson(std::string_view text, const std::string& where) {
  text = WithoutByteOrderMark(text, where);
  try {
    return nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    throw Error("this is not JSON (byte " + std::to_string(error.byte) + ")", where,
                "correct it there; JSON knows no NaN");
  } catch (const nlohmann::json::exception&) {
    throw Error("this JSON holds a number beyond all bounds", where, "correct the number");
  }
}

}  // namespace kinefit
