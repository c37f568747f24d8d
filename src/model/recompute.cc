#include "model/recompute.h"

#include <algorithm>
#include <sstream>

#include "files/error.h"

namespace kinefit {
namespace {

Keep ParseKeep(const std::string& text, const std::string& where) {
  for (const Keep keep : kAllKeeps) {
    if (KeepText(keep) == text) return keep;
  }
  throw Error(
      "There is no way of recomputing called \"" + text + "\"", where,
      "use none, lean, light, block, stage or full; for one part of the network behind that "
      "for example \"light rgb.layer1=block\"");
}

}  // namespace

int SegmentOfLayer(const std::string& layer, const std::vector<std::string>& segments) {
  std::istringstream parts(layer);
  std::string part;
  std::getline(parts, part, '.');
  if (part != "backbone" || !std::getline(parts, part, '.')) return -1;
  std::string stream = segments.front().substr(0, segments.front().find('.'));
  if (part == "rgb_path" || part == "pose_path") {
    stream = part.substr(0, part.find('_'));
    std::getline(parts, part, '.');
  }
  const std::string name = stream + "." + (part == "conv1" || part == "maxpool" ? "stem" : part);
  const auto found = std::find(segments.begin(), segments.end(), name);
  return found == segments.end() ? -1 : static_cast<int>(found - segments.begin());
}

std::string KeepText(Keep keep) {
  switch (keep) {
    case Keep::kConvolutions:
      return "lean";
    case Keep::kSpatial:
      return "light";
    case Keep::kBlocks:
      return "block";
    case Keep::kStage:
      return "stage";
    case Keep::kStageBlocks:
      return "full";
  }
  return "";
}

Recompute ParseRecompute(const std::string& text, const std::vector<std::string>& segments,
                         const std::string& where) {
  Recompute recompute;
  std::istringstream words(text);
  std::string word;
  if (!(words >> word)) ParseKeep("", where);
  if (word == "none") {
    recompute.plain = true;
    if (words >> word) ParseKeep("none " + word, where);
    return recompute;
  }
  const Keep general = ParseKeep(word, where);
  for (const std::string& segment : segments) recompute.segments[segment] = general;
  while (words >> word) {
    const size_t equals = word.find('=');
    const std::string segment = word.substr(0, equals);
    if (equals == std::string::npos ||
        std::find(segments.begin(), segments.end(), segment) == segments.end()) {
      std::string known;
      for (const std::string& name : segments) known += (known.empty() ? "" : ", ") + name;
      throw Error("\"" + word + "\" names no part of the network", where,
                  "write PART=WAY with one of: " + known);
    }
    recompute.segments[segment] = ParseKeep(word.substr(equals + 1), where);
  }
  return recompute;
}

std::string RecomputeText(const Recompute& recompute, const std::vector<std::string>& segments) {
  if (recompute.plain) return "none";
  std::string best;
  for (const Keep general : kAllKeeps) {
    std::string text = KeepText(general);
    for (const std::string& segment : segments) {
      const Keep keep = recompute.Of(segment);
      if (keep != general) text += " " + segment + "=" + KeepText(keep);
    }
    if (best.empty() || text.size() < best.size()) best = text;
  }
  return best;
}

}  // namespace kinefit
