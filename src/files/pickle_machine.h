#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "files/error.h"
#include "files/pickle.h"
#include "files/pickle_node.h"

// Internal to src/files. Opcodes are run in pickle_reader.cc; what calling classes and functions
// yields is decided in pickle_objects.cc.
namespace kinefit::pickle_internal {

// The stack machine that a pickle is a program for.
class Machine {
 public:
  Machine(Pickle::Storage* storage, const std::string& where, const PickleLimits& limits)
      : storage_(*storage),
        where_(where),
        limits_(limits),
        begin_(storage->bytes.data()),
        at_(begin_),
        end_(begin_ + storage->bytes.size()) {}

  PickleValue Run();
  size_t used() const { return static_cast<size_t>(at_ - begin_); }

 private:
  using Tag = PickleValue::Tag;

  [[noreturn]] void Fail(const std::string& what) const {
    throw Error(
        "damaged or hostile pickle: " + what + " (at byte " + std::to_string(at_ - begin_) + ")",
        where_, "make the file again");
  }

  // Input.
  const char* Take(uint64_t count) {
    if (count > static_cast<uint64_t>(end_ - at_)) Fail("it ends too early");
    const char* start = at_;
    at_ += count;
    return start;
  }
  template <typename T>
  T Number() {
    T value;
    std::memcpy(&value, Take(sizeof(T)), sizeof(T));
    return value;
  }
  std::string_view Line();

  // Values.
  static PickleValue Integer(int64_t value, Tag tag = Tag::kInt);
  static PickleValue Real(double value);
  static PickleValue Text(std::string_view text, Tag tag);
  static PickleValue Opaque();
  Node* NewNode(PickleKind kind);
  static PickleValue Handle(Node* node);
  static std::string_view ViewOf(const PickleValue& v) { return {v.text_, v.size_}; }
  static bool IsText(const PickleValue& v) {
    return v.tag_ == Tag::kString || v.tag_ == Tag::kBytes;
  }
  std::string_view Keep(std::string text);
  void ChargeCopy(uint64_t bytes);
  void ChargeItems(uint64_t count);

  // Stack.
  size_t Floor() const { return marks_.empty() ? 0 : marks_.back(); }
  void Push(const PickleValue& value) { stack_.push_back(value); }
  void PushNode(PickleKind kind) { Push(Handle(NewNode(kind))); }
  PickleValue Pop();
  PickleValue& Top();
  size_t PopMark();
  void PopAny();

  // Opcodes.
  bool Step();
  void BinaryFloat();
  void TextInt(bool is_long);
  void TextFloat();
  void QuotedString();
  void EscapedUnicode();
  void BinaryLong(uint64_t count);
  void FromMark(PickleKind kind);
  void SmallTuple(size_t count);
  void Extend(PickleKind wanted, size_t first);
  void AppendOne();
  void SetOne();
  void Remember(uint64_t index);
  void Recall(uint64_t index);
  void PushGlobal(std::string_view module, std::string_view name);
  void StackGlobal();
  void Persistent(const PickleValue& id);
  void Inst();
  void Obj();
  void Reduce(bool with_keywords);
  void Build();

  // Objects.
  PickleValue Call(const PickleValue& callable, const PickleValue& args);
  PickleValue Opaque(const PickleValue& callable, const PickleValue& args, Known known);
  PickleValue MakeDict(const std::vector<PickleValue>& args);
  PickleValue MakeSequence(PickleKind kind, const std::vector<PickleValue>& args);
  bool MakeBytes(const std::vector<PickleValue>& args, PickleValue* out);
  bool Encode(const std::vector<PickleValue>& args, PickleValue* out);
  bool MakeScalar(const std::vector<PickleValue>& args, PickleValue* out);
  bool Scalar(const NdArrayView& view, PickleValue* out);
  bool TorchStorage(const std::vector<PickleValue>& args, PickleValue* out);
  bool TorchTensor(const std::vector<PickleValue>& args, PickleValue* out);
  bool FromBuffer(const std::vector<PickleValue>& args, PickleValue* out);
  static bool ReadDType(const PickleValue& value, DType* dtype, bool* swap);
  bool ReadShape(const PickleValue& value, std::vector<int64_t>* shape);
  bool BuildArray(Node* node, const PickleValue& state);
  void FillArray(Node* node, std::string_view raw, DType dtype, bool swap,
                 std::vector<int64_t> shape, bool fortran);

  void CutCycles(PickleValue* root);

  Pickle::Storage& storage_;
  const std::string& where_;
  const PickleLimits& limits_;
  const char* begin_;
  const char* at_;
  const char* end_;
  std::vector<PickleValue> stack_;
  std::vector<size_t> marks_;
  std::vector<PickleValue> memo_;
  uint64_t memo_count_ = 0;
  uint64_t copied_ = 0;
  uint64_t copied_items_ = 0;
  uint64_t opcodes_ = 0;
};

}  // namespace kinefit::pickle_internal
