#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace kinefit {

// A TOML value and the place it was written at. Plain data, so that only toml_tree.cc pays for
// compiling toml++.
struct TomlNode {
  enum class Kind { kBool, kInteger, kReal, kText, kDate, kList, kTable };

  Kind kind = Kind::kTable;
  bool boolean = false;
  int64_t integer = 0;
  double real = 0;
  std::string text;                                       // kText
  std::vector<TomlNode> items;                            // kList
  std::vector<std::pair<std::string, TomlNode>> members;  // kTable, in the order of their lines
  std::string where;                                      // "file:line"
};

// Parses a TOML document; `origin` (a file name) is what errors and `where` name. Throws Error with
// file:line for anything that is not TOML 1.0, for absurd sizes and for absurd nesting.
TomlNode ParseToml(const std::string& text, const std::string& origin);

// Reads a whole file of at most a megabyte and parses it. Throws Error naming the file.
TomlNode ParseTomlFile(const std::string& path);

// "a string", "an integer", ... for messages.
std::string KindName(TomlNode::Kind kind);

// The value as one would write it in TOML, shortened to about 60 characters, for messages.
std::string Abbreviate(const TomlNode& node);

// `text` as a TOML basic string, quotes included.
std::string QuoteToml(const std::string& text);

// The shortest TOML float that reads back as exactly `value`.
std::string FormatReal(double value);

}  // namespace kinefit
