#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace kinefit {

enum class DType {
  kBool,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUInt8,
  kUInt16,
  kUInt32,
  kUInt64,
  kFloat16,
  kFloat32,
  kFloat64,
};

size_t ItemSize(DType dtype);
// numpy's name: "float32", "bool", ...
const char* DTypeName(DType dtype);
// numpy's code with its byte order: "<f4", "|b1", ...
std::string DTypeCode(DType dtype);
// From numpy's code, byte order and kind + size: "<f4", "|u1", "f8". `swap` is set when the bytes
// are big-endian. False for anything not in DType.
bool ParseDType(std::string_view code, DType* dtype, bool* swap);

// IEEE half precision, given as its bits; the other way rounds to nearest even.
float HalfToFloat(uint16_t half);
uint16_t FloatToHalf(float value);

// An array whose bytes belong to someone else: C order, little-endian, not necessarily aligned.
struct NdArrayView {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  std::string_view bytes;  // numel() * ItemSize(dtype)

  int64_t numel() const;
  std::string ShapeText() const;  // "[2, 17, 3]"
  // All elements, converted. ToInts throws Error naming `what` for floats that are not integers.
  std::vector<float> ToFloats() const;
  std::vector<double> ToDoubles() const;
  std::vector<int64_t> ToInts(const std::string& what) const;
};

// An array that owns its bytes: C order, little-endian.
struct NdArray {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  std::string bytes;

  NdArrayView view() const { return {dtype, shape, bytes}; }
  int64_t numel() const { return view().numel(); }
  std::string ShapeText() const { return view().ShapeText(); }
  std::vector<float> ToFloats() const { return view().ToFloats(); }
  std::vector<double> ToDoubles() const { return view().ToDoubles(); }
  std::vector<int64_t> ToInts(const std::string& what) const { return view().ToInts(what); }

  // REQUIRES: values.size() is the product of `shape`.
  static NdArray FromFloats(std::vector<int64_t> shape, const std::vector<float>& values);
  static NdArray FromDoubles(std::vector<int64_t> shape, const std::vector<double>& values);
  static NdArray FromInts(std::vector<int64_t> shape, const std::vector<int64_t>& values);
  static NdArray FromBytes(std::vector<int64_t> shape, const std::vector<uint8_t>& values);
  // Rounded to float16.
  static NdArray FromFloatsAsHalf(std::vector<int64_t> shape, const std::vector<float>& values);
};

// Checks that a shape is usable (no negative size, no overflow, at most 32 dimensions) and returns
// its number of bytes. Throws Error naming `where`.
uint64_t CheckedByteSize(const std::vector<int64_t>& shape, DType dtype, const std::string& where);

// Copies Fortran-ordered (first index fastest) bytes into C order.
std::string FortranToC(std::string_view bytes, const std::vector<int64_t>& shape, size_t item_size);
// Reverses the bytes of each element, in place.
void SwapBytes(std::string* bytes, size_t item_size);

// The .npy format, versions 1 to 3:
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html `where` names the file in
// errors. Throws Error for anything malformed and for object arrays.
NdArray ParseNpy(std::string_view bytes, const std::string& where);
std::string EncodeNpy(const NdArrayView& array);
NdArray ReadNpy(const std::string& path);

// Name (without ".npy") -> array. Stored and deflated members. Throws Error.
using NpzArrays = std::map<std::string, NdArray>;
NpzArrays ReadNpz(const std::string& path);
// Writes uncompressed members, atomically. Throws Error.
void WriteNpz(const std::string& path, const NpzArrays& arrays);

}  // namespace kinefit
