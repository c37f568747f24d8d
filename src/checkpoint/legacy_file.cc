#include "checkpoint/legacy_file.h"

#include <cstring>
#include <map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "checkpoint/storage_type.h"
#include "checkpoint/value_tree.h"
#include "files/error.h"
#include "files/mapped_file.h"
#include "files/pickle.h"

namespace kinefit {
namespace {

// The pickled number 0x1950a86a20f9469cfc6c.
constexpr std::string_view kMagic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
constexpr int64_t kVersion = 1001;

// Bytes of an element of a storage's class, also of those whose tensors are not read.
int64_t ElementSize(const std::string& storage_class) {
  if (const StorageType* type = FindStorageType(storage_class)) {
    return static_cast<int64_t>(c10::elementSize(type->dtype));
  }
  static const std::map<std::string, int64_t> others = {
      {"torch.ComplexFloatStorage", 8}, {"torch.ComplexDoubleStorage", 16},
      {"torch.QInt8Storage", 1},        {"torch.QUInt8Storage", 1},
      {"torch.QInt32Storage", 4},       {"torch.storage.UntypedStorage", 1},
      {"torch.UntypedStorage", 1},
  };
  const auto found = others.find(storage_class);
  return found == others.end() ? 0 : found->second;
}

class LegacyFile : public StorageSource {
 public:
  explicit LegacyFile(const std::string& path) : file_(path), rest_(file_.bytes()) {}

  CheckpointDict Read() {
    Next("magic number");
    if (Next("version").AsInt(path()) != kVersion) Damaged("it is of an unknown version");
    const PickleValue machine = Next("machine");
    const PickleValue little = machine.Find("little_endian");
    if (little.is(PickleKind::kBool) && !little.AsBool(path())) {
      throw Error("a checkpoint from a big-endian machine", path(),
                  "load it in Python on this machine and save it again");
    }
    const size_t before = rest_.size();
    const PickleValue root = Next("values");
    const size_t size = before - rest_.size();
    CollectClasses(root);
    LocateStorages(Next("storages"));
    return ReadTree(root, size, this);
  }

  at::Tensor Storage(const std::string& key, const StorageType& type) override {
    const auto place = places_.find(key);
    if (place == places_.end()) Damaged("storage " + key + " is missing");
    const auto item = static_cast<int64_t>(c10::elementSize(type.dtype));
    const auto bytes = static_cast<int64_t>(place->second.size());
    if (bytes % item != 0) Damaged("storage " + key + " has a broken element");
    at::Tensor& tensor = tensors_[key];
    if (!tensor.defined()) {
      tensor = at::empty({bytes}, at::kByte);
      if (bytes > 0) std::memcpy(tensor.data_ptr(), place->second.data(), place->second.size());
    }
    // Any other byte than 0 and 1 in a bool is undefined behaviour.
    if (type.dtype == at::kBool) tensor.ne_(0);
    return tensor.view(type.dtype);
  }

  const std::string& path() const override { return file_.path(); }

 private:
  // The next pickle of the file.
  PickleValue Next(const char* what) {
    file_.CheckSize();
    size_t taken = 0;
    pickles_.push_back(Pickle::ParsePrefix(rest_, path() + ": " + what, &taken));
    rest_.remove_prefix(taken);
    return pickles_.back().root();
  }

  // Which class each storage is of: only references to it say so.
  void CollectClasses(const PickleValue& root) {
    std::vector<PickleValue> open{root};
    std::unordered_set<const void*> seen;
    while (!open.empty()) {
      const PickleValue value = open.back();
      open.pop_back();
      if (value.identity() != nullptr && !seen.insert(value.identity()).second) continue;
      if (value.is(PickleKind::kPersistent)) {
        AddClass(value.Args());
      } else if (value.is(PickleKind::kObject)) {
        open.push_back(value.Args());
        open.push_back(value.State());
      } else if (value.is(PickleKind::kDict)) {
        for (size_t i = 0; i < value.size(); ++i) open.push_back(value.value(i));
      } else {
        for (size_t i = 0; i < value.size(); ++i) open.push_back(value[i]);
      }
    }
  }

  // ("storage", class, key, device, elements, None or (key of a piece, offset, elements)).
  void AddClass(const PickleValue& id) {
    if (!id.is(PickleKind::kTuple) || id.size() < 3 || !id[0].is(PickleKind::kString)) return;
    if (id[0].AsString(path()) != "storage") return;
    classes_.emplace(std::string(id[2].AsString(path())), id[1].TypeName());
  }

  // Each storage is eight bytes with its number of elements, then these.
  void LocateStorages(const PickleValue& keys) {
    if (!keys.is_sequence()) Damaged("the list of storages is missing");
    for (size_t i = 0; i < keys.size(); ++i) {
      const std::string key(keys[i].AsString(path()));
      const auto known = classes_.find(key);
      const int64_t item = known == classes_.end() ? 0 : ElementSize(known->second);
      if (item == 0) Damaged("storage " + key + " is of an unknown type");
      int64_t count = 0;
      int64_t bytes = 0;
      if (rest_.size() < sizeof(count)) Damaged("it ends too early");
      std::memcpy(&count, rest_.data(), sizeof(count));
      rest_.remove_prefix(sizeof(count));
      if (count < 0 || __builtin_mul_overflow(count, item, &bytes) ||
          static_cast<uint64_t>(bytes) > rest_.size()) {
        Damaged("storage " + key + " leaves the file");
      }
      if (!places_.emplace(key, rest_.substr(0, static_cast<size_t>(bytes))).second) {
        Damaged("storage " + key + " is there twice");
      }
      rest_.remove_prefix(static_cast<size_t>(bytes));
    }
  }

  const MappedFile file_;
  std::string_view rest_;
  std::vector<Pickle> pickles_;  // what the values point into
  std::map<std::string, std::string> classes_;
  std::map<std::string, std::string_view> places_;
  std::map<std::string, at::Tensor> tensors_;
};

}  // namespace

bool LooksLegacy(std::string_view start) {
  return !start.empty() && start[0] == '\x80' && start.substr(0, 32).find(kMagic) < 16;
}

CheckpointDict ReadLegacy(const std::string& path) { return LegacyFile(path).Read(); }

}  // namespace kinefit
