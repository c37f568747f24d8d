#include "checkpoint/checkpoint.h"
#include "files/error.h"

namespace kinefit {
namespace {

const char* TypeNameOf(const CheckpointValue& value) {
  static const char* const names[] = {"None",     "a bool",   "an int", "a float",
                                      "a string", "a tensor", "a list", "a dict"};
  return names[value.value().index()];
}

template <typename T>
const T& Get(const CheckpointValue& value, const std::string& what, const char* wanted) {
  if (const T* held = std::get_if<T>(&value.value())) return *held;
  throw Error(std::string("expected ") + wanted + ", found " + TypeNameOf(value), what,
              "docs/formats/checkpoint.md says what a checkpoint holds");
}

}  // namespace

int64_t CheckpointValue::AsInt(const std::string& what) const {
  return Get<int64_t>(*this, what, "an int");
}

double CheckpointValue::AsDouble(const std::string& what) const {
  if (const int64_t* integer = std::get_if<int64_t>(&value_)) return static_cast<double>(*integer);
  return Get<double>(*this, what, "a number");
}

bool CheckpointValue::AsBool(const std::string& what) const {
  return Get<bool>(*this, what, "a bool");
}

const std::string& CheckpointValue::AsString(const std::string& what) const {
  return Get<std::string>(*this, what, "a string");
}

const at::Tensor& CheckpointValue::AsTensor(const std::string& what) const {
  return Get<at::Tensor>(*this, what, "a tensor");
}

const CheckpointList& CheckpointValue::AsList(const std::string& what) const {
  return Get<CheckpointList>(*this, what, "a list");
}

const CheckpointDict& CheckpointValue::AsDict(const std::string& what) const {
  return Get<CheckpointDict>(*this, what, "a dict");
}

const CheckpointValue* CheckpointValue::Find(const std::string& key) const {
  const CheckpointDict* dict = std::get_if<CheckpointDict>(&value_);
  if (dict == nullptr) return nullptr;
  for (const auto& [name, value] : *dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

}  // namespace kinefit
