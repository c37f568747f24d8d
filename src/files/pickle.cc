#include "files/pickle.h"

#include <utility>

#include "files/error.h"
#include "files/pickle_node.h"
#include "files/publish.h"

namespace kinefit {

namespace {

// What files called .pkl are now and then instead, said before their bytes are taken for opcodes.
void RefuseOtherFormats(std::string_view bytes, const std::string& path) {
  const auto begins = [&](std::string_view start) {
    return bytes.substr(0, start.size()) == start;
  };
  const size_t first = bytes.substr(0, 64).find_first_not_of(" \t\r\n");
  const char letter = first == std::string_view::npos ? '\0' : bytes[first];
  if (bytes.empty()) throw Error("the file is empty (0 bytes)", path, "copy or make it again");
  if (begins("\x1f\x8b")) {
    throw Error("not a pickle, but a file packed with gzip", path, "unpack it: gunzip FILE");
  }
  if (begins("PK\x03\x04")) {
    throw Error("not a pickle, but a zip archive (torch.save or numpy.savez?)", path,
                "save it in Python with pickle.dump(annotations, file)");
  }
  if (begins("\x89HDF")) {
    throw Error("not a pickle, but an HDF5 file", path,
                "save it in Python with pickle.dump(annotations, file)");
  }
  if (begins("version https://git-lfs")) {
    throw Error("not a pickle, but a pointer of Git LFS", path, "fetch the file: git lfs pull");
  }
  if (letter == '{' || letter == '[') {
    throw Error("not a pickle, but JSON", path,
                "poses as JSON are read by `kinefit data import`; annotations are pickles");
  }
}

}  // namespace

const char* PickleKindName(PickleKind kind) {
  switch (kind) {
    case PickleKind::kNone:
      return "None";
    case PickleKind::kBool:
      return "bool";
    case PickleKind::kInt:
      return "int";
    case PickleKind::kFloat:
      return "float";
    case PickleKind::kString:
      return "str";
    case PickleKind::kBytes:
      return "bytes";
    case PickleKind::kList:
      return "list";
    case PickleKind::kTuple:
      return "tuple";
    case PickleKind::kSet:
      return "set";
    case PickleKind::kDict:
      return "dict";
    case PickleKind::kArray:
      return "array";
    case PickleKind::kGlobal:
      return "class";
    case PickleKind::kObject:
      return "object";
    case PickleKind::kPersistent:
      return "external reference";
    case PickleKind::kOpaque:
      return "opaque value";
  }
  return "?";
}

PickleKind PickleValue::kind() const {
  switch (tag_) {
    case Tag::kNone:
    case Tag::kUnset:
      return PickleKind::kNone;
    case Tag::kBool:
      return PickleKind::kBool;
    case Tag::kInt:
      return PickleKind::kInt;
    case Tag::kFloat:
      return PickleKind::kFloat;
    case Tag::kString:
      return PickleKind::kString;
    case Tag::kBytes:
      return PickleKind::kBytes;
    case Tag::kOpaque:
      return PickleKind::kOpaque;
    case Tag::kNode:
      return node_->kind;
  }
  return PickleKind::kNone;
}

bool PickleValue::IsNode(PickleKind kind) const {
  return tag_ == Tag::kNode && node_->kind == kind;
}

bool PickleValue::is_sequence() const {
  return IsNode(PickleKind::kList) || IsNode(PickleKind::kTuple) || IsNode(PickleKind::kSet);
}

void PickleValue::WrongType(const std::string& what, const char* wanted) const {
  const std::string type = TypeName();
  if (type.rfind("torch._utils._rebuild_", 0) == 0 || type.rfind("torch.", 0) == 0) {
    throw Error("expected " + std::string(wanted) + ", found a tensor of PyTorch", what,
                "save arrays of numpy instead: tensor.cpu().numpy()");
  }
  std::string found = PickleKindName(kind());
  if (!type.empty()) found += " " + type;
  throw Error("expected " + std::string(wanted) + ", found " + found, what,
              "docs/formats/annotation.md says what an annotation holds");
}

bool PickleValue::AsBool(const std::string& what) const {
  if (tag_ != Tag::kBool) WrongType(what, "a bool");
  return integer_ != 0;
}

int64_t PickleValue::AsInt(const std::string& what) const {
  if (tag_ != Tag::kInt && tag_ != Tag::kBool) WrongType(what, "an int");
  return integer_;
}

double PickleValue::AsFloat(const std::string& what) const {
  if (tag_ == Tag::kFloat) return real_;
  if (tag_ != Tag::kInt && tag_ != Tag::kBool) WrongType(what, "a number");
  return static_cast<double>(integer_);
}

std::string_view PickleValue::AsString(const std::string& what) const {
  if (tag_ != Tag::kString) WrongType(what, "a string");
  return {text_, size_};
}

std::string_view PickleValue::AsBytes(const std::string& what) const {
  if (tag_ != Tag::kString && tag_ != Tag::kBytes) WrongType(what, "bytes");
  return {text_, size_};
}

const NdArrayView& PickleValue::AsArray(const std::string& what) const {
  if (!IsNode(PickleKind::kArray)) WrongType(what, "a numpy array");
  return *node_->array;
}

size_t PickleValue::size() const {
  if (is_sequence()) return node_->items.size();
  return IsNode(PickleKind::kDict) ? node_->items.size() / 2 : 0;
}

PickleValue PickleValue::operator[](size_t i) const { return node_->items[i]; }
PickleValue PickleValue::key(size_t i) const { return node_->items[2 * i]; }
PickleValue PickleValue::value(size_t i) const { return node_->items[2 * i + 1]; }

PickleValue PickleValue::Find(std::string_view key, bool* found) const {
  if (found != nullptr) *found = false;
  if (!IsNode(PickleKind::kDict)) return {};
  const std::vector<PickleValue>& items = node_->items;
  // From the end: of a repeated key the last value counts, as in Python.
  for (size_t i = items.size(); i >= 2; i -= 2) {
    const PickleValue& k = items[i - 2];
    if (k.tag_ == Tag::kString && std::string_view(k.text_, k.size_) == key) {
      if (found != nullptr) *found = true;
      return items[i - 1];
    }
  }
  return {};
}

bool PickleValue::Has(std::string_view key) const {
  bool found = false;
  Find(key, &found);
  return found;
}

std::string PickleValue::TypeName() const {
  if (IsNode(PickleKind::kObject)) return node_->items[0].TypeName();
  if (!IsNode(PickleKind::kGlobal)) return "";
  return std::string(node_->items[0].AsString("module")) + "." +
         std::string(node_->items[1].AsString("name"));
}

PickleValue PickleValue::Args() const {
  if (IsNode(PickleKind::kPersistent)) return node_->items[0];
  return IsNode(PickleKind::kObject) ? node_->items[1] : PickleValue();
}

PickleValue PickleValue::State() const {
  return IsNode(PickleKind::kObject) ? node_->items[2] : PickleValue();
}

const void* PickleValue::identity() const {
  if (tag_ == Tag::kNode) return node_;
  return tag_ == Tag::kString || tag_ == Tag::kBytes ? text_ : nullptr;
}

Pickle::Pickle(std::unique_ptr<Storage> storage) : storage_(std::move(storage)) {}
Pickle::Pickle(Pickle&&) noexcept = default;
Pickle& Pickle::operator=(Pickle&&) noexcept = default;
Pickle::~Pickle() = default;

Pickle Pickle::Load(const std::string& path, const PickleLimits& limits) {
  std::string bytes = ReadFile(path);
  RefuseOtherFormats(bytes, path);
  return Parse(std::move(bytes), path, limits);
}

}  // namespace kinefit
