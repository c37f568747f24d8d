#include "checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "files/error.h"
#include "files/mapped_file.h"
#include "files/publish.h"

namespace kinefit {
namespace {

using nlohmann::json;

constexpr uint64_t kLengthSize = 8;
constexpr uint64_t kLargestHeader = 100'000'000;  // as the reference implementation has it
constexpr char kMetadata[] = "__metadata__";
constexpr char kClassNames[] = "class_names";

struct Type {
  const char* name;
  at::ScalarType dtype;
};
constexpr Type kTypes[] = {
    {"F32", at::kFloat}, {"F64", at::kDouble}, {"F16", at::kHalf},  {"BF16", at::kBFloat16},
    {"I64", at::kLong},  {"I32", at::kInt},    {"I16", at::kShort}, {"I8", at::kChar},
    {"U8", at::kByte},   {"BOOL", at::kBool},
};

[[noreturn]] void Damaged(const std::string& path, const std::string& what) {
  throw Error("damaged or hostile safetensors file: " + what, path, "use another checkpoint");
}

uint64_t HeaderSize(std::string_view start) {
  uint64_t size = 0;
  std::memcpy(&size, start.data(), sizeof(size));
  return size;
}

// A piece of the bytes behind the header.
struct Range {
  uint64_t begin;
  uint64_t end;
};

class Reader {
 public:
  explicit Reader(const std::string& path) : file_(path) {
    const uint64_t header = HeaderSize(file_.bytes());
    data_ = file_.bytes().substr(kLengthSize + header);
    try {
      const std::string_view text = file_.bytes().substr(kLengthSize, header);
      header_ = json::parse(text.begin(), text.end());
    } catch (const json::exception&) {
      Damaged(path, "its header is not JSON");
    }
    if (!header_.is_object()) Damaged(path, "its header is not an object");
  }

  CheckpointDict Read() {
    CheckpointDict root;
    CheckpointDict tensors;
    for (const auto& [name, entry] : header_.items()) {
      if (name == kMetadata) {
        AddMetadata(entry, &root);
      } else {
        tensors.emplace_back(name, Tensor(name, entry));
      }
    }
    CheckRanges();
    root.emplace_back("state_dict", std::move(tensors));
    return root;
  }

 private:
  void AddMetadata(const json& metadata, CheckpointDict* root) const {
    if (!metadata.is_object()) Damaged(file_.path(), "its metadata is not an object");
    for (const auto& [key, value] : metadata.items()) {
      if (!value.is_string()) Damaged(file_.path(), "its metadata holds something else than text");
      const std::string text = value.get<std::string>();
      if (key == "state_dict") continue;
      if (key != kClassNames) {
        root->emplace_back(key, text);
        continue;
      }
      CheckpointList names;
      size_t begin = 0;
      for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
        names.emplace_back(text.substr(begin, end - begin));
        begin = end + 1;
      }
      root->emplace_back(key, std::move(names));
    }
  }

  CheckpointValue Tensor(const std::string& name, const json& entry) {
    const Range range = RangeOf(name, entry);
    ranges_.push_back(range);
    const json type = entry.value("dtype", json());
    if (!type.is_string()) Damaged(file_.path(), name + " has no type");
    const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes),
                                     [&](const Type& t) { return type == t.name; });
    if (known == std::end(kTypes)) return {};
    std::vector<int64_t> shape;
    uint64_t bytes = c10::elementSize(known->dtype);
    const json sizes = entry.value("shape", json());
    if (!sizes.is_array() || sizes.size() > 64) Damaged(file_.path(), name + " has no shape");
    for (const json& size : sizes) {
      if (!size.is_number_unsigned() || size.get<uint64_t>() > INT64_MAX ||
          __builtin_mul_overflow(bytes, size.get<uint64_t>(), &bytes)) {
        Damaged(file_.path(), name + " has an impossible shape");
      }
      shape.push_back(size.get<int64_t>());
    }
    if (bytes != range.end - range.begin) {
      Damaged(file_.path(), name + " has other bytes than its shape says");
    }
    at::Tensor tensor = at::empty({static_cast<int64_t>(bytes)}, at::kByte);
    file_.CheckSize();
    if (bytes > 0) std::memcpy(tensor.data_ptr(), data_.data() + range.begin, bytes);
    // Any other byte than 0 and 1 in a bool is undefined behaviour.
    if (known->dtype == at::kBool) tensor.ne_(0);
    return tensor.view(known->dtype).view(shape);
  }

  Range RangeOf(const std::string& name, const json& entry) const {
    const json offsets = entry.is_object() ? entry.value("data_offsets", json()) : json();
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned()) {
      Damaged(file_.path(), name + " has no place in the file");
    }
    const Range range{offsets[0].get<uint64_t>(), offsets[1].get<uint64_t>()};
    if (range.begin > range.end || range.end > data_.size()) {
      Damaged(file_.path(), name + " leaves the file");
    }
    return range;
  }

  // The format allows neither holes nor overlaps.
  void CheckRanges() {
    std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) {
      return std::make_pair(a.begin, a.end) < std::make_pair(b.begin, b.end);
    });
    uint64_t at = 0;
    for (const Range& range : ranges_) {
      if (range.begin != at) Damaged(file_.path(), "its tensors overlap or leave holes");
      at = range.end;
    }
    if (at != data_.size()) Damaged(file_.path(), "it ends elsewhere than its tensors");
  }

  const MappedFile file_;
  std::string_view data_;
  json header_;
  std::vector<Range> ranges_;
};

const char* TypeName(const std::string& name, const at::Tensor& tensor) {
  for (const Type& type : kTypes) {
    if (type.dtype == tensor.scalar_type()) return type.name;
  }
  throw Error(
      "a safetensors file cannot hold the type " + std::string(c10::toString(tensor.scalar_type())),
      name, "convert the tensor to float32 first");
}

}  // namespace

bool LooksLikeSafetensors(std::string_view start, uint64_t file_size) {
  if (start.size() <= kLengthSize || start[kLengthSize] != '{') return false;
  const uint64_t header = HeaderSize(start);
  return header <= kLargestHeader && header <= file_size - kLengthSize;
}

CheckpointDict ReadSafetensors(const std::string& path) { return Reader(path).Read(); }

void WriteSafetensors(const std::string& path,
                      const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  for (const auto& [key, text] : metadata) header[kMetadata][key] = text;
  uint64_t at = 0;
  for (const auto& [name, tensor] : tensors) {
    const uint64_t end = at + static_cast<uint64_t>(tensor.numel()) * tensor.element_size();
    if (header.contains(name)) throw Error("two tensors of one name", name, "keep one of them");
    header[name] = {{"dtype", TypeName(name, tensor)},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the tensors begin at a multiple of eight
  const uint64_t size = text.size();
  AtomicFile file(path);
  file.Write(&size, sizeof(size));
  file.Write(text);
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = tensor.detach().cpu().contiguous();
    file.Write(bytes.data_ptr(), bytes.nbytes());
  }
  file.Commit();
}

}  // namespace kinefit
