#include "config/option_value.h"

#include <algorithm>
#include <cmath>

#include "files/error.h"

namespace kinefit {
namespace {

constexpr size_t kMaxListLength = 4096;

// A bound as a person writes it: 1, not 1.0.
std::string Bound(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) {
    return std::to_string(static_cast<int64_t>(value));
  }
  return FormatReal(value);
}

[[noreturn]] void ThrowWrongType(const TomlNode& node, const std::string& key,
                                 const std::string& wanted) {
  throw Error(
      key + " must be " + wanted + ", not " + KindName(node.kind) + " (" + Abbreviate(node) + ")",
      node.where, "write " + wanted + "; `kinefit config keys` lists every key");
}

void CheckRange(const TomlNode& node, const std::string& key, const Rule& rule, double value) {
  const bool inside = std::isfinite(value) && value <= rule.max &&
                      (rule.min_excluded ? value > rule.min : value >= rule.min);
  if (inside) return;
  const std::string allowed = Describe(rule);
  throw Error(key + " = " + Abbreviate(node) + " is out of range", node.where,
              "allowed: " + (allowed.empty() ? "any finite number" : allowed));
}

}  // namespace

Rule Anything() { return {}; }

Rule Path(std::vector<std::string> words) {
  Rule rule;
  rule.path = true;
  rule.words = std::move(words);
  return rule;
}

Rule AtLeast(double min) {
  Rule rule;
  rule.min = min;
  return rule;
}

Rule Between(double min, double max) {
  Rule rule;
  rule.min = min;
  rule.max = max;
  return rule;
}

Rule AboveUpTo(double excluded_min, double max) {
  Rule rule = Between(excluded_min, max);
  rule.min_excluded = true;
  return rule;
}

Rule OneOf(std::vector<std::string> choices) {
  Rule rule;
  rule.choices = std::move(choices);
  return rule;
}

std::string Describe(const Rule& rule) {
  std::string text;
  if (!rule.choices.empty()) {
    for (size_t i = 0; i < rule.choices.size(); ++i) {
      if (i > 0) text += i + 1 == rule.choices.size() ? " or " : ", ";
      text += QuoteToml(rule.choices[i]);
    }
    return text;
  }
  const bool below = std::isfinite(rule.max);
  if (std::isfinite(rule.min)) {
    if (rule.min_excluded) {
      text = "> " + Bound(rule.min);
    } else {
      text = (below ? "" : ">= ") + Bound(rule.min);
    }
  }
  if (below) text += (text.empty() ? "<= " : " to ") + Bound(rule.max);
  return text;
}

void ReadValue(const TomlNode& node, const std::string& key, const Rule&, bool* value) {
  if (node.kind != TomlNode::Kind::kBool) ThrowWrongType(node, key, "true or false");
  *value = node.boolean;
}

void ReadValue(const TomlNode& node, const std::string& key, const Rule& rule, int64_t* value) {
  if (node.kind != TomlNode::Kind::kInteger) ThrowWrongType(node, key, "an integer");
  CheckRange(node, key, rule, static_cast<double>(node.integer));
  *value = node.integer;
}

void ReadValue(const TomlNode& node, const std::string& key, const Rule& rule, double* value) {
  if (node.kind != TomlNode::Kind::kReal && node.kind != TomlNode::Kind::kInteger) {
    ThrowWrongType(node, key, "a number");
  }
  const double number =
      node.kind == TomlNode::Kind::kReal ? node.real : static_cast<double>(node.integer);
  CheckRange(node, key, rule, number);
  *value = number;
}

void ReadValue(const TomlNode& node, const std::string& key, const Rule& rule, std::string* value) {
  if (node.kind != TomlNode::Kind::kText) ThrowWrongType(node, key, "a string");
  const std::vector<std::string>& choices = rule.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), node.text) == choices.end()) {
    throw Error(key + " cannot be " + Abbreviate(node), node.where, "allowed: " + Describe(rule));
  }
  // File names end at a NUL for the system: "a\u0000b" would silently mean "a".
  if (node.text.find('\0') != std::string::npos) {
    throw Error(key + " holds a NUL character", node.where, "remove it");
  }
  *value = node.text;
}

std::string WriteValue(bool value) { return value ? "true" : "false"; }
std::string WriteValue(int64_t value) { return std::to_string(value); }
std::string WriteValue(double value) { return FormatReal(value); }
std::string WriteValue(const std::string& value) { return QuoteToml(value); }

std::string TypeName(const bool*) { return "boolean"; }
std::string TypeName(const int64_t*) { return "integer"; }
std::string TypeName(const double*) { return "number"; }
std::string TypeName(const std::string*) { return "string"; }

void CheckList(const TomlNode& node, const std::string& key, int64_t length) {
  if (node.kind != TomlNode::Kind::kList) ThrowWrongType(node, key, "a list in square brackets");
  if (length >= 0 && node.items.size() != static_cast<size_t>(length)) {
    throw Error(key + " must have " + std::to_string(length) + " entries, not " +
                    std::to_string(node.items.size()),
                node.where, "write all " + std::to_string(length) + " in square brackets");
  }
  if (node.items.size() > kMaxListLength) {
    throw Error(key + " has " + std::to_string(node.items.size()) + " entries", node.where,
                "allowed: at most " + std::to_string(kMaxListLength));
  }
}

}  // namespace kinefit
