#include "config/toml_tree.h"

#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "files/error.h"
#include "files/text_mark.h"

namespace kinefit {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
// toml++ bounds the nesting of values but not of dotted keys, and frees its tree recursively: a key
// of a million dots would exhaust the stack. No key is deeper than the dots there are.
constexpr size_t kMaxDots = 4000;
constexpr int kMaxDepth = 16;  // of what is converted; keys are four deep at most

std::string At(const std::string& origin, const toml::source_region& source) {
  return origin + ":" + std::to_string(source.begin.line);
}

void CheckSize(const std::string& text, const std::string& origin) {
  if (text.size() > kMaxBytes) {
    throw Error("a configuration of " + std::to_string(text.size()) + " bytes", origin,
                "configurations are TOML texts of at most 1 MiB; is this the right file?");
  }
  if (static_cast<size_t>(std::count(text.begin(), text.end(), '.')) > kMaxDots) {
    throw Error("more than 4000 dots in one file", origin,
                "no configuration needs so many; is this the right file?");
  }
}

TomlNode Convert(const toml::node& node, const std::string& origin, int depth);

TomlNode ConvertTable(const toml::table& table, const std::string& origin, int depth) {
  struct Member {
    toml::source_index line;
    std::pair<std::string, TomlNode> entry;
  };
  std::vector<Member> members;
  for (const auto& [key, value] : table) {
    TomlNode node = Convert(value, origin, depth + 1);
    if (key.source().begin) node.where = At(origin, key.source());
    members.push_back({key.source().begin.line, {std::string(key.str()), std::move(node)}});
  }
  std::stable_sort(members.begin(), members.end(),
                   [](const Member& a, const Member& b) { return a.line < b.line; });
  TomlNode result;
  for (Member& member : members) result.members.push_back(std::move(member.entry));
  return result;
}

TomlNode Convert(const toml::node& node, const std::string& origin, int depth) {
  if (depth > kMaxDepth) {
    throw Error("values nested more than 16 deep", At(origin, node.source()),
                "no option is nested so deeply; `kinefit config keys` lists every key");
  }
  TomlNode result;
  switch (node.type()) {
    case toml::node_type::table:
      result = ConvertTable(*node.as_table(), origin, depth);
      break;
    case toml::node_type::array:
      result.kind = TomlNode::Kind::kList;
      for (const toml::node& item : *node.as_array())
        result.items.push_back(Convert(item, origin, depth + 1));
      break;
    case toml::node_type::string:
      result.kind = TomlNode::Kind::kText;
      result.text = node.as_string()->get();
      break;
    case toml::node_type::integer:
      result.kind = TomlNode::Kind::kInteger;
      result.integer = node.as_integer()->get();
      break;
    case toml::node_type::floating_point:
      result.kind = TomlNode::Kind::kReal;
      result.real = node.as_floating_point()->get();
      break;
    case toml::node_type::boolean:
      result.kind = TomlNode::Kind::kBool;
      result.boolean = node.as_boolean()->get();
      break;
    default:
      result.kind = TomlNode::Kind::kDate;
  }
  result.where = At(origin, node.source());
  return result;
}

std::string Render(const TomlNode& node) {
  switch (node.kind) {
    case TomlNode::Kind::kBool:
      return node.boolean ? "true" : "false";
    case TomlNode::Kind::kInteger:
      return std::to_string(node.integer);
    case TomlNode::Kind::kReal:
      return FormatReal(node.real);
    case TomlNode::Kind::kText:
      return QuoteToml(node.text);
    case TomlNode::Kind::kDate:
      return "a date";
    case TomlNode::Kind::kList:
      return "[" + std::to_string(node.items.size()) +
             (node.items.size() == 1 ? " entry]" : " entries]");
    case TomlNode::Kind::kTable:
      return "{" + std::to_string(node.members.size()) +
             (node.members.size() == 1 ? " key}" : " keys}");
  }
  return "";
}

}  // namespace

TomlNode ParseToml(const std::string& text, const std::string& origin) {
  CheckSize(text, origin);
  try {
    return ConvertTable(toml::parse(WithoutByteOrderMark(text, origin)), origin, 0);
  } catch (const toml::parse_error& error) {
    throw Error("not valid TOML: " + std::string(error.description()), At(origin, error.source()),
                "correct the line (strings need quotes, lists square brackets: https://toml.io)");
  }
}

TomlNode ParseTomlFile(const std::string& path) {
  std::error_code status;
  if (!std::filesystem::exists(path, status)) {
    throw Error("there is no such configuration file", path, "check the path");
  }
  if (std::filesystem::is_directory(path, status)) {
    throw Error("the configuration is a folder, not a file", path, "name a .toml file");
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxBytes + 1, '\0');
  if (!file) throw Error("the configuration cannot be opened", path, "check its permissions");
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) throw Error("the configuration cannot be read", path, "check the disk");
  text.resize(static_cast<size_t>(file.gcount()));
  return ParseToml(text, path);
}

std::string KindName(TomlNode::Kind kind) {
  switch (kind) {
    case TomlNode::Kind::kBool:
      return "a boolean";
    case TomlNode::Kind::kInteger:
      return "an integer";
    case TomlNode::Kind::kReal:
      return "a number";
    case TomlNode::Kind::kText:
      return "a string";
    case TomlNode::Kind::kDate:
      return "a date";
    case TomlNode::Kind::kList:
      return "a list";
    case TomlNode::Kind::kTable:
      return "a table";
  }
  return "";
}

std::string Abbreviate(const TomlNode& node) {
  std::string text = Render(node);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

std::string QuoteToml(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04X", byte);
      quoted += escape;
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

std::string FormatReal(double value) {
  char buffer[64];
  // Both are the shortest of their kind that read back exactly; 0.0001 reads better than 1e-04.
  const double size = std::abs(value);
  const bool plain = value == 0 || (size >= 1e-6 && size < 1e15);
  const std::to_chars_result end =
      std::to_chars(buffer, buffer + sizeof buffer, value,
                    plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer, end.ptr);
  // A float without point or exponent would read back as an integer.
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

}  // namespace kinefit
