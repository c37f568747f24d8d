#include "checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "files/error.h"
#include "files/publish.h"

namespace kinefit {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr char kTexts[] = "__metadata__";
constexpr char kClassNames[] = "class_names";  // a list, kept as the text of a JSON array

struct ElementType {
  const char* name;
  at::ScalarType dtype;
};
constexpr ElementType kTypes[] = {
    {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf},  {"BF16", at::kBFloat16},
    {"I64", at::kLong},   {"I32", at::kInt},   {"I16", at::kShort}, {"I8", at::kChar},
    {"U8", at::kByte},    {"BOOL", at::kBool},
};

[[noreturn]] void Damaged(const std::string& what, const std::string& path) {
  throw Error("damaged or hostile safetensors file: " + what, path, "use another checkpoint");
}

uint64_t HeaderSize(std::string_view bytes) {
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof size);
  return size;
}

// Where one tensor lies in the data.
struct Place {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  uint64_t begin;
  uint64_t end;
};

uint64_t Whole(const Json& value, const std::string& what, const std::string& path) {
  if (!value.is_number_unsigned()) Damaged(what + " is no whole number", path);
  return value.get<uint64_t>();
}

Place ReadPlace(const std::string& name, const Json& entry, const std::string& path) {
  const std::string shown = "tensor " + name.substr(0, 200);
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry["shape"].is_array() || entry["shape"].size() > 64 ||
      !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    Damaged(shown + " has no type, shape or place", path);
  }
  const std::string type = entry["dtype"].get<std::string>();
  const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const ElementType& one) { return type == one.name; });
  if (known == std::end(kTypes)) {
    throw Error(shown + " is of a type that is not read: " + type.substr(0, 40), path,
                "convert it to F32 in Python");
  }
  Place place{name, known->dtype, {}, 0, 0};
  int64_t size = static_cast<int64_t>(c10::elementSize(place.dtype));
  for (const Json& side : entry["shape"]) {
    const uint64_t length = Whole(side, "a side of " + shown, path);
    if (length > INT64_MAX || __builtin_mul_overflow(size, static_cast<int64_t>(length), &size)) {
      Damaged(shown + " is absurdly large", path);
    }
    place.shape.push_back(static_cast<int64_t>(length));
  }
  place.begin = Whole(entry["data_offsets"][0], "the place of " + shown, path);
  place.end = Whole(entry["data_offsets"][1], "the place of " + shown, path);
  if (place.end < place.begin || place.end - place.begin != static_cast<uint64_t>(size)) {
    Damaged(shown + " has two sizes", path);
  }
  return place;
}

// No byte may belong to two tensors or to none.
void CheckPlaces(const std::vector<Place>& places, uint64_t size, const std::string& path) {
  std::vector<const Place*> order;
  for (const Place& place : places) order.push_back(&place);
  std::sort(order.begin(), order.end(), [](const Place* a, const Place* b) {
    return std::make_pair(a->begin, a->end) < std::make_pair(b->begin, b->end);
  });
  uint64_t end = 0;
  for (const Place* place : order) {
    if (place->begin != end) Damaged("tensor " + place->name + " overlaps or leaves a hole", path);
    end = place->end;
  }
  if (end != size) {
    Damaged("its tensors take " + std::to_string(end) + " bytes, it has " + std::to_string(size),
            path);
  }
}

Json ParseHeader(std::string_view text, const std::string& path) {
  try {
    Json header = Json::parse(text.begin(), text.end());
    if (!header.is_object()) Damaged("its header is no object", path);
    return header;
  } catch (const Json::exception&) {
    Damaged("its header is not JSON", path);
  }
}

CheckpointValue ReadText(const std::string& key, const std::string& text) {
  if (key != kClassNames) return text;
  const Json names = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!names.is_array()) return text;
  CheckpointList list;
  for (const Json& name : names) {
    if (!name.is_string()) return text;
    list.emplace_back(name.get<std::string>());
  }
  return list;
}

}  // namespace

bool LooksLikeSafetensors(std::string_view bytes) {
  return bytes.size() > 9 && bytes[8] == '{' && HeaderSize(bytes) <= kMaxHeader;
}

CheckpointDict ParseSafetensors(std::string_view bytes, const std::string& path) {
  if (!LooksLikeSafetensors(bytes)) Damaged("it does not begin as one", path);
  const uint64_t header_size = HeaderSize(bytes);
  bytes.remove_prefix(sizeof header_size);
  if (header_size > bytes.size()) Damaged("it ends within its header", path);
  const Json header = ParseHeader(bytes.substr(0, header_size), path);
  bytes.remove_prefix(header_size);

  CheckpointDict root;
  std::vector<Place> places;
  for (const auto& [name, entry] : header.items()) {
    if (name != kTexts) {
      places.push_back(ReadPlace(name, entry, path));
      continue;
    }
    if (!entry.is_object()) Damaged("its texts are no object", path);
    for (const auto& [key, text] : entry.items()) {
      if (!text.is_string()) Damaged("its texts are no texts", path);
      if (key != "state_dict") root.emplace_back(key, ReadText(key, text.get<std::string>()));
    }
  }
  CheckPlaces(places, bytes.size(), path);
  CheckpointDict tensors;
  for (const Place& place : places) {
    at::Tensor tensor = at::empty(place.shape, at::TensorOptions(place.dtype));
    const std::string_view data = bytes.substr(place.begin, place.end - place.begin);
    if (!data.empty()) std::memcpy(tensor.data_ptr(), data.data(), data.size());
    // Any other byte than 0 and 1 in a bool is undefined behaviour.
    if (place.dtype == at::kBool) tensor.view(at::kByte).ne_(0);
    tensors.emplace_back(place.name, tensor);
  }
  root.emplace_back("state_dict", std::move(tensors));
  return root;
}

void WriteSafetensors(const std::string& path, const NamedTensorList& tensors,
                      const std::vector<std::pair<std::string, std::string>>& texts) {
  // Large elements first, so that each lies at a multiple of its size.
  NamedTensorList order = tensors;
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.second.element_size() > b.second.element_size();
  });
  Json header = Json::object();
  header[kTexts]["format"] = "pt";
  for (const auto& [key, text] : texts) header[kTexts][key] = text;
  uint64_t at = 0;
  for (const auto& [name, tensor] : order) {
    const auto* type =
        std::find_if(std::begin(kTypes), std::end(kTypes),
                     [&](const ElementType& one) { return tensor.scalar_type() == one.dtype; });
    if (type == std::end(kTypes) || name == kTexts) {
      throw Error("tensor " + name + " cannot be written as safetensors", path);
    }
    const uint64_t end = at + static_cast<uint64_t>(tensor.numel() * tensor.element_size());
    header[name] = {{"dtype", type->name},
                    {"shape", std::vector<int64_t>(tensor.sizes().begin(), tensor.sizes().end())},
                    {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t size = text.size();
  AtomicFile file(path);
  file.Write(&size, sizeof size);
  file.Write(text);
  for (const auto& [name, tensor] : order) {
    const at::Tensor plain = tensor.detach().cpu().contiguous();
    file.Write(plain.data_ptr(), plain.nbytes());
  }
  file.Commit();
}

}  // namespace kinefit
