#include "convert/json_text.h"

#include <array>

#include "files/error.h"
#include "files/text_mark.h"

namespace kinefit {
namespace {

// Python writes numbers that are none as NaN, Infinity and -Infinity, which JSON has not: outside
// of strings they become null.
std::string WithoutNan(std::string_view text) {
  constexpr std::array<std::string_view, 3> kWords = {"NaN", "-Infinity", "Infinity"};
  std::string plain;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') quoted = !quoted;
    if (quoted && c == '\\' && i + 1 < text.size()) {
      plain += c;
      plain += text[++i];
      continue;
    }
    size_t skipped = 0;
    for (const std::string_view word : kWords) {
      if (!quoted && skipped == 0 && text.substr(i, word.size()) == word) skipped = word.size();
    }
    if (skipped > 0) {
      plain += "null";
      i += skipped - 1;
    } else {
      plain += c;
    }
  }
  return plain;
}

nlohmann::json Parse(std::string_view text, const std::string& where) {
  try {
    return nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    throw Error("this is not JSON (byte " + std::to_string(error.byte) + ")", where,
                "correct it there, or write the file anew");
  } catch (const nlohmann::json::exception&) {
    throw Error("this JSON holds a number beyond all bounds", where, "correct the number");
  }
}

}  // namespace

nlohmann::json ParseJson(std::string_view text, const std::string& where) {
  text = WithoutByteOrderMark(text, where);
  const bool python =
      text.find("NaN") != std::string_view::npos || text.find("Infinity") != std::string_view::npos;
  return python ? Parse(WithoutNan(text), where) : Parse(text, where);
}

nlohmann::json ParseJsonOrLines(std::string_view text, const std::string& where) {
  text = WithoutByteOrderMark(text, where);
  const size_t end = text.find('\n');
  const size_t next = end == std::string_view::npos ? end : text.find_first_not_of(" \t\r\n", end);
  const bool lines = next != std::string_view::npos && (text[next] == '{' || text[next] == '[') &&
                     nlohmann::json::accept(WithoutNan(text.substr(0, end)));
  if (!lines) return ParseJson(text, where);
  nlohmann::json list = nlohmann::json::array();
  int64_t number = 0;
  while (!text.empty()) {
    const size_t stop = text.find('\n');
    const std::string_view line = text.substr(0, stop);
    text = stop == std::string_view::npos ? std::string_view() : text.substr(stop + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    list.push_back(ParseJson(line, where + ":" + std::to_string(number)));
  }
  return list;
}

}  // namespace kinefit
