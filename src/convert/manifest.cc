#include "convert/manifest.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "config/nearest_key.h"
#include "convert/json_text.h"
#include "files/error.h"
#include "files/text.h"

namespace kinefit {
namespace {

using Json = nlohmann::json;

constexpr size_t kMostEntries = 10'000'000;
constexpr double kLongest = 1e9;  // seconds or frames

const std::vector<std::string>& KnownKeys() {
  static const std::vector<std::string> keys = {"path",  "label", "pose",        "split",
                                                "start", "end",   "start_frame", "end_frame"};
  return keys;
}

void CheckKey(const std::string& key, const std::string& where) {
  const std::vector<std::string>& known = KnownKeys();
  if (std::find(known.begin(), known.end(), key) != known.end()) return;
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
  const std::vector<std::string> near = NearestKeys(key, known);
  throw Error("a manifest has no \"" + key.substr(0, 60) + "\"", where,
              (near.empty() ? "" : "did you mean \"" + near.front() + "\"? ") + ("known: " + list));
}

double ParseNumber(const std::string& text, const std::string& key, const std::string& where) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() ||
      !(value >= 0 && value <= kLongest)) {
    throw Error(key + " is \"" + text.substr(0, 60) + "\"", where, "write a number from 0 on");
  }
  return value;
}

void SetField(const std::string& key, const std::string& text, ManifestEntry* entry) {
  if (key == "path") entry->path = text;
  if (key == "label") entry->label = text;
  if (key == "pose") entry->pose = text;
  if (key == "split") entry->split = text;
  if (text.empty()) return;
  if (key == "start") entry->start = ParseNumber(text, key, entry->where);
  if (key == "end") entry->end = ParseNumber(text, key, entry->where);
  if (key != "start_frame" && key != "end_frame") return;
  const double frame = ParseNumber(text, key, entry->where);
  if (frame != std::floor(frame)) {
    throw Error(key + " is \"" + text.substr(0, 60) + "\"", entry->where,
                "frames are whole numbers; start and end are seconds");
  }
  (key == "start_frame" ? entry->start_frame : entry->end_frame) = static_cast<int64_t>(frame);
}

void CheckEntry(const ManifestEntry& entry) {
  const auto refuse = [&](const std::string& problem, const std::string& remedy) {
    throw Error(problem, entry.where, remedy);
  };
  if (entry.path.empty()) refuse("the clip has no path", "name its video");
  if (entry.label.empty()) refuse("the clip has no label", "name its class");
  for (const std::string* text : {&entry.path, &entry.label, &entry.pose, &entry.split}) {
    if (text->find('\0') != std::string::npos || text->find('\n') != std::string::npos) {
      refuse("a text has a line end or a zero byte in it", "write it in one line");
    }
  }
  const bool seconds = entry.start || entry.end;
  const bool frames = entry.start_frame || entry.end_frame;
  if (seconds && frames) {
    refuse("the segment is given in seconds and in frames", "use start and end, or the others");
  }
  if ((entry.start && entry.end && *entry.start >= *entry.end) ||
      (entry.start_frame && entry.end_frame && *entry.start_frame >= *entry.end_frame)) {
    refuse("the segment ends before it begins", "the end is the first frame after the segment");
  }
}

void CheckAll(const std::vector<ManifestEntry>& entries, const std::string& origin) {
  if (entries.empty()) throw Error("the manifest lists no clips", origin, "list at least one");
  if (entries.size() > kMostEntries) throw Error("the manifest has too many clips", origin);
  for (const ManifestEntry& entry : entries) CheckEntry(entry);
}

class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& origin) : text_(text), origin_(origin) {
    if (text_.substr(0, 3) == "\xef\xbb\xbf") at_ = 3;  // what spreadsheets begin UTF-8 with
  }

  // The next record that is not an empty line; false at the end.
  bool Next(std::vector<std::string>* fields) {
    do {
      if (at_ >= text_.size()) return false;
      first_line_ = line_;
      ReadRecord(fields);
    } while (fields->size() == 1 && (*fields)[0].empty());
    return true;
  }

  std::string where() const { return origin_ + ":" + std::to_string(first_line_); }

 private:
  void ReadRecord(std::vector<std::string>* fields) {
    fields->assign(1, "");
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"' && fields->back().empty()) {
        ReadQuoted(&fields->back());
      } else if (c == ',') {
        fields->emplace_back();
        if (fields->size() > 1000) throw Error("a line has too many fields", where());
      } else if (c == '\n') {
        ++line_;
        return;
      } else if (c != '\r' || (at_ < text_.size() && text_[at_] != '\n')) {
        fields->back().push_back(c);
      }
    }
  }

  void ReadQuoted(std::string* field) {
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '\n') ++line_;
      if (c != '"') {
        field->push_back(c);
      } else if (at_ < text_.size() && text_[at_] == '"') {
        field->push_back(text_[at_++]);
      } else {
        return;
      }
    }
    throw Error("a quoted field does not end", where(), "close it with another \"");
  }

  std::string_view text_;
  const std::string& origin_;
  size_t at_ = 0;
  int64_t line_ = 1;
  int64_t first_line_ = 1;
};

std::string TextOf(const Json& value, const std::string& key, const std::string& where) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  throw Error(key + " is neither text nor a number", where, "docs/data.md shows a manifest");
}

}  // namespace

std::vector<ManifestEntry> ParseManifestCsv(std::string_view text, const std::string& origin) {
  text = WithoutByteOrderMark(text, origin);
  CsvReader reader(text, origin);
  std::vector<std::string> columns;
  if (!reader.Next(&columns))
    throw Error("the manifest is empty", origin, "list at least one clip");
  for (const std::string& column : columns) CheckKey(column, reader.where());
  for (size_t i = 0; i < columns.size(); ++i) {
    if (std::count(columns.begin(), columns.end(), columns[i]) > 1) {
      throw Error("the column " + columns[i] + " is there twice", reader.where(), "keep one");
    }
  }
  std::vector<ManifestEntry> entries;
  std::vector<std::string> fields;
  while (reader.Next(&fields)) {
    ManifestEntry entry;
    entry.where = reader.where();
    if (fields.size() != columns.size()) {
      throw Error("the line has " + std::to_string(fields.size()) + " fields, the first line " +
                      std::to_string(columns.size()),
                  entry.where, "put fields with a comma into double quotes");
    }
    for (size_t i = 0; i < fields.size(); ++i) SetField(columns[i], fields[i], &entry);
    entries.push_back(std::move(entry));
  }
  CheckAll(entries, origin);
  return entries;
}

std::vector<ManifestEntry> ParseManifestJson(std::string_view text, const std::string& origin) {
  const Json root = ParseJson(text, origin);
  const Json& list = root.is_object() && root.contains("clips") ? root["clips"] : root;
  if (!list.is_array()) {
    throw Error("a manifest is a list of clips", origin, "docs/data.md shows one");
  }
  std::vector<ManifestEntry> entries;
  for (const Json& object : list) {
    ManifestEntry entry;
    entry.where = origin + ": clip " + std::to_string(entries.size());
    if (!object.is_object()) throw Error("a clip is not an object", entry.where);
    for (const auto& [key, value] : object.items()) {
      CheckKey(key, entry.where);
      SetField(key, TextOf(value, key, entry.where), &entry);
    }
    entries.push_back(std::move(entry));
  }
  CheckAll(entries, origin);
  return entries;
}

}  // namespace kinefit
