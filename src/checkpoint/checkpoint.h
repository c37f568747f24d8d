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

// Reads what torch.save writes (ours, mmengine's, plain PyTorch's), also before 1.6, and
// safetensors. Executes nothing; objects of
// unknown types become None. Verifies every CRC. Tensors are on the CPU and own their memory.
// Throws Error naming the file for anything malformed.
CheckpointDict ReadCheckpoint(const std::string& path);

using NamedTensorList = std::vector<std::pair<std::string, at::Tensor>>;

// The weights of a checkpoint: of its dictionaries the one with most tensors that `network` (if
// given) names or whose names end like a layer's, without the prefixes of wrappers ("module.",
// "_orig_mod.", Lightning's "model."). With `ema` the averaged weights where the checkpoint has
// them. `said` becomes "" or what was unusual, a phrase for the user. Throws Error if there are
// none.
NamedTensorList StateDictOf(const CheckpointDict& root, const std::string& path, bool ema = false,
                            const NamedTensorList* network = nullptr, std::string* said = nullptr);

struct LoadReport {
  int64_t loaded = 0;
  std::string source;                   // where the weights were found, if that is unusual
  std::vector<std::string> missing;     // in the network, not in the file
  std::vector<std::string> unexpected;  // in the file, of a part that the network has otherwise
  std::vector<std::string> foreign;     // in the file, of nothing in the network: no fault
  std::vector<std::string> mismatched;  // "name: file [..], network [..]"
  std::string Summary() const;          // one line, or several when something is amiss
  bool clean() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
};

// Copies `source` into `target` tensors of the same name and shape (in place, across devices and
// dtypes). num_batches_tracked may be missing on either side. `strict` throws Error unless clean;
// an Error is thrown in any case if nothing at all matches (checkpoint of another network).
LoadReport LoadInto(const NamedTensorList& target, const NamedTensorList& source, bool strict,
                    const std::string& path);

// Whether LoadInto takes weights with NaN or infinity; at first they are an Error that names them.
void AllowNonfinite(bool allowed);

// StateDictOf for the network whose tensors are `target`, then LoadInto.
LoadReport LoadWeights(const NamedTensorList& target, const CheckpointDict& root, bool ema,
                       bool strict, const std::string& path);

}  // namespace kinefit
