#include <algorithm>
#include <charconv>
#include <unordered_map>
#include <utility>

#include "files/pickle_machine.h"
#include "files/pickle_opcodes.h"

namespace kinefit {
namespace pickle_internal {
namespace {

Known Recognise(std::string_view module, std::string_view name) {
  static const auto* const table = new std::unordered_map<std::string, Known>{
      {"collections.OrderedDict", Known::kDict},
      {"collections.defaultdict", Known::kDict},
      {"collections.Counter", Known::kDict},
      {"builtins.dict", Known::kDict},
      {"builtins.list", Known::kList},
      {"builtins.tuple", Known::kTuple},
      {"builtins.set", Known::kSet},
      {"builtins.frozenset", Known::kSet},
      {"builtins.bytes", Known::kBytes},
      {"builtins.bytearray", Known::kBytes},
      {"_codecs.encode", Known::kEncode},
      {"numpy.core.multiarray._reconstruct", Known::kReconstruct},
      {"numpy.core.multiarray.scalar", Known::kScalar},
      {"numpy.core.numeric._frombuffer", Known::kFromBuffer},
      {"numpy.dtype", Known::kDType},
      {"torch.storage._load_from_bytes", Known::kTorchStorage},
      {"torch._utils._rebuild_tensor", Known::kTorchTensor},
      {"torch._utils._rebuild_tensor_v2", Known::kTorchTensor},
  };
  std::string full(module);
  if (full == "__builtin__") full = "builtins";                       // Python 2
  if (full.rfind("numpy._core", 0) == 0) full.replace(6, 5, "core");  // numpy 2
  const auto found = table->find(full + "." + std::string(name));
  return found == table->end() ? Known::kUnknown : found->second;
}

void AppendUtf8(uint32_t code, std::string* out) {
  const auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18 & 7));
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

// The value of `count` hexadecimal digits at `at`; false if there are not that many.
bool ParseHex(std::string_view text, size_t at, size_t count, uint32_t* value) {
  if (at + count > text.size()) return false;
  const char* first = text.data() + at;
  const auto result = std::from_chars(first, first + count, *value, 16);
  return result.ec == std::errc() && result.ptr == first + count;
}

}  // namespace

std::string_view Machine::Line() {
  const void* newline = std::memchr(at_, '\n', static_cast<size_t>(end_ - at_));
  if (newline == nullptr) Fail("it ends inside a line");
  const char* stop = static_cast<const char*>(newline);
  const std::string_view line(at_, static_cast<size_t>(stop - at_));
  at_ = stop + 1;
  return line;
}

PickleValue Machine::Integer(int64_t value, Tag tag) {
  PickleValue v;
  v.integer_ = value;
  v.tag_ = tag;
  return v;
}

PickleValue Machine::Real(double value) {
  PickleValue v;
  v.real_ = value;
  v.tag_ = Tag::kFloat;
  return v;
}

PickleValue Machine::Text(std::string_view text, Tag tag) {
  PickleValue v;
  v.text_ = text.data();
  v.size_ = text.size();
  v.tag_ = tag;
  return v;
}

PickleValue Machine::Opaque() {
  PickleValue v;
  v.tag_ = Tag::kOpaque;
  return v;
}

Node* Machine::NewNode(PickleKind kind) {
  if (storage_.nodes.size() >= limits_.max_containers) Fail("it holds too many objects");
  storage_.nodes.emplace_back();
  storage_.nodes.back().kind = kind;
  return &storage_.nodes.back();
}

PickleValue Machine::Handle(Node* node) {
  PickleValue v;
  v.node_ = node;
  v.tag_ = Tag::kNode;
  return v;
}

std::string_view Machine::Keep(std::string text) {
  storage_.strings.push_back(std::move(text));
  return storage_.strings.back();
}

// Real pickles decode or reorder each piece of the file about once; a hostile one would decode the
// same megabytes over and over.
void Machine::ChargeCopy(uint64_t bytes) {
  copied_ += bytes;
  if (copied_ > 4 * storage_.bytes.size() + 4096) Fail("it expands to many times its size");
}

// The same for containers made from containers: set([...]).
void Machine::ChargeItems(uint64_t count) {
  copied_items_ += count;
  if (copied_items_ > storage_.bytes.size()) Fail("it expands to many times its size");
}

PickleValue Machine::Pop() {
  if (stack_.size() <= Floor()) Fail("it takes from an empty stack");
  const PickleValue value = stack_.back();
  stack_.pop_back();
  return value;
}

PickleValue& Machine::Top() {
  if (stack_.size() <= Floor()) Fail("it looks at an empty stack");
  return stack_.back();
}

size_t Machine::PopMark() {
  if (marks_.empty()) Fail("it misses a mark");
  const size_t first = marks_.back();
  marks_.pop_back();
  return first;
}

void Machine::PopAny() {
  if (!marks_.empty() && stack_.size() == marks_.back()) {
    marks_.pop_back();
  } else {
    Pop();
  }
}

PickleValue Machine::Run() {
  while (Step()) {
  }
  PickleValue root = Pop();
  CutCycles(&root);
  return root;
}

// One opcode; false at the end of the program.
bool Machine::Step() {
  if (++opcodes_ > limits_.max_opcodes) Fail("it is too long");
  switch (static_cast<Opcode>(*Take(1))) {
    case Opcode::kProto:
      if (Number<uint8_t>() > 5) Fail("its protocol is newer than 5");
      return true;
    case Opcode::kFrame:
      if (Number<uint64_t>() > static_cast<uint64_t>(end_ - at_)) Fail("it ends too early");
      return true;
    case Opcode::kStop:
      return false;
    case Opcode::kNone:
      return Push({}), true;
    case Opcode::kNewTrue:
      return Push(Integer(1, Tag::kBool)), true;
    case Opcode::kNewFalse:
      return Push(Integer(0, Tag::kBool)), true;
    case Opcode::kInt:
      return TextInt(false), true;
    case Opcode::kLong:
      return TextInt(true), true;
    case Opcode::kBinInt:
      return Push(Integer(Number<int32_t>())), true;
    case Opcode::kBinInt1:
      return Push(Integer(Number<uint8_t>())), true;
    case Opcode::kBinInt2:
      return Push(Integer(Number<uint16_t>())), true;
    case Opcode::kLong1:
      return BinaryLong(Number<uint8_t>()), true;
    case Opcode::kLong4:
      return BinaryLong(Number<uint32_t>()), true;
    case Opcode::kFloat:
      return TextFloat(), true;
    case Opcode::kBinFloat:
      return BinaryFloat(), true;
    case Opcode::kString:
      return QuotedString(), true;
    case Opcode::kUnicode:
      return EscapedUnicode(), true;
    case Opcode::kShortBinString:
    case Opcode::kShortBinUnicode: {
      const uint8_t size = Number<uint8_t>();
      return Push(Text({Take(size), size}, Tag::kString)), true;
    }
    case Opcode::kBinString:
    case Opcode::kBinUnicode: {
      const uint32_t size = Number<uint32_t>();
      return Push(Text({Take(size), size}, Tag::kString)), true;
    }
    case Opcode::kBinUnicode8: {
      const uint64_t size = Number<uint64_t>();
      return Push(Text({Take(size), size}, Tag::kString)), true;
    }
    case Opcode::kShortBinBytes: {
      const uint8_t size = Number<uint8_t>();
      return Push(Text({Take(size), size}, Tag::kBytes)), true;
    }
    case Opcode::kBinBytes: {
      const uint32_t size = Number<uint32_t>();
      return Push(Text({Take(size), size}, Tag::kBytes)), true;
    }
    case Opcode::kBinBytes8:
    case Opcode::kByteArray8: {
      const uint64_t size = Number<uint64_t>();
      return Push(Text({Take(size), size}, Tag::kBytes)), true;
    }
    case Opcode::kMark:
      return marks_.push_back(stack_.size()), true;
    case Opcode::kPop:
      return PopAny(), true;
    case Opcode::kPopMark:
      return stack_.resize(PopMark()), true;
    case Opcode::kDup:
      return Push(PickleValue(Top())), true;
    case Opcode::kEmptyList:
      return PushNode(PickleKind::kList), true;
    case Opcode::kEmptyTuple:
      return PushNode(PickleKind::kTuple), true;
    case Opcode::kEmptyDict:
      return PushNode(PickleKind::kDict), true;
    case Opcode::kEmptySet:
      return PushNode(PickleKind::kSet), true;
    case Opcode::kList:
      return FromMark(PickleKind::kList), true;
    case Opcode::kTuple:
      return FromMark(PickleKind::kTuple), true;
    case Opcode::kDict:
      return FromMark(PickleKind::kDict), true;
    case Opcode::kFrozenSet:
      return FromMark(PickleKind::kSet), true;
    case Opcode::kTuple1:
      return SmallTuple(1), true;
    case Opcode::kTuple2:
      return SmallTuple(2), true;
    case Opcode::kTuple3:
      return SmallTuple(3), true;
    case Opcode::kAppend:
      return AppendOne(), true;
    case Opcode::kAppends:
      return Extend(PickleKind::kList, PopMark()), true;
    case Opcode::kSetItem:
      return SetOne(), true;
    case Opcode::kSetItems:
      return Extend(PickleKind::kDict, PopMark()), true;
    case Opcode::kAddItems:
      return Extend(PickleKind::kSet, PopMark()), true;
    case Opcode::kPut: {
      const std::string_view line = Line();
      uint64_t index = 0;
      std::from_chars(line.data(), line.data() + line.size(), index);
      return Remember(index), true;
    }
    case Opcode::kBinPut:
      return Remember(Number<uint8_t>()), true;
    case Opcode::kLongBinPut:
      return Remember(Number<uint32_t>()), true;
    case Opcode::kMemoize:
      return Remember(memo_count_), true;
    case Opcode::kGet: {
      const std::string_view line = Line();
      uint64_t index = 0;
      std::from_chars(line.data(), line.data() + line.size(), index);
      return Recall(index), true;
    }
    case Opcode::kBinGet:
      return Recall(Number<uint8_t>()), true;
    case Opcode::kLongBinGet:
      return Recall(Number<uint32_t>()), true;
    case Opcode::kGlobal: {
      const std::string_view module = Line();
      return PushGlobal(module, Line()), true;
    }
    case Opcode::kStackGlobal:
      return StackGlobal(), true;
    case Opcode::kReduce:
    case Opcode::kNewObj:
      return Reduce(false), true;
    case Opcode::kNewObjEx:
      return Reduce(true), true;
    case Opcode::kInst:
      return Inst(), true;
    case Opcode::kObj:
      return Obj(), true;
    case Opcode::kBuild:
      return Build(), true;
    case Opcode::kPersId:
      return Persistent(Text(Line(), Tag::kString)), true;
    case Opcode::kBinPersId:
      return Persistent(Pop()), true;
    case Opcode::kExt1:
      return Take(1), Push(Opaque()), true;
    case Opcode::kExt2:
      return Take(2), Push(Opaque()), true;
    case Opcode::kExt4:
      return Take(4), Push(Opaque()), true;
    case Opcode::kNextBuffer:
    case Opcode::kReadOnlyBuffer:
      Fail("it refers to buffers outside the file");
  }
  --at_;
  Fail("unknown opcode " + std::to_string(static_cast<uint8_t>(*at_)));
}

void Machine::BinaryFloat() {
  const char* bytes = Take(8);
  uint64_t bits = 0;
  for (int i = 0; i < 8; ++i) bits = bits << 8 | static_cast<uint8_t>(bytes[i]);  // big-endian
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  Push(Real(value));
}

void Machine::TextInt(bool is_long) {
  std::string_view line = Line();
  if (!is_long && (line == "00" || line == "01")) {
    Push(Integer(line == "01", Tag::kBool));
    return;
  }
  if (!line.empty() && line.back() == 'L') line.remove_suffix(1);
  int64_t value = 0;
  const char* stop = line.data() + line.size();
  const auto result = std::from_chars(line.data(), stop, value);
  if (result.ptr != stop || result.ec == std::errc::invalid_argument) Fail("bad integer");
  Push(result.ec == std::errc() ? Integer(value) : Opaque());
}

void Machine::TextFloat() {
  const std::string_view line = Line();
  double value = 0;
  const char* stop = line.data() + line.size();
  const auto result = std::from_chars(line.data(), stop, value);
  if (result.ptr != stop || result.ec == std::errc::invalid_argument) Fail("bad float");
  Push(Real(value));
}

// A Python 2 string literal.
void Machine::QuotedString() {
  std::string_view line = Line();
  if (line.size() < 2 || line.front() != line.back()) Fail("bad string");
  line = line.substr(1, line.size() - 2);
  std::string text;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '\\' || i + 1 == line.size()) {
      text.push_back(line[i]);
      continue;
    }
    const char escape = line[++i];
    uint32_t code = 0;
    if (escape == 'n') {
      text.push_back('\n');
    } else if (escape == 't') {
      text.push_back('\t');
    } else if (escape == 'r') {
      text.push_back('\r');
    } else if (escape == 'x' && ParseHex(line, i + 1, 2, &code)) {
      text.push_back(static_cast<char>(code));
      i += 2;
    } else {
      text.push_back(escape);
    }
  }
  Push(Text(Keep(std::move(text)), Tag::kString));
}

// Python's raw-unicode-escape: latin-1 with \uXXXX and \UXXXXXXXX.
void Machine::EscapedUnicode() {
  const std::string_view line = Line();
  std::string text;
  for (size_t i = 0; i < line.size(); ++i) {
    uint32_t code = static_cast<uint8_t>(line[i]);
    if (line[i] == '\\' && i + 1 < line.size() && (line[i + 1] == 'u' || line[i + 1] == 'U')) {
      const size_t digits = line[i + 1] == 'u' ? 4 : 8;
      if (!ParseHex(line, i + 2, digits, &code)) Fail("bad unicode escape");
      i += 1 + digits;
    }
    AppendUtf8(code, &text);
  }
  Push(Text(Keep(std::move(text)), Tag::kString));
}

// Two's complement, little-endian.
void Machine::BinaryLong(uint64_t count) {
  const char* bytes = Take(count);
  if (count > 8) {
    Push(Opaque());
    return;
  }
  uint64_t value = 0;
  for (uint64_t i = 0; i < count; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  }
  if (count > 0 && count < 8 && (bytes[count - 1] & 0x80) != 0)
    value |= ~uint64_t{0} << (8 * count);
  Push(Integer(static_cast<int64_t>(value)));
}

void Machine::FromMark(PickleKind kind) {
  const size_t first = PopMark();
  Node* node = NewNode(kind);
  node->items.assign(stack_.begin() + static_cast<std::ptrdiff_t>(first), stack_.end());
  if (kind == PickleKind::kDict && node->items.size() % 2 != 0) Fail("a key without a value");
  stack_.resize(first);
  Push(Handle(node));
}

void Machine::SmallTuple(size_t count) {
  if (stack_.size() < Floor() + count) Fail("it takes from an empty stack");
  Node* node = NewNode(PickleKind::kTuple);
  node->items.assign(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
  stack_.resize(stack_.size() - count);
  Push(Handle(node));
}

// Moves everything from `first` into the container below it.
void Machine::Extend(PickleKind wanted, size_t first) {
  if (first <= Floor()) Fail("it looks at an empty stack");
  const PickleValue& target = stack_[first - 1];
  if (!target.IsNode(wanted) && !target.IsNode(PickleKind::kObject)) {
    Fail("items for something that is no container");
  }
  if (wanted == PickleKind::kDict && (stack_.size() - first) % 2 != 0) {
    Fail("a key without a value");
  }
  std::vector<PickleValue>& items = target.node_->items;
  items.insert(items.end(), stack_.begin() + static_cast<std::ptrdiff_t>(first), stack_.end());
  stack_.resize(first);
}

void Machine::AppendOne() {
  if (stack_.size() < Floor() + 2) Fail("it takes from an empty stack");
  Extend(PickleKind::kList, stack_.size() - 1);
}

void Machine::SetOne() {
  if (stack_.size() < Floor() + 3) Fail("it takes from an empty stack");
  Extend(PickleKind::kDict, stack_.size() - 2);
}

void Machine::Remember(uint64_t index) {
  // Picklers number densely, so an honest index never exceeds the number of opcodes so far.
  if (index > opcodes_) Fail("its memo is absurdly large");
  if (index >= memo_.size()) {
    PickleValue unset;
    unset.tag_ = Tag::kUnset;
    memo_.resize(index + 1, unset);
  }
  PickleValue& slot = memo_[index];
  if (slot.tag_ == Tag::kUnset) ++memo_count_;
  slot = Top();
}

void Machine::Recall(uint64_t index) {
  if (index >= memo_.size() || memo_[index].tag_ == Tag::kUnset) Fail("it recalls the unknown");
  Push(memo_[index]);
}

void Machine::PushGlobal(std::string_view module, std::string_view name) {
  Node* node = NewNode(PickleKind::kGlobal);
  node->items = {Text(module, Tag::kString), Text(name, Tag::kString)};
  node->known = Recognise(module, name);
  Push(Handle(node));
}

void Machine::StackGlobal() {
  const PickleValue name = Pop();
  const PickleValue module = Pop();
  if (name.tag_ != Tag::kString || module.tag_ != Tag::kString) Fail("a class without a name");
  PushGlobal(ViewOf(module), ViewOf(name));
}

void Machine::Persistent(const PickleValue& id) {
  Node* node = NewNode(PickleKind::kPersistent);
  node->items.push_back(id);
  Push(Handle(node));
}

void Machine::Inst() {
  const std::string_view module = Line();
  const std::string_view name = Line();
  FromMark(PickleKind::kTuple);
  const PickleValue args = Pop();
  PushGlobal(module, name);
  const PickleValue callable = Pop();
  Push(Call(callable, args));
}

void Machine::Obj() {
  FromMark(PickleKind::kTuple);
  const PickleValue args = Pop();
  std::vector<PickleValue>& items = args.node_->items;
  if (items.empty()) Fail("an object without a class");
  const PickleValue callable = items.front();
  items.erase(items.begin());
  Push(Call(callable, args));
}

void Machine::Reduce(bool with_keywords) {
  if (with_keywords) Pop();
  const PickleValue args = Pop();
  const PickleValue callable = Pop();
  Push(Call(callable, args));
}

void Machine::Build() {
  const PickleValue state = Pop();
  const PickleValue& target = Top();
  // The extra attributes of dict subclasses and the like carry nothing that is wanted here.
  if (!target.IsNode(PickleKind::kObject)) return;
  Node* node = target.node_;
  if (node->known == Known::kReconstruct && BuildArray(node, state)) return;
  node->items[2] = state;
}

// Walks everything that can be reached from the root: references of a container to itself become
// opaque, so that whoever walks the values comes to an end, and nesting is limited, so that
// recursion is safe.
void Machine::CutCycles(PickleValue* root) {
  enum : uint8_t { kNew, kOpen, kDone };
  struct Frame {
    Node* node;
    size_t next;
  };
  if (root->tag_ != Tag::kNode) return;
  std::vector<Frame> frames{{root->node_, 0}};
  root->node_->mark = kOpen;
  while (!frames.empty()) {
    Frame& frame = frames.back();
    Node* node = frame.node;
    if (frame.next == node->items.size()) {
      node->mark = kDone;
      if (++node->depth > limits_.max_depth) Fail("it is nested too deeply");
      frames.pop_back();
      if (!frames.empty()) {
        Node* parent = frames.back().node;
        parent->depth = std::max(parent->depth, node->depth);
      }
      continue;
    }
    PickleValue& item = node->items[frame.next++];
    if (item.tag_ != Tag::kNode) continue;
    Node* child = item.node_;
    if (child->mark == kDone) {
      node->depth = std::max(node->depth, child->depth);
    } else if (child->mark == kOpen) {
      item = Opaque();
    } else {
      if (frames.size() >= limits_.max_depth) Fail("it is nested too deeply");
      child->mark = kOpen;
      frames.push_back({child, 0});
    }
  }
}

}  // namespace pickle_internal

Pickle Pickle::Parse(std::string bytes, const std::string& where, const PickleLimits& limits,
                     size_t* used) {
  auto storage = std::make_unique<Storage>();
  storage->bytes = std::move(bytes);
  pickle_internal::Machine machine(storage.get(), where, limits);
  const PickleValue root = machine.Run();
  if (used != nullptr) *used = machine.used();
  Pickle pickle(std::move(storage));
  pickle.root_ = root;
  return pickle;
}

}  // namespace kinefit
