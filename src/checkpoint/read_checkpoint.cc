#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/storage_type.h"
#include "files/error.h"
#include "files/pickle.h"
#include "files/publish.h"
#include "files/torch_legacy.h"
#include "files/zip.h"

namespace kinefit {
namespace {

constexpr uint64_t kMaxPickle = uint64_t{1} << 30;

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

at::Tensor CopyOf(std::string_view bytes) {
  at::Tensor copy = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  if (!bytes.empty()) std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
  return copy;
}

// The elements of a checkpoint's tensors by key, each read once.
class StorageSource {
 public:
  explicit StorageSource(const std::string& path) : path_(path) {}
  virtual ~StorageSource() = default;

  // [elements] of `type`.
  at::Tensor Storage(const std::string& key, const StorageType& type) {
    const auto [found, is_new] = storages_.emplace(key, at::Tensor());
    if (is_new) found->second = Bytes(key);
    const at::Tensor& bytes = found->second;
    // Any other byte than 0 and 1 in a bool is undefined behaviour.
    if (type.dtype == at::kBool) bytes.ne_(0);
    const auto item = static_cast<int64_t>(c10::elementSize(type.dtype));
    if (bytes.numel() % item != 0) Damaged("storage " + key + " has a broken element");
    return bytes.view(type.dtype);
  }

  [[noreturn]] void Damaged(const std::string& what) const {
    throw Error("damaged or hostile checkpoint: " + what, path_, "use another checkpoint");
  }

  const std::string& path() const { return path_; }

 private:
  // [nbytes] uint8, its own memory.
  virtual at::Tensor Bytes(const std::string& key) = 0;

  std::string path_;
  std::map<std::string, at::Tensor> storages_;
};

// The zip archive that torch.save writes.
class Archive : public StorageSource {
 public:
  explicit Archive(const std::string& path) : StorageSource(path), zip_(path) {
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

  // Checks the members that nothing referred to.
  void VerifyRest() const {
    for (const ZipReader::Entry& entry : zip_.entries()) {
      if (done_.count(&entry) == 0) zip_.Verify(entry);
    }
  }

 private:
  at::Tensor Bytes(const std::string& key) override {
    const ZipReader::Entry* entry = zip_.Find(prefix_ + "data/" + key);
    if (entry == nullptr) Damaged("storage " + key + " is missing");
    at::Tensor bytes = at::empty({static_cast<int64_t>(entry->size)}, at::kByte);
    zip_.ReadInto(*entry, bytes.data_ptr());
    done_.insert(entry);
    return bytes;
  }

  ZipReader zip_;
  std::string prefix_;
  const ZipReader::Entry* pickle_ = nullptr;
  std::set<const ZipReader::Entry*> done_;
};

// The file that torch.save wrote before PyTorch 1.6.
class LegacyArchive : public StorageSource {
 public:
  LegacyArchive(const std::string& path, std::string_view bytes)
      : StorageSource(path), file_(bytes, path) {}

  const TorchLegacyFile& file() const { return file_; }

 private:
  at::Tensor Bytes(const std::string& key) override {
    const TorchLegacyFile::Storage* storage = file_.Find(key);
    if (storage == nullptr) Damaged("storage " + key + " is missing");
    return CopyOf(storage->bytes);
  }

  TorchLegacyFile file_;
};

// Turns the values of data.pkl into those of a checkpoint.
class TreeReader {
 public:
  TreeReader(StorageSource* archive, uint64_t pickle_size)
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
    at::Tensor bytes = CopyOf(array.bytes);
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
    TorchStorageId id;
    if (!ReadTorchStorageId(args[0], &id)) archive_.Damaged("a malformed storage");
    if (type == nullptr) type = FindStorageType(id.type);
    if (type == nullptr) return {};  // complex numbers, quantised tensors
    at::Tensor storage = archive_.Storage(id.key, *type);
    if (id.is_view) {
      const auto first = static_cast<int64_t>(id.view_offset);
      const auto count = static_cast<int64_t>(id.view_count);
      if (first > storage.numel() || count > storage.numel() - first) {
        archive_.Damaged("a view leaves its storage " + id.key);
      }
      storage = storage.narrow(0, first, count);
    }
    const int64_t offset = args[1].AsInt(where());
    const std::vector<int64_t> sizes = Ints(args[2]);
    const std::vector<int64_t> strides = Ints(args[3]);
    // A small storage may be shown large through strides of 0, within reason.
    constexpr int64_t kMaxExpanded = int64_t{1} << 28;
    if (!TorchTensorFits(static_cast<uint64_t>(storage.numel()), offset, sizes, strides,
                         std::max(storage.numel(), kMaxExpanded))) {
      archive_.Damaged("a tensor leaves its storage " + id.key);
    }
    if (id.key == kFloatsKey && sizes.empty()) return storage[offset].item<double>();
    return storage.as_strided(sizes, strides, storage.storage_offset() + offset);
  }

  std::vector<int64_t> Ints(const PickleValue& value) {
    const PickleValue tuple =
        value.TypeName() == "torch.Size" && value.Args().size() == 1 ? value.Args()[0] : value;
    if (!tuple.is_sequence() || tuple.size() > 64) archive_.Damaged("a tensor without a shape");
    std::vector<int64_t> ints;
    for (size_t i = 0; i < tuple.size(); ++i) ints.push_back(tuple[i].AsInt(where()));
    return ints;
  }

  StorageSource& archive_;
  uint64_t budget_;
};

CheckpointDict ReadTree(const PickleValue& root, uint64_t pickle_size, StorageSource* source) {
  if (!root.is(PickleKind::kDict)) {
    const std::string type = root.TypeName();
    throw Error("the checkpoint holds a " +
                    (type.empty() ? std::string(PickleKindName(root.kind())) : type) +
                    ", not a dict of weights",
                source->path(),
                "save a state dict in Python: torch.save(model.state_dict(), new_path)");
  }
  return TreeReader(source, pickle_size).Dict(root);
}

}  // namespace

CheckpointDict ReadCheckpoint(const std::string& path) {
  if (!ZipReader::LooksLikeZip(path)) {
    const std::string bytes = ReadFile(path);  // complains about missing files
    if (bytes.empty()) throw Error("the checkpoint is empty", path, "use another checkpoint");
    if (TorchLegacyFile::Recognises(bytes)) {
      LegacyArchive archive(path, bytes);
      return ReadTree(archive.file().root(), archive.file().pickle_size(), &archive);
    }
    if (LooksLikeSafetensors(bytes)) return ParseSafetensors(bytes, path);
    if (bytes.size() > 262 && bytes.compare(257, 5, "ustar") == 0) {
      throw Error("a checkpoint in the format of PyTorch before 0.1.10, a tar archive", path,
                  "convert it in Python: torch.save(torch.load(path, map_location=\"cpu\"), "
                  "new_path)");
    }
    throw Error("not a checkpoint", path, "check that it is the right file");
  }
  Archive archive(path);
  std::string bytes = archive.ReadPickle();
  const uint64_t size = bytes.size();
  const Pickle pickle = Pickle::Parse(std::move(bytes), path + ": data.pkl");
  CheckpointDict dict = ReadTree(pickle.root(), size, &archive);
  archive.VerifyRest();
  return dict;
}

}  // namespace kinefit
