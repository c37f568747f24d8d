#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "config/toml_tree.h"

namespace kinefit {

// What a value (or each entry of a list) may be, beyond its type.
struct Rule {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_excluded = false;
  std::vector<std::string> choices;  // strings; empty = any
  bool path = false;                 // of a file or folder
  std::vector<std::string> words;    // of a path: texts that are none
};

Rule Anything();
Rule AtLeast(double min);
Rule Between(double min, double max);             // both included
Rule AboveUpTo(double excluded_min, double max);  // (min, max]
Rule OneOf(std::vector<std::string> choices);
Rule Path(std::vector<std::string> words = {});  // or one of `words`

// "0 to 1", "> 0 to 1", ">= 0", "\"sgd\" or \"adamw\""; "" if anything is allowed.
std::string Describe(const Rule& rule);

// The types an option can have. Each Read checks type and rule, writes `*value`, and throws Error
// naming `key` and the node's file:line; integers are accepted where numbers are wanted, never
// the reverse. Write gives the TOML text that reads back as the same value.
void ReadValue(const TomlNode& node, const std::string& key, const Rule& rule, bool* value);
void ReadValue(const TomlNode& node, const std::string& key, const Rule& rule, int64_t* value);
void ReadValue(const TomlNode& node, const std::string& key, const Rule& rule, double* value);
void ReadValue(const TomlNode& node, const std::string& key, const Rule& rule, std::string* value);

std::string WriteValue(bool value);
std::string WriteValue(int64_t value);
std::string WriteValue(double value);
std::string WriteValue(const std::string& value);

std::string TypeName(const bool*);
std::string TypeName(const int64_t*);
std::string TypeName(const double*);
std::string TypeName(const std::string*);

// Throws unless `node` is a list of `length` entries (-1: any reasonable number).
void CheckList(const TomlNode& node, const std::string& key, int64_t length);

template <typename T>
void ReadValue(const TomlNode& node, const std::string& key, const Rule& rule,
               std::vector<T>* value) {
  CheckList(node, key, -1);
  std::vector<T> result(node.items.size());
  for (size_t i = 0; i < result.size(); ++i) {
    ReadValue(node.items[i], key + "[" + std::to_string(i) + "]", rule, &result[i]);
  }
  *value = std::move(result);
}

template <typename T, size_t N>
void ReadValue(const TomlNode& node, const std::string& key, const Rule& rule,
               std::array<T, N>* value) {
  CheckList(node, key, N);
  for (size_t i = 0; i < N; ++i) {
    ReadValue(node.items[i], key + "[" + std::to_string(i) + "]", rule, &(*value)[i]);
  }
}

template <typename T>
std::string WriteValue(const std::vector<T>& value);  // declared first: lists nest

template <typename List>
std::string WriteList(const List& list) {
  std::string text = "[";
  for (size_t i = 0; i < list.size(); ++i) text += (i ? ", " : "") + WriteValue(list[i]);
  return text + "]";
}
template <typename T>
std::string WriteValue(const std::vector<T>& value) {
  return WriteList(value);
}
template <typename T, size_t N>
std::string WriteValue(const std::array<T, N>& value) {
  return WriteList(value);
}

template <typename T>
std::string TypeName(const std::vector<T>*) {
  return "list of " + TypeName(static_cast<const T*>(nullptr));
}
template <typename T, size_t N>
std::string TypeName(const std::array<T, N>*) {
  return std::to_string(N) + " x " + TypeName(static_cast<const T*>(nullptr));
}

}  // namespace kinefit
