#include <cstring>
#include <limits>
#include <utility>

#include "files/error.h"
#include "files/pickle.h"
#include "files/pickle_opcodes.h"

namespace kinefit {

using pickle_internal::Opcode;

PickleWriter::PickleWriter(int protocol) : protocol_(protocol) {
  Op(Opcode::kProto);
  Little(static_cast<uint64_t>(protocol), 1);
}

void PickleWriter::Op(Opcode code) { out_.push_back(static_cast<char>(code)); }

void PickleWriter::Little(uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out_.push_back(static_cast<char>(value >> (8 * i)));
}

void PickleWriter::None() { Op(Opcode::kNone); }

void PickleWriter::Bool(bool value) { Op(value ? Opcode::kNewTrue : Opcode::kNewFalse); }

void PickleWriter::Int(int64_t value) {
  if (value >= std::numeric_limits<int32_t>::min() &&
      value <= std::numeric_limits<int32_t>::max()) {
    Op(Opcode::kBinInt);
    Little(static_cast<uint64_t>(value), 4);
  } else {
    Op(Opcode::kLong1);
    Little(8, 1);
    Little(static_cast<uint64_t>(value), 8);
  }
}

void PickleWriter::Float(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  Op(Opcode::kBinFloat);
  for (int shift = 56; shift >= 0; shift -= 8) out_.push_back(static_cast<char>(bits >> shift));
}

void PickleWriter::String(std::string_view utf8) {
  if (utf8.size() > std::numeric_limits<uint32_t>::max()) {
    throw Error("a string of 4 GiB or more cannot be pickled");
  }
  Op(Opcode::kBinUnicode);
  Little(utf8.size(), 4);
  out_.append(utf8);
}

void PickleWriter::Bytes(std::string_view bytes) {
  if (bytes.size() > std::numeric_limits<uint32_t>::max()) {
    throw Error("bytes of 4 GiB or more cannot be pickled");
  }
  if (protocol_ >= 3) {
    Op(Opcode::kBinBytes);
    Little(bytes.size(), 4);
    out_.append(bytes);
    return;
  }
  // Protocol 2 knows no bytes: Python writes them as text and encodes that when reading.
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char byte : bytes) {
    const auto code = static_cast<uint8_t>(byte);
    if (code < 0x80) {
      text.push_back(byte);
    } else {
      text.push_back(static_cast<char>(0xC0 | code >> 6));
      text.push_back(static_cast<char>(0x80 | (code & 0x3F)));
    }
  }
  Global("_codecs", "encode");
  BeginTuple();
  String(text);
  String("latin1");
  EndTuple();
  Reduce();
}

void PickleWriter::Array(const NdArrayView& array) {
  Global("numpy.core.multiarray", "_reconstruct");
  BeginTuple();
  Global("numpy", "ndarray");
  BeginTuple();
  Int(0);
  EndTuple();
  Bytes("b");
  EndTuple();
  Reduce();

  BeginTuple();  // version, shape, dtype, Fortran order, data
  Int(1);
  BeginTuple();
  for (const int64_t size : array.shape) Int(size);
  EndTuple();
  Global("numpy", "dtype");
  BeginTuple();
  String(DTypeCode(array.dtype).substr(1));
  Bool(false);
  Bool(true);
  EndTuple();
  Reduce();
  BeginTuple();  // version, byte order, then what structured types have
  Int(3);
  String(DTypeCode(array.dtype).substr(0, 1));
  None();
  None();
  None();
  Int(-1);
  Int(-1);
  Int(0);
  EndTuple();
  Op(Opcode::kBuild);
  Bool(false);
  Bytes(array.bytes);
  EndTuple();
  Op(Opcode::kBuild);
}

void PickleWriter::BeginList() {
  Op(Opcode::kEmptyList);
  Op(Opcode::kMark);
}
void PickleWriter::EndList() { Op(Opcode::kAppends); }
void PickleWriter::BeginTuple() { Op(Opcode::kMark); }
void PickleWriter::EndTuple() { Op(Opcode::kTuple); }
void PickleWriter::BeginDict() {
  Op(Opcode::kEmptyDict);
  Op(Opcode::kMark);
}
void PickleWriter::EndDict() { Op(Opcode::kSetItems); }

void PickleWriter::Global(const std::string& module, const std::string& name) {
  Op(Opcode::kGlobal);
  out_ += module + "\n" + name + "\n";
}

void PickleWriter::Reduce() { Op(Opcode::kReduce); }
void PickleWriter::PersistentId() { Op(Opcode::kBinPersId); }

std::string PickleWriter::Drain() { return std::exchange(out_, std::string()); }

std::string PickleWriter::TakeValue() {
  constexpr size_t kHeader = 2;  // kProto and its number
  std::string value = out_.substr(kHeader);
  out_.resize(kHeader);
  return value;
}

std::string PickleWriter::Finish() {
  Op(Opcode::kStop);
  return std::move(out_);
}

}  // namespace kinefit
