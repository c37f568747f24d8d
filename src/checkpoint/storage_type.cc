#include "checkpoint/storage_type.h"

namespace kinefit {
namespace {

constexpr StorageType kTypes[] = {
    {at::kFloat, "FloatStorage", "float32"}, {at::kDouble, "DoubleStorage", "float64"},
    {at::kHalf, "HalfStorage", "float16"},   {at::kBFloat16, "BFloat16Storage", "bfloat16"},
    {at::kLong, "LongStorage", "int64"},     {at::kInt, "IntStorage", "int32"},
    {at::kShort, "ShortStorage", "int16"},   {at::kChar, "CharStorage", "int8"},
    {at::kByte, "ByteStorage", "uint8"},     {at::kBool, "BoolStorage", "bool"},
};

}  // namespace

const StorageType* FindStorageType(at::ScalarType dtype) {
  for (const StorageType& type : kTypes) {
    if (type.dtype == dtype) return &type;
  }
  return nullptr;
}

const StorageType* FindStorageType(const std::string& full_name) {
  if (full_name.rfind("torch.", 0) != 0) return nullptr;
  const std::string name = full_name.substr(6);
  for (const StorageType& type : kTypes) {
    if (name == type.storage || name == type.name) return &type;
  }
  return nullptr;
}

}  // namespace kinefit
