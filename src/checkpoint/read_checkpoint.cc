#include <limits>
#include <map>
#include <set>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/storage_type.h"
#include "files/error.h"
#include "files/pickle.h"
#include "files/publish.h"
#include "files/zip.h"

namespace kinefit {
namespace {

constexpr uint64_t kMaxPickle = uint64_t{1} << 30;

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool Multiply(int64_t a, int64_t b, int64_t* product) {
  return !__builtin_mul_overflow(a, b, product);
}

// The archive of one checkpoint: its storages by key, each read once.
class Archive {
 public:
  explicit Archive(const std::string& path) : zip_(Checked(path)) {
    for (const ZipReader::Entry& entry : zip_.entries()) {
      if (entry.name != "data.pkl" && !EndsWith(entry.name, "/data.pkl")) continue;
      prefix_ = entry.name.substr(0, entry.name.size() - 8);
      pickle_ = &entry;
      break;
    }
    if (pickle_ == nullptr) {
      throw Error("a zip archive, but not a checkpoint of torch.save", path,
                  "check that it is the right file");
    }
    if (zip_.Find(prefix_ + "constants.pkl") != nullptr) {
      throw Error("a TorchScript archive, not a checkpoint", path,
                  "convert it in Python: torch.save(torch.jit.load(path).state_dict(), new_path)");
    }
    const ZipReader::Entry* order = zip_.Find(prefix_ + "byteorder");
    if (order != nullptr && zip_.Read(*order, 16) != "little") {
      throw Error("a checkpoint from a big-endian machine", path,
                  "load it in Python on this machine and save it again");
    }
  }

  std::string ReadPickle() {
    done_.insert(pickle_);
    return zip_.Read(*pickle_, kMaxPickle);
  }

  // The storage's bytes, [nbytes] uint8.
  at::Tensor Storage(const std::string& key) {
    const auto known = storages_.find(key);
    if (known != storages_.end()) return known->second;
    const ZipReader::Entry* entry = zip_.Find(prefix_ + "data/" + key);
    if (entry == nullptr) Damaged("storage " + key + " is missing");
    at::Tensor bytes = at::empty({static_cast<int64_t>(entry->size)}, at::kByte);
    zip_.ReadInto(*entry, bytes.data_ptr());
    done_.insert(entry);
    return storages_[key] = bytes;
  }

  // The same as elements of `type`.
  at::Tensor Storage(const std::string& key, const StorageType& type) {
    at::Tensor bytes = Storage(key);
    // Any other byte than 0 and 1 in a bool is undefined behaviour.
    if (type.dtype == at::kBool) bytes.ne_(0);
    const auto item = static_cast<int64_t>(c10::elementSize(type.dtype));
    if (bytes.numel() % item != 0) Damaged("storage " + key + " has a broken element");
    return bytes.view(type.dtype);
  }

  // Checks the members that nothing referred to.
  void VerifyRest() const {
    for (const ZipReader::Entry& entry : zip_.entries()) {
      if (done_.count(&entry) == 0) zip_.Verify(entry);
    }
  }

  [[noreturn]] void Damaged(const std::string& what) const {
    throw Error("damaged or hostile checkpoint: " + what, zip_.path(), "use another checkpoint");
  }

  const std::string& path() const { return zip_.path(); }

 private:
  // `path` if it can be a zip archive; explains what it is otherwise.
  static const std::string& Checked(const std::string& path) {
    if (ZipReader::LooksLikeZip(path)) return path;
    const std::string bytes = ReadFile(path);  // complains about missing files
    if (bytes.empty()) throw Error("the checkpoint is empty", path, "use another checkpoint");
    // The pickled number 0x1950a86a20f9469cfc6c heads torch.save's files from before 1.6; older
    // ones were tar archives.
    const bool pickled =
        bytes[0] == '\x80' && bytes.find("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") < 16;
    const bool tar = bytes.size() > 262 && bytes.compare(257, 5, "ustar") == 0;
    if (pickled || tar) {
      throw Error("a checkpoint in the format of PyTorch before 1.6", path,
                  "convert it in Python: torch.save(torch.load(path, map_location=\"cpu\"), "
                  "new_path)");
    }
    throw Error("not a checkpoint", path, "check that it is the right file");
  }

  ZipReader zip_;
  std::string prefix_;
  const ZipReader::Entry* pickle_ = nullptr;
  std::map<std::string, at::Tensor> storages_;
  std::set<const ZipReader::Entry*> done_;
};

// Turns the values of data.pkl into those of a checkpoint.
class TreeReader {
 public:
  TreeReader(Archive* archive, uint64_t pickle_size)
      : archive_(*archive), budget_(16 * pickle_size + 65536) {}

  CheckpointValue Value(const PickleValue& value) {
    Spend(1);
    switch (value.kind()) {
      case PickleKind::kBool:
        return value.AsBool(where());
      case PickleKind::kInt:
        return value.AsInt(where());
      case PickleKind::kFloat:
        return value.AsFloat(where());
      case PickleKind::kString:
      case PickleKind::kBytes: {
        const std::string_view text = value.AsBytes(where());
        Spend(text.size());
        return std::string(text);
      }
      case PickleKind::kList:
      case PickleKind::kTuple:
      case PickleKind::kSet:
        return List(value);
      case PickleKind::kDict:
        return Dict(value);
      case PickleKind::kArray:
        return Array(value.AsArray(where()));
      case PickleKind::kObject:
        return Object(value);
      case PickleKind::kNone:
      case PickleKind::kGlobal:
      case PickleKind::kPersistent:
      case PickleKind::kOpaque:
        break;
    }
    return {};
  }

  CheckpointDict Dict(const PickleValue& value) {
    CheckpointDict dict;
    dict.reserve(value.size());
    for (size_t i = 0; i < value.size(); ++i) {
      const PickleValue key = value.key(i);
      if (key.is(PickleKind::kString)) {
        Spend(key.AsString(where()).size());
        dict.emplace_back(std::string(key.AsString(where())), Value(value.value(i)));
      } else if (key.is(PickleKind::kInt)) {
        dict.emplace_back(std::to_string(key.AsInt(where())), Value(value.value(i)));
      }
    }
    return dict;
  }

 private:
  const std::string& where() const { return archive_.path(); }

  // The same list may be contained in others over and over; copied out, it would fill the memory.
  void Spend(uint64_t cost) {
    if (cost > budget_) archive_.Damaged("its data.pkl expands to many times its size");
    budget_ -= cost;
  }

  CheckpointList List(const PickleValue& value) {
    CheckpointList list;
    list.reserve(value.size());
    for (size_t i = 0; i < value.size(); ++i) list.push_back(Value(value[i]));
    return list;
  }

  CheckpointValue Array(const NdArrayView& array) {
    static const std::map<DType, at::ScalarType> types = {
        {DType::kBool, at::kBool},    {DType::kInt8, at::kChar},     {DType::kInt16, at::kShort},
        {DType::kInt32, at::kInt},    {DType::kInt64, at::kLong},    {DType::kUInt8, at::kByte},
        {DType::kFloat16, at::kHalf}, {DType::kFloat32, at::kFloat}, {DType::kFloat64, at::kDouble},
    };
    const auto type = types.find(array.dtype);
    if (type == types.end()) return {};
    Spend(array.bytes.size());
    at::Tensor bytes = at::empty({static_cast<int64_t>(array.bytes.size())}, at::kByte);
    if (!array.bytes.empty()) {
      std::memcpy(bytes.data_ptr(), array.bytes.data(), array.bytes.size());
    }
    if (type->second == at::kBool) bytes.ne_(0);
    return bytes.view(type->second).view(array.shape);
  }

  CheckpointValue Object(const PickleValue& object) {
    const std::string type = object.TypeName();
    const PickleValue args = object.Args();
    if (!args.is(PickleKind::kTuple)) return {};
    if (type == "torch._utils._rebuild_tensor_v2" || type == "torch._utils._rebuild_tensor") {
      return Tensor(args, nullptr);
    }
    if (type == "torch._utils._rebuild_tensor_v3") {
      if (args.size() < 7) archive_.Damaged("a tensor without a type");
      const StorageType* dtype = FindStorageType(args[6].TypeName());
      return dtype == nullptr ? CheckpointValue() : Tensor(args, dtype);
    }
    const bool parameter = type == "torch._utils._rebuild_parameter" ||
                           type == "torch._utils._rebuild_parameter_with_state";
    if (parameter && args.size() > 0) return Value(args[0]);
    if (type == "torch.Size" && args.size() > 0) return Value(args[0]);
    return {};
  }

  // Arguments (storage, offset, size, stride, ...). `type` is nullptr where the storage tells it.
  CheckpointValue Tensor(const PickleValue& args, const StorageType* type) {
    if (args.size() < 4 || !args[0].is(PickleKind::kPersistent)) {
      archive_.Damaged("a tensor without a storage");
    }
    const PickleValue id = args[0].Args();
    if (!id.is(PickleKind::kTuple) || id.size() < 5 || id[0].AsString(where()) != "storage") {
      archive_.Damaged("a malformed storage");
    }
    const std::string key(id[2].AsString(where()));
    if (type == nullptr) type = FindStorageType(id[1].TypeName());
    if (type == nullptr) return {};  // complex numbers, quantised tensors
    const at::Tensor storage = archive_.Storage(key, *type);
    const int64_t offset = args[1].AsInt(where());
    const std::vector<int64_t> sizes = Ints(args[2]);
    const std::vector<int64_t> strides = Ints(args[3]);
    CheckBounds(storage, key, offset, sizes, strides);
    if (key == kFloatsKey && sizes.empty()) return storage[offset].item<double>();
    return storage.as_strided(sizes, strides, offset);
  }

  std::vector<int64_t> Ints(const PickleValue& value) {
    const PickleValue tuple =
        value.TypeName() == "torch.Size" && value.Args().size() == 1 ? value.Args()[0] : value;
    if (!tuple.is_sequence() || tuple.size() > 64) archive_.Damaged("a tensor without a shape");
    std::vector<int64_t> ints;
    for (size_t i = 0; i < tuple.size(); ++i) ints.push_back(tuple[i].AsInt(where()));
    return ints;
  }

  void CheckBounds(const at::Tensor& storage, const std::string& key, int64_t offset,
                   const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) const {
    // A small storage may be shown large through strides of 0, within reason.
    constexpr int64_t kMaxExpanded = int64_t{1} << 28;
    int64_t numel = 1;
    int64_t last = offset;
    bool good = offset >= 0 && sizes.size() == strides.size();
    bool empty = false;
    for (size_t d = 0; good && d < sizes.size(); ++d) {
      int64_t reach = 0;
      good = sizes[d] >= 0 && strides[d] >= 0 &&
             Multiply(numel, std::max<int64_t>(sizes[d], 1), &numel) &&
             Multiply(std::max<int64_t>(sizes[d], 1) - 1, strides[d], &reach) &&
             !__builtin_add_overflow(last, reach, &last);
      empty = empty || sizes[d] == 0;
    }
    good = good &&
           (empty || (last < storage.numel() && numel <= std::max(storage.numel(), kMaxExpanded)));
    if (!good) archive_.Damaged("a tensor leaves its storage " + key);
  }

  Archive& archive_;
  uint64_t budget_;
};

}  // namespace

CheckpointDict ReadCheckpoint(const std::string& path) {
  Archive archive(path);
  std::string bytes = archive.ReadPickle();
  const uint64_t size = bytes.size();
  const Pickle pickle = Pickle::Parse(std::move(bytes), path + ": data.pkl");
  const PickleValue& root = pickle.root();
  if (!root.is(PickleKind::kDict)) {
    const std::string type = root.TypeName();
    throw Error("the checkpoint holds a " +
                    (type.empty() ? std::string(PickleKindName(root.kind())) : type) +
                    ", not a dict of weights",
                path, "save a state dict in Python: torch.save(model.state_dict(), new_path)");
  }
  CheckpointDict dict = TreeReader(&archive, size).Dict(root);
  archive.VerifyRest();
  return dict;
}

}  // namespace kinefit
