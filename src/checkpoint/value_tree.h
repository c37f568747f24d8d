#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/storage_type.h"
#include "files/pickle.h"

// Internal to src/checkpoint: from the pickle of torch.save to the values of a checkpoint, the same
// for every kind of file that the bytes of tensors may lie in.
namespace kinefit {

// Where the numbers of a checkpoint lie.
class StorageSource {
 public:
  virtual ~StorageSource() = default;
  // The storage's elements, [numel] of `type`; it owns its memory. Throws Error.
  virtual at::Tensor Storage(const std::string& key, const StorageType& type) = 0;
  virtual const std::string& path() const = 0;
  [[noreturn]] void Damaged(const std::string& what) const;
};

// Throws Error for a root that is no dict and for tensors that leave their storage.
CheckpointDict ReadTree(const PickleValue& root, uint64_t pickle_size, StorageSource* storages);

}  // namespace kinefit
