#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "files/npy.h"

namespace kinefit {

// Python pickles (protocols 0 to 5), read without ever executing anything. Built-in types, ordered
// and default dicts, and numeric numpy arrays and scalars become values; everything else becomes an
// opaque object that remembers its type's name, arguments and state. PyTorch's tensors become
// arrays.

enum class PickleKind {
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kBytes,
  kList,
  kTuple,
  kSet,
  kDict,
  kArray,       // numeric numpy array
  kGlobal,      // a class or function, by name
  kObject,      // what a class or function would have returned
  kPersistent,  // a reference into something outside the pickle (torch's storages)
  kOpaque,      // integers beyond 64 bits, references of a container to itself, extension codes
};

const char* PickleKindName(PickleKind kind);

namespace pickle_internal {
struct Node;
class Machine;
enum class Opcode : unsigned char;
}  // namespace pickle_internal

// A small handle, cheap to copy, valid as long as its Pickle. Values may be shared: the same list
// can be reached in several ways, as in Python.
class PickleValue {
 public:
  PickleValue() = default;  // None

  PickleKind kind() const;
  bool is(PickleKind kind) const { return this->kind() == kind; }
  bool is_none() const { return tag_ == Tag::kNone; }
  bool is_sequence() const;  // list, tuple or set

  // Typed access; each throws Error naming `what` (the path of the value) if the type is another.
  // AsFloat also takes an int, AsInt a bool. Views are valid as long as the Pickle.
  bool AsBool(const std::string& what) const;
  int64_t AsInt(const std::string& what) const;
  double AsFloat(const std::string& what) const;
  std::string_view AsString(const std::string& what) const;  // UTF-8; also Python 2 strings
  std::string_view AsBytes(const std::string& what) const;   // bytes or string
  const NdArrayView& AsArray(const std::string& what) const;

  // Items of a list, tuple or set; pairs of a dict. 0 for everything else.
  size_t size() const;
  // Item of a list, tuple or set. REQUIRES: i < size().
  PickleValue operator[](size_t i) const;
  // Pair of a dict in its order. REQUIRES: dict, i < size().
  PickleValue key(size_t i) const;
  PickleValue value(size_t i) const;
  // Member of a dict by string key; `found` false (and None) if absent or not a dict. Linear.
  PickleValue Find(std::string_view key, bool* found = nullptr) const;
  bool Has(std::string_view key) const;

  // "module.name" of a global or of an object's class or function; "" for everything else.
  std::string TypeName() const;
  PickleValue Args() const;      // of an object; the id of a persistent reference
  PickleValue State() const;     // of an object, None if it has none
  const void* identity() const;  // equal for values that are the same Python object

 private:
  friend class pickle_internal::Machine;
  enum class Tag : uint8_t { kNone, kBool, kInt, kFloat, kString, kBytes, kOpaque, kUnset, kNode };

  [[noreturn]] void WrongType(const std::string& what, const char* wanted) const;
  bool IsNode(PickleKind kind) const;

  union {
    int64_t integer_ = 0;
    double real_;
    const char* text_;
    pickle_internal::Node* node_;
  };
  uint64_t size_ = 0;
  Tag tag_ = Tag::kNone;
};

struct PickleLimits {
  uint64_t max_depth = 500;  // nesting of containers
  uint64_t max_containers = 20'000'000;
  uint64_t max_opcodes = 200'000'000;
  bool torch_tensors = true;  // read PyTorch's tensors, which are pickles within the pickle
};

// A parsed pickle: owns the bytes and everything its values point to.
class Pickle {
 public:
  // `where` names the file in errors. Throws Error for anything malformed or beyond the limits.
  // `used` becomes the number of bytes that the pickle takes.
  static Pickle Parse(std::string bytes, const std::string& where, const PickleLimits& limits = {},
                      size_t* used = nullptr);
  static Pickle Load(const std::string& path, const PickleLimits& limits = {});

  Pickle(Pickle&&) noexcept;
  Pickle& operator=(Pickle&&) noexcept;
  ~Pickle();

  const PickleValue& root() const { return root_; }

 private:
  friend class pickle_internal::Machine;
  struct Storage;
  explicit Pickle(std::unique_ptr<Storage> storage);

  std::unique_ptr<Storage> storage_;
  PickleValue root_;
};

// Emits a pickle in one pass: each call writes one value; containers are bracketed, dicts take key,
// value, key, value. Protocol 2 uses only what torch.load(weights_only=True) accepts of all PyTorch
// versions (floats excepted: 1.13 has none); protocol 3 has real bytes and suits numpy arrays.
//
//   PickleWriter w(3);
//   w.BeginDict(); w.String("label"); w.Int(3); w.EndDict();
//   PublishFile(path, w.Finish());
class PickleWriter {
 public:
  explicit PickleWriter(int protocol = 2);

  void None();
  void Bool(bool value);
  void Int(int64_t value);
  void Float(double value);
  void String(std::string_view utf8);
  void Bytes(std::string_view bytes);
  void Array(const NdArrayView& array);
  void BeginList();
  void EndList();
  void BeginTuple();
  void EndTuple();
  void BeginDict();
  void EndDict();
  // The pieces of objects: Global, then a tuple of arguments, then Reduce.
  void Global(const std::string& module, const std::string& name);
  void Reduce();
  void PersistentId();  // of the tuple just written
  // For pickles larger than memory. Drain: the bytes so far, to be written to the file before those
  // of later calls and of Finish. TakeValue: the one value written so far, without anything around
  // it; the writer is as new. Splice: writes a value that TakeValue of a writer of the same
  // protocol gave.
  std::string Drain();
  std::string TakeValue();
  void Splice(std::string_view value) { out_.append(value); }
  // Ends the pickle and hands it over. REQUIRES: exactly one value was written.
  std::string Finish();

 private:
  void Op(pickle_internal::Opcode code);
  void Little(uint64_t value, int bytes);

  int protocol_;
  std::string out_;
};

}  // namespace kinefit
