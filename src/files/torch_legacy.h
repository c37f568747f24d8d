#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "files/pickle.h"

namespace kinefit {

// What torch.save wrote before PyTorch 1.6, and still writes for a tensor inside a plain pickle:
// five pickles (magic number, version, machine, the value, the keys of its storages), then each
// storage as its number of elements and its bytes. Nothing in it is executed or trusted.
class TorchLegacyFile {
 public:
  struct Storage {
    std::string type;  // "torch.FloatStorage"
    uint64_t count = 0;
    std::string_view bytes;
  };

  // Whether bytes, of which the first 64 are enough, are such a file.
  static bool Recognises(std::string_view bytes);

  // `bytes` must live as long as this. Throws Error naming `where` for anything malformed.
  TorchLegacyFile(std::string_view bytes, const std::string& where,
                  const PickleLimits& limits = {});

  const PickleValue& root() const { return pickle_->root(); }
  uint64_t pickle_size() const { return pickle_size_; }
  // By the key of a persistent id; nullptr if there is none.
  const Storage* Find(const std::string& key) const;

 private:
  [[noreturn]] void Fail(const std::string& what) const;
  Pickle Next(std::string_view* rest, uint64_t max_size, const PickleLimits& limits);
  void FindStorages(const PickleValue& root);
  void ReadStorages(const PickleValue& keys, std::string_view rest);

  std::string where_;
  std::optional<Pickle> pickle_;
  uint64_t pickle_size_ = 0;
  std::map<std::string, Storage> storages_;
};

// The id of a storage: ("storage", class, key, device, elements[, view]).
struct TorchStorageId {
  std::string type;
  std::string key;
  uint64_t count = 0;
  // Only this part of it, in elements, where there is a view.
  bool is_view = false;
  uint64_t view_offset = 0;
  uint64_t view_count = 0;
};

// False if it is none.
bool ReadTorchStorageId(const PickleValue& persistent, TorchStorageId* id);

// Whether `shape` and `strides` (in elements, from `offset`) stay in `count` elements and show at
// most `max_shown` of them.
bool TorchTensorFits(uint64_t count, int64_t offset, const std::vector<int64_t>& shape,
                     const std::vector<int64_t>& strides, int64_t max_shown);

}  // namespace kinefit
