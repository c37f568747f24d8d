#include <map>
#include <tuple>

#include "checkpoint/checkpoint.h"
#include "checkpoint/storage_type.h"
#include "files/error.h"
#include "files/pickle.h"
#include "files/zip.h"

namespace kinefit {
namespace {

int64_t CountFloats(const CheckpointValue& value) {
  int64_t count = std::holds_alternative<double>(value.value()) ? 1 : 0;
  if (const auto* list = std::get_if<CheckpointList>(&value.value())) {
    for (const CheckpointValue& item : *list) count += CountFloats(item);
  }
  if (const auto* dict = std::get_if<CheckpointDict>(&value.value())) {
    for (const auto& [key, item] : *dict) count += CountFloats(item);
  }
  return count;
}

// Builds data.pkl and remembers which tensors it refers to.
class TreeWriter {
 public:
  explicit TreeWriter(const std::string& path) : path_(path) {}

  std::string Write(const CheckpointDict& root) {
    for (const auto& [key, value] : root) float_count_ += CountFloats(value);
    Dict(root);
    return pickle_.Finish();
  }
  // Tensor i is the storage "data/i".
  const std::vector<at::Tensor>& tensors() const { return tensors_; }
  const std::vector<double>& floats() const { return floats_; }

 private:
  void Value(const CheckpointValue& value) {
    std::visit([this](const auto& held) { Emit(held); }, value.value());
  }

  void Emit(std::monostate) { pickle_.None(); }
  void Emit(bool value) { pickle_.Bool(value); }
  void Emit(int64_t value) { pickle_.Int(value); }
  void Emit(const std::string& value) { pickle_.String(value); }
  void Emit(const CheckpointDict& value) { Dict(value); }

  void Emit(double value) {
    const auto index = static_cast<int64_t>(floats_.size());
    floats_.push_back(value);
    Tensor(*FindStorageType(at::kDouble), kFloatsKey, float_count_, index, {}, {});
  }

  void Emit(const CheckpointList& list) {
    pickle_.BeginList();
    for (const CheckpointValue& item : list) Value(item);
    pickle_.EndList();
  }

  void Emit(const at::Tensor& tensor) {
    if (!tensor.defined()) {
      pickle_.None();
      return;
    }
    const StorageType* type = FindStorageType(tensor.scalar_type());
    if (type == nullptr || tensor.layout() != at::kStrided || tensor.is_meta()) {
      throw Error("a tensor of type " + std::string(c10::toString(tensor.scalar_type())) + " on " +
                      tensor.device().str() + " cannot be saved",
                  path_);
    }
    std::vector<int64_t> strides(tensor.sizes().size());
    int64_t stride = 1;
    for (size_t d = strides.size(); d-- > 0;) {
      strides[d] = stride;
      stride *= std::max<int64_t>(tensor.size(static_cast<int64_t>(d)), 1);
    }
    Tensor(*type, std::to_string(IndexOf(tensor)), tensor.numel(), 0, tensor.sizes(), strides);
  }

  void Dict(const CheckpointDict& dict) {
    pickle_.BeginDict();
    for (const auto& [key, value] : dict) {
      pickle_.String(key);
      Value(value);
    }
    pickle_.EndDict();
  }

  // Tensors over the same memory share one storage.
  size_t IndexOf(const at::Tensor& tensor) {
    if (tensor.is_contiguous() && tensor.numel() > 0) {
      const auto key = std::make_tuple(tensor.data_ptr(), tensor.numel(), tensor.scalar_type());
      const auto [found, is_new] = known_.emplace(key, tensors_.size());
      if (!is_new) return found->second;
    }
    tensors_.push_back(tensor);
    return tensors_.size() - 1;
  }

  // torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)
  void Tensor(const StorageType& type, const std::string& key, int64_t numel, int64_t offset,
              at::IntArrayRef sizes, at::IntArrayRef strides) {
    pickle_.Global("torch._utils", "_rebuild_tensor_v2");
    pickle_.BeginTuple();
    pickle_.BeginTuple();
    pickle_.String("storage");
    pickle_.Global("torch", type.storage);
    pickle_.String(key);
    pickle_.String("cpu");
    pickle_.Int(numel);
    pickle_.EndTuple();
    pickle_.PersistentId();
    pickle_.Int(offset);
    Ints(sizes);
    Ints(strides);
    pickle_.Bool(false);
    pickle_.Global("collections", "OrderedDict");
    Ints({});
    pickle_.Reduce();
    pickle_.EndTuple();
    pickle_.Reduce();
  }

  void Ints(at::IntArrayRef values) {
    pickle_.BeginTuple();
    for (const int64_t value : values) pickle_.Int(value);
    pickle_.EndTuple();
  }

  const std::string& path_;
  PickleWriter pickle_;
  std::vector<at::Tensor> tensors_;
  std::vector<double> floats_;
  int64_t float_count_ = 0;
  std::map<std::tuple<const void*, int64_t, at::ScalarType>, size_t> known_;
};

}  // namespace

void WriteCheckpoint(const std::string& path, const CheckpointDict& root) {
  TreeWriter tree(path);
  const std::string pickle = tree.Write(root);
  ZipWriter zip(path);
  // As torch.save writes to a buffer: the file may then be renamed and keeps its bytes.
  zip.Add("archive/data.pkl", pickle);
  zip.Add("archive/byteorder", "little");
  for (size_t i = 0; i < tree.tensors().size(); ++i) {
    // One at a time: copies from a GPU need not fit into memory together.
    const at::Tensor tensor = tree.tensors()[i].detach().cpu().contiguous();
    zip.Add("archive/data/" + std::to_string(i), tensor.data_ptr(), tensor.nbytes());
  }
  if (!tree.floats().empty()) {
    zip.Add(std::string("archive/data/") + kFloatsKey, tree.floats().data(),
            tree.floats().size() * sizeof(double));
  }
  zip.Add("archive/version", "3\n");
  zip.Commit();
}

}  // namespace kinefit
