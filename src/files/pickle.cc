#include "files/pickle.h"

#include <utility>

#include "files/error.h"
#include "files/pickle_node.h"
#include "files/publish.h"
#include "files/torch_legacy.h"

namespace kinefit {

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
  std::string found = PickleKindName(kind());
  const std::string type = TypeName();
  if (!type.empty()) found += " " + type;
  if (type.rfind("torch.", 0) == 0) {
    throw Error("expected " + std::string(wanted) + ", found a PyTorch object (" + type + ")", what,
                "save tensor.float().cpu().numpy() instead");
  }
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

namespace {

// Files of other kinds that are given the name of a pickle, told by how they begin.
void RefuseOtherKinds(std::string_view bytes, const std::string& path) {
  const auto begins = [&](std::string_view start) {
    return bytes.substr(0, start.size()) == start;
  };
  const auto refuse = [&](const std::string& what, const std::string& remedy) {
    throw Error("the file is " + what + ", not a pickle", path, remedy);
  };
  const std::string torch =
      "in Python: import pickle, torch; pickle.dump(torch.load(path), open(new_path, \"wb\"))";
  if (bytes.empty()) refuse("empty", "make it again");
  if (begins("\x1f\x8b")) refuse("packed by gzip", "unpack it: gunzip < FILE > NEW.pkl");
  if (begins("BZh")) refuse("packed by bzip2", "unpack it: bunzip2 < FILE > NEW.pkl");
  if (begins("\xFD"
             "7zXZ"))
    refuse("packed by xz", "unpack it: unxz < FILE > NEW.pkl");
  if (begins("\x28\xB5\x2F\xFD")) refuse("packed by zstd", "unpack it: unzstd < FILE > NEW.pkl");
  if (TorchLegacyFile::Recognises(bytes)) refuse("one of torch.save (before 1.6)", torch);
  if (begins("PK\3\4")) {
    const bool saved = bytes.substr(0, 4096).find("data.pkl") != std::string_view::npos;
    if (saved) refuse("one of torch.save", torch);
    refuse("a zip archive (.npz is one)", "unpack it, or save its contents with pickle");
  }
  if (begins("\x93NUMPY")) refuse("a numpy array (.npy)", "save a dict of annotations with pickle");
  if (begins("\x89HDF")) refuse("HDF5", "save its contents with pickle");
  if (begins("version https://git-lfs")) {
    refuse("only the pointer of Git LFS", "fetch the file itself: git lfs pull");
  }
  // No pickle begins with either.
  const size_t first = bytes.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (first != std::string_view::npos && (bytes[first] == '{' || bytes[first] == '[')) {
    refuse("JSON", "kinefit data import reads keypoints from JSON");
  }
}

}  // namespace

Pickle Pickle::Load(const std::string& path, const PickleLimits& limits) {
  std::string bytes = ReadFile(path);
  RefuseOtherKinds(bytes, path);
  return Parse(std::move(bytes), path, limits);
}

}  // namespace kinefit
