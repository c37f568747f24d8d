#include "files/torch_legacy.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <utility>
#include <vector>

#include "files/error.h"

namespace kinefit {
namespace {

constexpr uint64_t kMaxPickle = uint64_t{1} << 30;
constexpr uint64_t kMaxHeader = 4096;
// The number 0x1950a86a20f9469cfc6c, little-endian as pickles write it.
constexpr std::string_view kMagic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);

// Bytes of an element of a storage class, 0 if it is none.
uint64_t ItemSizeOf(const std::string& type) {
  static const std::map<std::string, uint64_t> sizes = {
      {"torch.FloatStorage", 4},         {"torch.DoubleStorage", 8},
      {"torch.HalfStorage", 2},          {"torch.BFloat16Storage", 2},
      {"torch.LongStorage", 8},          {"torch.IntStorage", 4},
      {"torch.ShortStorage", 2},         {"torch.CharStorage", 1},
      {"torch.ByteStorage", 1},          {"torch.BoolStorage", 1},
      {"torch.QInt8Storage", 1},         {"torch.QUInt8Storage", 1},
      {"torch.QInt32Storage", 4},        {"torch.ComplexFloatStorage", 8},
      {"torch.ComplexDoubleStorage", 16}};
  // Weights saved on a GPU name torch.cuda.FloatStorage.
  std::string plain = type;
  if (plain.rfind("torch.cuda.", 0) == 0) plain.erase(6, 5);
  const auto found = sizes.find(plain);
  return found == sizes.end() ? 0 : found->second;
}

bool ReadCount(const PickleValue& value, uint64_t* count) {
  if (!value.is(PickleKind::kInt)) return false;
  const int64_t number = value.AsInt("count");
  *count = static_cast<uint64_t>(number);
  return number >= 0;
}

}  // namespace

bool ReadTorchStorageId(const PickleValue& persistent, TorchStorageId* id) {
  const PickleValue tuple = persistent.Args();
  if (!persistent.is(PickleKind::kPersistent) || !tuple.is(PickleKind::kTuple) ||
      tuple.size() < 5 || !tuple[0].is(PickleKind::kString) ||
      tuple[0].AsString("storage") != "storage" || !tuple[2].is(PickleKind::kString) ||
      !ReadCount(tuple[4], &id->count)) {
    return false;
  }
  id->type = tuple[1].TypeName();
  if (id->type.rfind("torch.cuda.", 0) == 0) id->type.erase(6, 5);
  id->key = std::string(tuple[2].AsString("key"));
  if (tuple.size() < 6 || tuple[5].is_none()) return true;
  const PickleValue view = tuple[5];
  id->is_view = true;
  return view.is(PickleKind::kTuple) && view.size() == 3 && ReadCount(view[1], &id->view_offset) &&
         ReadCount(view[2], &id->view_count) && id->view_offset <= id->count &&
         id->view_count <= id->count - id->view_offset;
}

bool TorchTensorFits(uint64_t count, int64_t offset, const std::vector<int64_t>& shape,
                     const std::vector<int64_t>& strides, int64_t max_shown) {
  if (offset < 0 || shape.size() != strides.size()) return false;
  int64_t shown = 1;
  int64_t last = offset;
  bool empty = false;
  for (size_t d = 0; d < shape.size(); ++d) {
    const int64_t size = std::max<int64_t>(shape[d], 1);
    int64_t reach = 0;
    if (shape[d] < 0 || strides[d] < 0 || __builtin_mul_overflow(shown, size, &shown) ||
        __builtin_mul_overflow(size - 1, strides[d], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return false;
    }
    empty = empty || shape[d] == 0;
  }
  return empty || (static_cast<uint64_t>(last) < count && shown <= max_shown);
}

bool TorchLegacyFile::Recognises(std::string_view bytes) {
  return !bytes.empty() && bytes[0] == '\x80' && bytes.substr(0, 26).find(kMagic) < 16;
}

TorchLegacyFile::TorchLegacyFile(std::string_view bytes, const std::string& where,
                                 const PickleLimits& limits)
    : where_(where) {
  std::string_view rest = bytes;
  if (!Recognises(bytes)) Fail("it does not begin as one");
  Next(&rest, kMaxHeader, limits);
  const Pickle version = Next(&rest, kMaxHeader, limits);
  if (!version.root().is(PickleKind::kInt) || version.root().AsInt(where_) != 1001) {
    Fail("it is of an unknown version");
  }
  const Pickle machine = Next(&rest, kMaxHeader, limits);
  const PickleValue little = machine.root().Find("little_endian");
  if (little.is(PickleKind::kBool) && !little.AsBool(where_)) {
    throw Error("weights saved on a big-endian machine", where_,
                "load it in Python on this machine and save it again");
  }
  const size_t before = rest.size();
  pickle_ = Next(&rest, kMaxPickle, limits);
  pickle_size_ = before - rest.size();
  FindStorages(pickle_->root());
  uint64_t most = kMaxHeader;
  for (const auto& [key, storage] : storages_) most += key.size() + 32;
  const Pickle keys = Next(&rest, most, limits);
  ReadStorages(keys.root(), rest);
}

void TorchLegacyFile::Fail(const std::string& what) const {
  throw Error("damaged or hostile file of torch.save: " + what, where_, "use another file");
}

// Parses the pickle that `rest` begins with, and goes on behind it.
Pickle TorchLegacyFile::Next(std::string_view* rest, uint64_t max_size,
                             const PickleLimits& limits) {
  size_t used = 0;
  Pickle pickle = Pickle::Parse(std::string(rest->substr(0, max_size)), where_, limits, &used);
  rest->remove_prefix(used);
  return pickle;
}

// The storages that anything in the value refers to: the list of keys does not say their types.
void TorchLegacyFile::FindStorages(const PickleValue& root) {
  std::unordered_set<const void*> seen;
  std::vector<PickleValue> open = {root};
  while (!open.empty()) {
    const PickleValue value = open.back();
    open.pop_back();
    switch (value.kind()) {
      case PickleKind::kList:
      case PickleKind::kTuple:
      case PickleKind::kSet:
      case PickleKind::kDict:
      case PickleKind::kObject:
      case PickleKind::kPersistent:
        break;
      default:
        continue;
    }
    if (!seen.insert(value.identity()).second) continue;
    if (value.is_sequence()) {
      for (size_t i = 0; i < value.size(); ++i) open.push_back(value[i]);
    } else if (value.is(PickleKind::kDict)) {
      for (size_t i = 0; i < value.size(); ++i) open.push_back(value.value(i));
    } else if (value.is(PickleKind::kObject)) {
      open.push_back(value.Args());
      open.push_back(value.State());
    } else {
      TorchStorageId id;
      if (!ReadTorchStorageId(value, &id)) continue;
      Storage& storage = storages_[id.key];
      if (!storage.type.empty() && (storage.type != id.type || storage.count != id.count)) {
        Fail("storage " + id.key + " is of two kinds");
      }
      storage.type = id.type;
      storage.count = id.count;
    }
  }
}

void TorchLegacyFile::ReadStorages(const PickleValue& keys, std::string_view rest) {
  if (!keys.is(PickleKind::kList) || keys.size() != storages_.size()) {
    Fail("the list of its storages does not fit what it refers to");
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    const std::string key(keys[i].AsString(where_));
    const auto found = storages_.find(key);
    if (found == storages_.end()) Fail("nothing refers to storage " + key);
    Storage& storage = found->second;
    const uint64_t item = ItemSizeOf(storage.type);
    if (item == 0) Fail("storage " + key + " is of an unknown type " + storage.type);
    uint64_t count = 0;
    if (rest.size() < sizeof(count)) Fail("it ends too early");
    std::memcpy(&count, rest.data(), sizeof(count));
    rest.remove_prefix(sizeof(count));
    if (storage.bytes.data() != nullptr || count != storage.count) {
      Fail("storage " + key + " has two sizes");
    }
    if (count > rest.size() / item) Fail("it ends too early");
    storage.bytes = rest.substr(0, count * item);
    rest.remove_prefix(count * item);
  }
  if (!rest.empty()) Fail("something follows its last storage");
}

const TorchLegacyFile::Storage* TorchLegacyFile::Find(const std::string& key) const {
  const auto found = storages_.find(key);
  return found == storages_.end() ? nullptr : &found->second;
}

}  // namespace kinefit
