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

// Reads any file of torch.save (a zip, or the format of before PyTorch 1.6): ours, mmengine's,
// plain PyTorch's; or a .safetensors. Executes nothing; objects of unknown types become None.
// Verifies every CRC. Tensors are on the CPU and own their memory. Throws Error naming the file for
// anything malformed.
CheckpointDict ReadCheckpoint(const std::string& path);

// Writes `tensors` as a .safetensors, atomically, with `metadata` as its texts. Throws Error.
void WriteSafetensors(const std::string& path,
                      const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata);

// The weights of a checkpoint, and from where in it.
struct FoundWeights {
  std::vector<std::pair<std::string, at::Tensor>> tensors;  // without what wrappers put into names
  std::string note;  // "" = under "state_dict", with plain names; else one line that says what
};

// Looks for the dict that holds most tensors whose names end like those of the network (`wanted`);
// without `wanted` for "state_dict", "model", the names that others use, and then the dict with
// most tensors. What wrappers put into names ("module.", "_orig_mod.", wherever they are) and what
// all names begin with in vain ("model.") is taken off. With `ema` the averaged weights where the
// checkpoint has them. Throws Error if there are no tensors.
FoundWeights FindWeights(const CheckpointDict& root, const std::string& path, bool ema,
                         const std::vector<std::string>& wanted);

// The tensors of FindWeights without names to look for.
std::vector<std::pair<std::string, at::Tensor>> StateDictOf(const CheckpointDict& root,
                                                            const std::string& path,
                                                            bool ema = false);

struct LoadReport {
  int64_t loaded = 0;
  std::vector<std::string> missing;     // in the network, not in the file
  std::vector<std::string> unexpected;  // in the file, not in the network
  std::vector<std::string> mismatched;  // "name: file [..], network [..]"
  // Whether the network got all its tensors, and nothing is left over that looks like a part of a
  // larger network: what begins with none of the words that the network's names begin with
  // ("data_preprocessor.mean") does not count.
  bool complete = false;
  int64_t wanted = 0;           // tensors of the network, without counters of batches
  std::string Summary() const;  // one line, or several when something is amiss
  std::string Lists() const;    // all names, each in a line under what it is
  bool clean() const { return missing.empty() && unexpected.empty() && mismatched.empty(); }
};

struct LoadOptions {
  bool strict = false;           // an Error unless the report is clean()
  bool complete = false;         // an Error unless the report is complete
  bool allow_nonfinite = false;  // else NaN or an infinity in what would be loaded is an Error
};

// Copies `source` into `target` tensors of the same name and shape (in place, across devices and
// dtypes). num_batches_tracked may be missing on either side. Throws Error, and copies nothing, for
// what `options` refuse, and in any case if nothing at all matches (checkpoint of another network).
LoadReport LoadInto(const std::vector<std::pair<std::string, at::Tensor>>& target,
                    const std::vector<std::pair<std::string, at::Tensor>>& source,
                    const LoadOptions& options, const std::string& path);
LoadReport LoadInto(const std::vector<std::pair<std::string, at::Tensor>>& target,
                    const std::vector<std::pair<std::string, at::Tensor>>& source, bool strict,
                    const std::string& path);

}  // namespace kinefit
