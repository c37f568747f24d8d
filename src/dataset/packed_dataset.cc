#include "dataset/packed_dataset.h"

#include <algorithm>
#include <numeric>

#include "config/nearest_key.h"
#include "dataset/annotation_reader.h"
#include "dataset/packed_store.h"
#include "files/error.h"

namespace kinefit {
namespace {

std::string Quoted(const std::string& text) { return "'" + text + "'"; }

std::string Text(bool value) { return value ? "true" : "false"; }
std::string Text(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

// Pictures that were cut out with other settings would show something else than the videos.
void CheckCompact(const DataConfig& data, const PackSettings& settings, const std::string& path) {
  const auto check = [&](const char* key, const auto& asked, const auto& packed) {
    if (asked == packed) return;
    throw Error(std::string("the pictures were packed with ") + key + " = " + Text(packed) +
                    ", the configuration says " + Text(asked),
                path,
                std::string("set ") + key + " = " + Text(packed) +
                    ", or pack the set again with this configuration");
  };
  check("data.compact", data.compact, settings.compact);
  if (!data.compact) return;
  check("data.compact_padding", data.compact_padding, settings.compact_padding);
  check("data.compact_threshold", data.compact_threshold, settings.compact_threshold);
  check("data.compact_hw_ratio", data.compact_hw_ratio, settings.compact_hw_ratio);
  check("data.compact_allow_imgpad", data.compact_allow_imgpad, settings.compact_allow_imgpad);
}

std::vector<std::string> ClassNames(const Config& config, const PackedStore& store) {
  const std::vector<std::string>& packed = store.set().class_names;
  if (!config.data.classes.empty() || packed.empty()) return ReadClassNames(config);
  if (static_cast<int64_t>(packed.size()) != config.model.num_classes) {
    throw Error("the packed store has " + std::to_string(packed.size()) +
                    " classes, but model.num_classes is " +
                    std::to_string(config.model.num_classes),
                store.path(), "set model.num_classes = " + std::to_string(packed.size()));
  }
  return packed;
}

std::vector<uint32_t> EntriesOf(const PackedStore& store, const std::string& split) {
  if (split.empty()) {
    std::vector<uint32_t> all(store.set().entries.size());
    std::iota(all.begin(), all.end(), 0U);
    return all;
  }
  std::vector<std::string> known;
  for (const PackedSplit& packed : store.set().splits) {
    if (packed.name == split) return packed.entries;
    known.push_back(packed.name);
  }
  if (known.empty()) {
    throw Error("the packed store has no splits, but " + Quoted(split) + " is asked for",
                store.path(),
                "set data.train_split and data.val_split to \"\" to use all annotations");
  }
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
  const std::vector<std::string> near = NearestKeys(split, known);
  throw Error("there is no split " + Quoted(split), store.path(),
              (near.empty() ? "" : "did you mean " + Quoted(near.front()) + "? ") +
                  ("known splits: " + list));
}

Sample ReadSample(const std::shared_ptr<const PackedStore>& store, size_t number,
                  const Config& config) {
  const PackedEntry& entry = store->set().entries[number];
  const std::string where = store->path() + ": clip " + Quoted(entry.id);
  CheckJoints(config, entry.joints, where);
  Sample sample;
  sample.id = entry.id;
  sample.label = LabelFor(entry.label, config, where,
                          "correct model.num_classes, or the label and pack again");
  sample.width = entry.width;
  sample.height = entry.height;
  sample.total_frames = entry.frames;
  sample.pose = store->ReadPose(number);
  sample.store = store;
  sample.store_entry = number;
  return sample;
}

}  // namespace

Dataset LoadPackedDataset(const Config& config, const std::string& split) {
  const std::shared_ptr<const PackedStore> store = PackedStore::Open(config.data.annotations);
  const PackedSet& set = store->set();
  if (config.model.has_rgb()) {
    if (!set.settings.images) {
      throw Error("the packed store holds poses alone, but the network has an RGB stream",
                  store->path(), "pack the set without --poses-only, or use model.type = \"pose\"");
    }
    CheckCompact(config.data, set.settings, store->path());
  }
  Dataset dataset;
  dataset.class_names = ClassNames(config, *store);
  for (const uint32_t number : EntriesOf(*store, split)) {
    const PackedEntry& entry = set.entries[number];
    // A clip whose video could not be read still has its joints.
    const std::string& reason =
        entry.rejected.empty() && config.model.has_rgb() ? store->failure(number) : entry.rejected;
    if (!reason.empty()) {
      dataset.rejected.push_back({entry.id, reason});
      continue;
    }
    try {
      dataset.samples.push_back(ReadSample(store, number, config));
    } catch (const Unusable& unusable) {
      dataset.rejected.push_back({entry.id, unusable.reason});
    }
  }
  if (dataset.samples.empty()) {
    throw Error("none of the " + std::to_string(dataset.rejected.size()) +
                    " annotations can be used" +
                    (dataset.rejected.empty()
                         ? ""
                         : "; " + dataset.rejected[0].id + ": " + dataset.rejected[0].reason),
                store->path() + (split.empty() ? "" : ": split " + Quoted(split)),
                "choose another split, or repair the set and pack it again");
  }
  return dataset;
}

}  // namespace kinefit
