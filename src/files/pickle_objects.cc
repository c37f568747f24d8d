#include <algorithm>
#include <limits>
#include <unordered_map>
#include <utility>

#include "files/pickle_machine.h"
#include "files/torch_legacy.h"

namespace kinefit::pickle_internal {

PickleValue Machine::Call(const PickleValue& callable, const PickleValue& args) {
  const Known known =
      callable.IsNode(PickleKind::kGlobal) ? callable.node_->known : Known::kUnknown;
  if (known == Known::kUnknown || !args.IsNode(PickleKind::kTuple)) {
    return Opaque(callable, args, Known::kUnknown);
  }
  const std::vector<PickleValue>& items = args.node_->items;
  PickleValue result;
  switch (known) {
    case Known::kDict:
      return MakeDict(items);
    case Known::kList:
      return MakeSequence(PickleKind::kList, items);
    case Known::kTuple:
      return MakeSequence(PickleKind::kTuple, items);
    case Known::kSet:
      return MakeSequence(PickleKind::kSet, items);
    case Known::kBytes:
      if (MakeBytes(items, &result)) return result;
      break;
    case Known::kEncode:
      if (Encode(items, &result)) return result;
      break;
    case Known::kScalar:
      if (MakeScalar(items, &result)) return result;
      break;
    case Known::kFromBuffer:
      if (FromBuffer(items, &result)) return result;
      break;
    case Known::kTorchStorage:
      if (TorchStorage(items, &result)) return result;
      break;
    case Known::kTorchTensor:
      if (TorchTensor(items, &result)) return result;
      break;
    case Known::kReconstruct:
    case Known::kDType:
    case Known::kUnknown:
      break;
  }
  return Opaque(callable, args, known);
}

PickleValue Machine::Opaque(const PickleValue& callable, const PickleValue& args, Known known) {
  Node* node = NewNode(PickleKind::kObject);
  node->known = known;
  node->items = {callable, args, PickleValue()};
  return Handle(node);
}

// dict(), OrderedDict([(k, v), ...]), Counter({...}), defaultdict(factory, {...}).
PickleValue Machine::MakeDict(const std::vector<PickleValue>& args) {
  Node* node = NewNode(PickleKind::kDict);
  for (const PickleValue& arg : args) {
    if (arg.IsNode(PickleKind::kDict)) {
      ChargeItems(arg.node_->items.size());
      node->items = arg.node_->items;
    } else if (arg.IsNode(PickleKind::kList)) {
      ChargeItems(2 * arg.node_->items.size());
      for (const PickleValue& pair : arg.node_->items) {
        if (!pair.is_sequence() || pair.size() != 2) Fail("a dict of something else than pairs");
        node->items.push_back(pair[0]);
        node->items.push_back(pair[1]);
      }
    }
  }
  return Handle(node);
}

PickleValue Machine::MakeSequence(PickleKind kind, const std::vector<PickleValue>& args) {
  Node* node = NewNode(kind);
  if (args.size() == 1 && args[0].is_sequence()) {
    ChargeItems(args[0].size());
    node->items = args[0].node_->items;
  }
  return Handle(node);
}

bool Machine::MakeBytes(const std::vector<PickleValue>& args, PickleValue* out) {
  if (args.empty()) {
    *out = Text({}, Tag::kBytes);
    return true;
  }
  if (args.size() == 1 && IsText(args[0])) {
    *out = Text(ViewOf(args[0]), Tag::kBytes);
    return true;
  }
  return Encode(args, out);
}

// encode(text, "latin1"): each code point is one byte.
bool Machine::Encode(const std::vector<PickleValue>& args, PickleValue* out) {
  if (args.size() != 2 || args[0].tag_ != Tag::kString || args[1].tag_ != Tag::kString)
    return false;
  const std::string_view codec = ViewOf(args[1]);
  if (codec != "latin1" && codec != "latin-1" && codec != "iso-8859-1") return false;
  const std::string_view text = ViewOf(args[0]);
  ChargeCopy(text.size());
  std::string bytes(text.size(), '\0');
  char* to = bytes.data();
  const char* from = text.data();
  const char* const last = from + text.size() - (text.empty() ? 0 : 1);
  // Without branches, which random bytes would mispredict half the time.
  uint32_t bad = 0;
  while (from < last) {
    const uint32_t first = static_cast<uint8_t>(*from);
    const uint32_t second = static_cast<uint8_t>(from[1]) & 0x3F;
    const uint32_t wide = first >> 7;
    bad |= wide & static_cast<uint32_t>((first & 0xFE) != 0xC2);
    *to++ = static_cast<char>(wide != 0 ? (first & 3) << 6 | second : first);
    from += 1 + wide;
  }
  if (from == last && !text.empty()) {
    bad |= static_cast<uint32_t>(static_cast<uint8_t>(*from) >> 7);
    *to++ = *from;
  }
  if (bad != 0) Fail("a byte string that is not latin-1");
  bytes.resize(static_cast<size_t>(to - bytes.data()));
  *out = Text(Keep(std::move(bytes)), Tag::kBytes);
  return true;
}

bool Machine::ReadDType(const PickleValue& value, DType* dtype, bool* swap) {
  if (!value.IsNode(PickleKind::kObject) || value.node_->known != Known::kDType) return false;
  const std::vector<PickleValue>& args = value.Args().node_->items;
  if (args.empty() || !IsText(args[0]) || !ParseDType(ViewOf(args[0]), dtype, swap)) return false;
  const PickleValue state = value.State();
  if (state.IsNode(PickleKind::kTuple) && state.size() > 1 && IsText(state[1])) {
    *swap = *swap || ViewOf(state[1]) == ">";
  }
  return true;
}

bool Machine::ReadShape(const PickleValue& value, std::vector<int64_t>* shape) {
  if (value.tag_ == Tag::kInt) {
    shape->push_back(value.integer_);
    return true;
  }
  if (!value.IsNode(PickleKind::kTuple)) return false;
  if (value.size() > 64) Fail("an array with too many dimensions");
  for (const PickleValue& size : value.node_->items) {
    if (size.tag_ != Tag::kInt) return false;
    shape->push_back(size.integer_);
  }
  return true;
}

// State (version, shape, dtype, is_fortran, bytes). False leaves the object opaque.
bool Machine::BuildArray(Node* node, const PickleValue& state) {
  if (!state.IsNode(PickleKind::kTuple) || state.size() != 5) return false;
  DType dtype;
  bool swap = false;
  std::vector<int64_t> shape;
  const PickleValue order = state[3];
  if (!ReadDType(state[2], &dtype, &swap) || !ReadShape(state[1], &shape)) return false;
  if ((order.tag_ != Tag::kBool && order.tag_ != Tag::kInt) || !IsText(state[4])) return false;
  FillArray(node, ViewOf(state[4]), dtype, swap, std::move(shape), order.integer_ != 0);
  return true;
}

// _frombuffer(bytes, dtype, shape, order).
bool Machine::FromBuffer(const std::vector<PickleValue>& args, PickleValue* out) {
  DType dtype;
  bool swap = false;
  std::vector<int64_t> shape;
  if (args.size() < 3 || !IsText(args[0]) || !ReadDType(args[1], &dtype, &swap) ||
      !ReadShape(args[2], &shape)) {
    return false;
  }
  const bool fortran = args.size() > 3 && IsText(args[3]) && ViewOf(args[3]) == "F";
  Node* node = NewNode(PickleKind::kArray);
  FillArray(node, ViewOf(args[0]), dtype, swap, std::move(shape), fortran);
  *out = Handle(node);
  return true;
}

void Machine::FillArray(Node* node, std::string_view raw, DType dtype, bool swap,
                        std::vector<int64_t> shape, bool fortran) {
  const size_t item = ItemSize(dtype);
  if (CheckedByteSize(shape, dtype, where_) != raw.size()) {
    Fail("an array whose bytes do not fit its shape");
  }
  const bool reorder = fortran && shape.size() > 1;
  if (reorder || (swap && item > 1)) {
    ChargeCopy(raw.size());
    std::string copy = reorder ? FortranToC(raw, shape, item) : std::string(raw);
    if (swap) SwapBytes(&copy, item);
    raw = Keep(std::move(copy));
  }
  node->kind = PickleKind::kArray;
  node->items.clear();
  node->array = std::make_unique<NdArrayView>(NdArrayView{dtype, std::move(shape), raw});
}

// scalar(dtype, bytes).
bool Machine::MakeScalar(const std::vector<PickleValue>& args, PickleValue* out) {
  DType dtype;
  bool swap = false;
  if (args.size() != 2 || !ReadDType(args[0], &dtype, &swap) || !IsText(args[1])) return false;
  std::string bytes(ViewOf(args[1]));
  if (bytes.size() != ItemSize(dtype)) Fail("a numpy scalar of the wrong size");
  if (swap) SwapBytes(&bytes, bytes.size());
  return Scalar({dtype, {}, bytes}, out);
}

bool Machine::Scalar(const NdArrayView& view, PickleValue* out) {
  switch (view.dtype) {
    case DType::kFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
      *out = Real(view.ToDoubles()[0]);
      return true;
    case DType::kUInt64: {
      uint64_t value;
      std::memcpy(&value, view.bytes.data(), sizeof(value));
      const bool fits = value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
      *out = fits ? Integer(static_cast<int64_t>(value)) : Opaque();
      return true;
    }
    default:
      *out = Integer(view.ToInts(where_)[0], view.dtype == DType::kBool ? Tag::kBool : Tag::kInt);
      return true;
  }
}

// _load_from_bytes(file of torch.save): the elements, one after the other.
bool Machine::TorchStorage(const std::vector<PickleValue>& args, PickleValue* out) {
  if (!limits_.torch_tensors || args.size() != 1 || !IsText(args[0])) return false;
  const std::string_view bytes = ViewOf(args[0]);
  if (!TorchLegacyFile::Recognises(bytes)) return false;
  ChargeCopy(bytes.size());  // its pickles are copied
  PickleLimits limits = limits_;
  limits.torch_tensors = false;
  const TorchLegacyFile file(bytes, where_, limits);
  static const std::unordered_map<std::string, DType> types = {
      {"torch.FloatStorage", DType::kFloat32}, {"torch.DoubleStorage", DType::kFloat64},
      {"torch.HalfStorage", DType::kFloat16},  {"torch.LongStorage", DType::kInt64},
      {"torch.IntStorage", DType::kInt32},     {"torch.ShortStorage", DType::kInt16},
      {"torch.CharStorage", DType::kInt8},     {"torch.ByteStorage", DType::kUInt8},
      {"torch.BoolStorage", DType::kBool}};
  TorchStorageId id;
  if (!ReadTorchStorageId(file.root(), &id) || id.is_view) return false;
  const auto type = types.find(id.type);
  const TorchLegacyFile::Storage* storage = file.Find(id.key);
  if (type == types.end() || storage == nullptr) return false;
  Node* node = NewNode(PickleKind::kArray);
  FillArray(node, storage->bytes, type->second, false, {static_cast<int64_t>(storage->count)},
            false);
  *out = Handle(node);
  return true;
}

// _rebuild_tensor_v2(elements, offset, shape, strides, ...).
bool Machine::TorchTensor(const std::vector<PickleValue>& args, PickleValue* out) {
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  if (args.size() < 4 || !args[0].IsNode(PickleKind::kArray) || args[1].tag_ != Tag::kInt ||
      !ReadShape(args[2], &shape) || !ReadShape(args[3], &strides)) {
    return false;
  }
  const NdArrayView& elements = *args[0].node_->array;
  const int64_t offset = args[1].integer_;
  const int64_t count = elements.numel();
  if (elements.shape.size() != 1 || shape.size() > 32 ||
      !TorchTensorFits(static_cast<uint64_t>(count), offset, shape, strides, count)) {
    Fail("a tensor that leaves its storage");
  }
  const size_t item = ItemSize(elements.dtype);
  const uint64_t size = CheckedByteSize(shape, elements.dtype, where_);
  bool dense = true;
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    dense = dense && (shape[d] <= 1 || strides[d] == stride);
    stride *= std::max<int64_t>(shape[d], 1);
  }
  std::string_view bytes;
  if (size > 0 && dense) {
    bytes = elements.bytes.substr(static_cast<size_t>(offset) * item, size);
  } else if (size > 0) {
    ChargeCopy(size);
    std::string copy;
    copy.reserve(size);
    std::vector<int64_t> index(shape.size(), 0);
    int64_t from = offset;
    while (copy.size() < size) {
      copy.append(elements.bytes.substr(static_cast<size_t>(from) * item, item));
      for (size_t d = shape.size(); d-- > 0;) {
        from += strides[d];
        if (++index[d] < shape[d]) break;
        from -= strides[d] * shape[d];
        index[d] = 0;
      }
    }
    bytes = Keep(std::move(copy));
  }
  if (shape.empty()) return Scalar({elements.dtype, {}, bytes}, out);
  Node* node = NewNode(PickleKind::kArray);
  FillArray(node, bytes, elements.dtype, false, std::move(shape), false);
  *out = Handle(node);
  return true;
}

}  // namespace kinefit::pickle_internal
