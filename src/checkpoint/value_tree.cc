#include "checkpoint/value_tree.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "checkpoint/storage_type.h"
#include "files/error.h"

namespace kinefit {
namespace {

bool Multiply(int64_t a, int64_t b, int64_t* product) {
  return !__builtin_mul_overflow(a, b, product);
}

// Turns the values of data.pkl into those of a checkpoint.
class TreeReader {
 public:
  TreeReader(StorageSource* storages, uint64_t pickle_size)
      : storages_(*storages), budget_(16 * pickle_size + 65536) {}

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
  const std::string& where() const { return storages_.path(); }

  // The same list may be contained in others over and over; copied out, it would fill the memory.
  void Spend(uint64_t cost) {
    if (cost > budget_) storages_.Damaged("its data.pkl expands to many times its size");
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
      if (args.size() < 7) storages_.Damaged("a tensor without a type");
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
      storages_.Damaged("a tensor without a storage");
    }
    const PickleValue id = args[0].Args();
    if (!id.is(PickleKind::kTuple) || id.size() < 5 || id[0].AsString(where()) != "storage") {
      storages_.Damaged("a malformed storage");
    }
    const std::string key(id[2].AsString(where()));
    if (type == nullptr) type = FindStorageType(id[1].TypeName());
    if (type == nullptr) return {};  // complex numbers, quantised tensors
    const at::Tensor storage = storages_.Storage(key, *type);
    // In files from before PyTorch 1.6 a storage may be a piece of another one.
    const bool piece = id.size() > 5 && id[5].is(PickleKind::kTuple) && id[5].size() == 3;
    const int64_t begin = piece ? id[5][1].AsInt(where()) : 0;
    int64_t offset = args[1].AsInt(where());
    if (begin < 0 || offset < 0 || __builtin_add_overflow(offset, begin, &offset)) {
      storages_.Damaged("a tensor leaves its storage " + key);
    }
    const std::vector<int64_t> sizes = Ints(args[2]);
    const std::vector<int64_t> strides = Ints(args[3]);
    CheckBounds(storage, key, offset, sizes, strides);
    if (key == kFloatsKey && sizes.empty()) return storage[offset].item<double>();
    return storage.as_strided(sizes, strides, offset);
  }

  std::vector<int64_t> Ints(const PickleValue& value) {
    const PickleValue tuple =
        value.TypeName() == "torch.Size" && value.Args().size() == 1 ? value.Args()[0] : value;
    if (!tuple.is_sequence() || tuple.size() > 64) storages_.Damaged("a tensor without a shape");
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
    if (!good) storages_.Damaged("a tensor leaves its storage " + key);
  }

  StorageSource& storages_;
  uint64_t budget_;
};

}  // namespace

void StorageSource::Damaged(const std::string& what) const {
  throw Error("damaged or hostile checkpoint: " + what, path(), "use another checkpoint");
}

CheckpointDict ReadTree(const PickleValue& root, uint64_t pickle_size, StorageSource* storages) {
  if (!root.is(PickleKind::kDict)) {
    const std::string type = root.TypeName();
    throw Error("the checkpoint holds a " +
                    (type.empty() ? std::string(PickleKindName(root.kind())) : type) +
                    ", not a dict of weights",
                storages->path(),
                "save a state dict in Python: torch.save(model.state_dict(), new_path)");
  }
  return TreeReader(storages, pickle_size).Dict(root);
}

}  // namespace kinefit
