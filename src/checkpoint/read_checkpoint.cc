#include <map>
#include <set>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/legacy_file.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/storage_type.h"
#include "checkpoint/value_tree.h"
#include "files/error.h"
#include "files/mapped_file.h"
#include "files/pickle.h"
#include "files/zip.h"

namespace kinefit {
namespace {

constexpr uint64_t kMaxPickle = uint64_t{1} << 30;

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The archive of one checkpoint: its storages by key, each read once.
class Archive : public StorageSource {
 public:
  explicit Archive(const std::string& path) : zip_(path) {
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
  at::Tensor Bytes(const std::string& key) {
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
  at::Tensor Storage(const std::string& key, const StorageType& type) override {
    at::Tensor bytes = Bytes(key);
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

  const std::string& path() const override { return zip_.path(); }

 private:
  ZipReader zip_;
  std::string prefix_;
  const ZipReader::Entry* pickle_ = nullptr;
  std::map<std::string, at::Tensor> storages_;
  std::set<const ZipReader::Entry*> done_;
};

CheckpointDict ReadArchive(const std::string& path) {
  Archive archive(path);
  std::string bytes = archive.ReadPickle();
  const uint64_t size = bytes.size();
  const Pickle pickle = Pickle::Parse(std::move(bytes), path + ": data.pkl");
  CheckpointDict dict = ReadTree(pickle.root(), size, &archive);
  archive.VerifyRest();
  return dict;
}

// What a file that is no checkpoint is instead, as far as its first bytes say.
[[noreturn]] void Explain(const std::string& path, const std::string& start) {
  if (start.empty()) throw Error("the checkpoint is empty", path, "use another checkpoint");
  if (start.size() > 262 && start.compare(257, 5, "ustar") == 0) {
    throw Error("a checkpoint in the format of PyTorch before 0.1.10", path,
                "convert it in Python: torch.save(torch.load(path, map_location=\"cpu\"), "
                "new_path)");
  }
  if (start.compare(0, 2, "\x1f\x8b") == 0) {
    throw Error("not a checkpoint, but a file packed with gzip", path, "unpack it: gunzip FILE");
  }
  if (start.compare(0, 8, "\x89HDF\r\n\x1a\n") == 0) {
    throw Error("not a checkpoint, but an HDF5 file (Keras?)", path,
                "save the weights in Python: torch.save(model.state_dict(), new_path)");
  }
  throw Error("not a checkpoint", path, "check that it is the right file");
}

}  // namespace

CheckpointDict ReadCheckpoint(const std::string& path) {
  if (ZipReader::LooksLikeZip(path)) return ReadArchive(path);
  const MappedFile file(path);  // complains about missing files
  const std::string start(file.bytes().substr(0, 512));
  if (LooksLegacy(start)) return ReadLegacy(path);
  if (LooksLikeSafetensors(start, file.bytes().size())) return ReadSafetensors(path);
  Explain(path, start);
}

}  // namespace kinefit
