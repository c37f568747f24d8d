#include "files/npy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "files/error.h"
#include "files/publish.h"
#include "files/zip.h"

namespace kinefit {
namespace {

struct DTypeRow {
  DType dtype;
  const char* code;
  const char* name;
  size_t size;
};

constexpr std::array<DTypeRow, 12> kDTypes = {{
    {DType::kBool, "|b1", "bool", 1},
    {DType::kInt8, "|i1", "int8", 1},
    {DType::kInt16, "<i2", "int16", 2},
    {DType::kInt32, "<i4", "int32", 4},
    {DType::kInt64, "<i8", "int64", 8},
    {DType::kUInt8, "|u1", "uint8", 1},
    {DType::kUInt16, "<u2", "uint16", 2},
    {DType::kUInt32, "<u4", "uint32", 4},
    {DType::kUInt64, "<u8", "uint64", 8},
    {DType::kFloat16, "<f2", "float16", 2},
    {DType::kFloat32, "<f4", "float32", 4},
    {DType::kFloat64, "<f8", "float64", 8},
}};

const DTypeRow& RowOf(DType dtype) { return kDTypes[static_cast<size_t>(dtype)]; }

// The bytes may lie at any address, hence memcpy.
template <typename From, typename To>
void Convert(const char* from, size_t count, To* to) {
  for (size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, from + i * sizeof(From), sizeof(From));
    to[i] = static_cast<To>(value);  // NOLINT(bugprone-signed-char-misuse): int8 is a number
  }
}

template <typename To>
std::vector<To> ConvertAll(const NdArrayView& array) {
  const size_t count = array.bytes.size() / ItemSize(array.dtype);
  const char* from = array.bytes.data();
  std::vector<To> values(count);
  To* to = values.data();
  switch (array.dtype) {
    case DType::kBool:
    case DType::kUInt8:
      Convert<uint8_t>(from, count, to);
      break;
    case DType::kInt8:
      Convert<int8_t>(from, count, to);
      break;
    case DType::kInt16:
      Convert<int16_t>(from, count, to);
      break;
    case DType::kInt32:
      Convert<int32_t>(from, count, to);
      break;
    case DType::kInt64:
      Convert<int64_t>(from, count, to);
      break;
    case DType::kUInt16:
      Convert<uint16_t>(from, count, to);
      break;
    case DType::kUInt32:
      Convert<uint32_t>(from, count, to);
      break;
    case DType::kUInt64:
      Convert<uint64_t>(from, count, to);
      break;
    case DType::kFloat32:
      Convert<float>(from, count, to);
      break;
    case DType::kFloat64:
      Convert<double>(from, count, to);
      break;
    case DType::kFloat16:
      for (size_t i = 0; i < count; ++i) {
        uint16_t half;
        std::memcpy(&half, from + 2 * i, 2);
        to[i] = static_cast<To>(HalfToFloat(half));
      }
      break;
  }
  return values;
}

template <typename T>
NdArray FromVector(DType dtype, std::vector<int64_t> shape, const std::vector<T>& values) {
  NdArray array;
  array.dtype = dtype;
  array.shape = std::move(shape);
  array.bytes.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  if (CheckedByteSize(array.shape, dtype, "array") != array.bytes.size()) {
    throw Error("an array of " + std::to_string(values.size()) + " values cannot have the shape " +
                array.ShapeText());
  }
  return array;
}

[[noreturn]] void BadNpy(const std::string& what, const std::string& where) {
  throw Error("not a usable .npy array: " + what, where, "save it again with numpy.save");
}

// Reads the dict literal that heads a .npy file.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& where) : rest_(text), where_(where) {}

  void Read(std::string* code, bool* fortran, std::vector<int64_t>* shape) {
    int seen = 0;
    Expect('{');
    while (!Accept('}')) {
      const std::string_view key = Quoted();
      Expect(':');
      if (key == "descr") {
        *code = std::string(Quoted());
      } else if (key == "fortran_order") {
        *fortran = TrueOrFalse();
      } else if (key == "shape") {
        *shape = Shape();
      } else {
        Bad();
      }
      ++seen;
      Accept(',');
    }
    if (seen != 3) Bad();
  }

 private:
  [[noreturn]] void Bad() const {
    BadNpy("its header is malformed or of a structured type", where_);
  }

  bool Accept(char wanted) {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n')) rest_.remove_prefix(1);
    if (rest_.empty() || rest_[0] != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void Expect(char wanted) {
    if (!Accept(wanted)) Bad();
  }

  std::string_view Quoted() {
    const char quote = Accept('\'') ? '\'' : '"';
    if (quote == '"') Expect('"');
    const size_t stop = rest_.find(quote);
    if (stop == std::string_view::npos) Bad();
    const std::string_view text = rest_.substr(0, stop);
    rest_.remove_prefix(stop + 1);
    return text;
  }

  bool TrueOrFalse() {
    Accept(' ');
    for (const std::string_view word : {"True", "False"}) {
      if (rest_.substr(0, word.size()) != word) continue;
      rest_.remove_prefix(word.size());
      return word == "True";
    }
    Bad();
  }

  std::vector<int64_t> Shape() {
    std::vector<int64_t> shape;
    Expect('(');
    while (!Accept(')')) {
      int64_t size = 0;
      const auto result = std::from_chars(rest_.data(), rest_.data() + rest_.size(), size);
      if (result.ec != std::errc()) Bad();
      rest_.remove_prefix(static_cast<size_t>(result.ptr - rest_.data()));
      Accept('L');  // Python 2
      shape.push_back(size);
      if (shape.size() > 64) Bad();
      Accept(',');
    }
    return shape;
  }

  std::string_view rest_;
  const std::string& where_;
};

// The header's text; `data` is set to what follows it.
std::string_view SplitHeader(std::string_view bytes, std::string_view* data,
                             const std::string& where) {
  constexpr std::string_view kMagic("\x93NUMPY", 6);
  if (bytes.size() < 10 || bytes.substr(0, 6) != kMagic) BadNpy("no .npy signature", where);
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(bytes[i])); };
  const size_t version = byte(6);
  if (version < 1 || version > 3) BadNpy("unknown version " + std::to_string(version), where);
  const size_t start = version == 1 ? 10 : 12;
  if (bytes.size() < start) BadNpy("it ends in its header", where);
  size_t length = byte(8) | byte(9) << 8;
  if (version > 1) length |= byte(10) << 16 | byte(11) << 24;
  if (length > bytes.size() - start) BadNpy("it ends in its header", where);
  *data = bytes.substr(start + length);
  return bytes.substr(start, length);
}

}  // namespace

size_t ItemSize(DType dtype) { return RowOf(dtype).size; }
const char* DTypeName(DType dtype) { return RowOf(dtype).name; }
std::string DTypeCode(DType dtype) { return RowOf(dtype).code; }

bool ParseDType(std::string_view code, DType* dtype, bool* swap) {
  char order = '<';
  if (!code.empty() && std::string_view("<>|=").find(code[0]) != std::string_view::npos) {
    order = code[0];
    code.remove_prefix(1);
  }
  if (code == "?") code = "b1";
  for (const DTypeRow& row : kDTypes) {
    if (code != row.code + 1) continue;
    *dtype = row.dtype;
    *swap = order == '>' && row.size > 1;
    return true;
  }
  return false;
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 0x1F;
  const uint32_t mantissa = half & 0x3FF;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  const uint32_t bits = sign | wide << 23 | mantissa << 13;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint16_t FloatToHalf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return sign | 0x7E00;   // NaN
  if (magnitude >= 0x477FF000) return sign | 0x7C00;  // rounds beyond 65504
  if (magnitude < 0x38800000) {                       // below 2^-14: a multiple of 2^-24
    const float scaled = std::ldexp(std::fabs(value), 24);
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)));
  }
  const uint32_t shifted = magnitude - (112u << 23);
  return static_cast<uint16_t>(sign | (shifted + 0xFFF + (shifted >> 13 & 1)) >> 13);
}

int64_t NdArrayView::numel() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::string NdArrayView::ShapeText() const {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

std::vector<float> NdArrayView::ToFloats() const { return ConvertAll<float>(*this); }
std::vector<double> NdArrayView::ToDoubles() const { return ConvertAll<double>(*this); }

std::vector<int64_t> NdArrayView::ToInts(const std::string& what) const {
  const bool floating =
      dtype == DType::kFloat16 || dtype == DType::kFloat32 || dtype == DType::kFloat64;
  if (!floating) return ConvertAll<int64_t>(*this);
  std::vector<int64_t> values;
  values.reserve(bytes.size() / ItemSize(dtype));
  for (const double value : ToDoubles()) {
    // Also false for NaN; 2^63 itself does not fit.
    if (!(std::fabs(value) < 0x1p63) || value != std::floor(value)) {
      throw Error("expected integers, found " + std::to_string(value), what,
                  "save the array with an integer dtype");
    }
    values.push_back(static_cast<int64_t>(value));
  }
  return values;
}

NdArray NdArray::FromFloats(std::vector<int64_t> shape, const std::vector<float>& values) {
  return FromVector(DType::kFloat32, std::move(shape), values);
}
NdArray NdArray::FromDoubles(std::vector<int64_t> shape, const std::vector<double>& values) {
  return FromVector(DType::kFloat64, std::move(shape), values);
}
NdArray NdArray::FromInts(std::vector<int64_t> shape, const std::vector<int64_t>& values) {
  return FromVector(DType::kInt64, std::move(shape), values);
}
NdArray NdArray::FromBytes(std::vector<int64_t> shape, const std::vector<uint8_t>& values) {
  return FromVector(DType::kUInt8, std::move(shape), values);
}
NdArray NdArray::FromFloatsAsHalf(std::vector<int64_t> shape, const std::vector<float>& values) {
  std::vector<uint16_t> halves(values.size());
  std::transform(values.begin(), values.end(), halves.begin(), FloatToHalf);
  return FromVector(DType::kFloat16, std::move(shape), halves);
}

uint64_t CheckedByteSize(const std::vector<int64_t>& shape, DType dtype, const std::string& where) {
  uint64_t bytes = ItemSize(dtype);
  if (shape.size() > 32)
    throw Error("an array with more than 32 dimensions", where,
                "the file is damaged: save it again");
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0)
      throw Error("an array with a negative size", where, "the file is damaged: save it again");
    if (size == 0) {
      empty = true;
    } else if (bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) /
                           static_cast<uint64_t>(size)) {
      throw Error("an array of absurd size", where, "the file is damaged: save it again");
    } else {
      bytes *= static_cast<uint64_t>(size);
    }
  }
  return empty ? 0 : bytes;
}

std::string FortranToC(std::string_view bytes, const std::vector<int64_t>& shape,
                       size_t item_size) {
  std::string out(bytes.size(), '\0');
  if (bytes.empty()) return out;
  const size_t rank = shape.size();
  std::vector<size_t> strides(rank, item_size);  // in the Fortran-ordered source
  for (size_t d = 1; d < rank; ++d) strides[d] = strides[d - 1] * static_cast<size_t>(shape[d - 1]);
  std::vector<int64_t> index(rank, 0);
  size_t from = 0;
  for (size_t to = 0; to < out.size(); to += item_size) {
    std::memcpy(&out[to], &bytes[from], item_size);
    for (size_t d = rank; d-- > 0;) {
      from += strides[d];
      if (++index[d] < shape[d]) break;
      from -= strides[d] * static_cast<size_t>(shape[d]);
      index[d] = 0;
    }
  }
  return out;
}

void SwapBytes(std::string* bytes, size_t item_size) {
  for (size_t i = 0; i + item_size <= bytes->size(); i += item_size) {
    std::reverse(bytes->begin() + static_cast<std::ptrdiff_t>(i),
                 bytes->begin() + static_cast<std::ptrdiff_t>(i + item_size));
  }
}

NdArray ParseNpy(std::string_view bytes, const std::string& where) {
  std::string_view data;
  const std::string_view header = SplitHeader(bytes, &data, where);
  std::string code;
  bool fortran = false;
  bool swap = false;
  NdArray array;
  HeaderReader(header, where).Read(&code, &fortran, &array.shape);
  if (!ParseDType(code, &array.dtype, &swap)) {
    BadNpy("its type " + code + " is not a real number", where);
  }
  if (CheckedByteSize(array.shape, array.dtype, where) != data.size()) {
    BadNpy("shape " + array.ShapeText() + " does not fit its " + std::to_string(data.size()) +
               " bytes",
           where);
  }
  const size_t item = ItemSize(array.dtype);
  array.bytes =
      fortran && array.shape.size() > 1 ? FortranToC(data, array.shape, item) : std::string(data);
  if (swap) SwapBytes(&array.bytes, item);
  return array;
}

std::string EncodeNpy(const NdArrayView& array) {
  std::string header =
      "{'descr': '" + DTypeCode(array.dtype) + "', 'fortran_order': False, 'shape': (";
  for (const int64_t size : array.shape) header += std::to_string(size) + ", ";
  if (array.shape.size() > 1) header.resize(header.size() - 2);
  header += "), }";
  // The data starts at a multiple of 64 bytes; the header ends with a newline.
  header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out.push_back(static_cast<char>(header.size() & 0xFF));
  out.push_back(static_cast<char>(header.size() >> 8));
  out += header;
  out += array.bytes;
  return out;
}

NdArray ReadNpy(const std::string& path) { return ParseNpy(ReadFile(path), path); }

NpzArrays ReadNpz(const std::string& path) {
  const ZipReader zip(path);
  NpzArrays arrays;
  for (const ZipReader::Entry& entry : zip.entries()) {
    std::string name = entry.name;
    if (name.size() > 4 && name.compare(name.size() - 4, 4, ".npy") == 0) {
      name.resize(name.size() - 4);
    }
    arrays[name] = ParseNpy(zip.Read(entry), path + ": " + entry.name);
  }
  return arrays;
}

void WriteNpz(const std::string& path, const NpzArrays& arrays) {
  ZipWriter zip(path);
  for (const auto& [name, array] : arrays) zip.Add(name + ".npy", EncodeNpy(array.view()));
  zip.Commit();
}

}  // namespace kinefit
