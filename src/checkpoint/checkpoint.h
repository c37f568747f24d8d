#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace kinefit {

// A tree of what a checkpoint may hold: exactly what torch.load(weights_only=True) accepts.
class CheckpointValue;
using CheckpointList = std::vector<CheckpointValue>;
// Keeps insertion order, as Python's dict does.
using CheckpointDict = std::vector<std::pair<std::string, CheckpointValue>>;

class CheckpointValue {
 public:
  using Value = std::variant<std::monostate, bool, int64_t, double, std::string, at::Tensor,
                             CheckpointList, CheckpointDict>;
  CheckpointValue() = default;
  template <typename T>
  CheckpointValue(T value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  CheckpointValue(const char* text) : value_(std::string(text)) {}     // NOLINT
  CheckpointValue(int value) : value_(static_cast<int64_t>(value)) {}  // NOLINT

  bool is_none() const { return std::holds_alternative<std::monostate>(value_); }
  const Value& value() const { return value_; }
  // Typed access; each throws Error naming `what` (the path of the value) if the type is another.
  int64_t AsInt(const std::string& what) const;
  double AsDouble(const std::string& what) const;
  bool AsBool(const std::string& what) const;
  const std::string& AsString(const std::string& what) const;
  const at::Tensor& AsTensor(const std::string& what) const;
  const CheckpointList& AsList(const std::string& what) const;
  const CheckpointDict& AsDict(const std::string& what) const;
  // Member of a dict, nullptr if absent or not a dict.
  const CheckpointValue* Find(const std::string& key) const;

 private:
  Value value_;
};

// Writes `root` as a torch.save zip, atomically. Tensors are written from the CPU, contiguous;
// tensors sharing storage are written once. Throws Error (full disk, unwritable folder).
void WriteCheckpoint(const std::string& path, const CheckpointDict& root);

// Reads any torch.save zip: ours, mmengine's, plain PyTorch's. Executes nothing; objects of
// unknown types become None. Verifies every CRC. Tensors are on the CPU and own their memory.
// Throws Error naming the file for anything malformed.
CheckpointDict ReadCheckpoint(const std::string& path);

// The weights of a checkpoint: its "state_dict" (or "model", or the root itself if it is one), with
// a "module." prefix removed. With `ema` the averaged weights where the checkpoint has them.
std::vector<std::pair<std::string, at::Tensor>> StateDictOf(const CheckpointDict& root,
                                                            const std::string& path,
                                                            bool ema = false);

struct LoadReport {
  int64_t loaded = 0;
  std::vector<std::string> missing;     // in the network, not in the file
  std::vector<std::string> unexpected;  // in the file, not in the network
  std::vector<std::string> mismatched;  // "name: file [..], network [..]"
  std::string Summary() const;          // one line, or several when something is amiss
  bool clean() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
};

// Copies `source` into `target` tensors of the same name and shape (in place, across devices and
// dtypes). num_batches_tracked may be missing on either side. `strict` throws Error unless clean;
// an Error is thrown in any case if nothing at all matches (checkpoint of another network).
LoadReport LoadInto(const std::vector<std::pair<std::string, at::Tensor>>& target,
                    const std::vector<std::pair<std::string, at::Tensor>>& source, bool strict,
                    const std::string& path);

}  // namespace kinefit
