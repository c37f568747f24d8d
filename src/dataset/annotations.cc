#include "dataset/annotations.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <set>
#include <unordered_map>
#include <utility>

#include "config/nearest_key.h"
#include "dataset/annotation_reader.h"
#include "dataset/packed_dataset.h"
#include "dataset/packed_store.h"
#include "files/error.h"
#include "files/npy.h"
#include "files/pickle.h"
#include "files/text.h"

namespace kinefit {
namespace {

constexpr int64_t kLargestImageSide = 65536;
constexpr int64_t kMostFrames = int64_t{1} << 24;
constexpr int64_t kMostPersons = 10;  // of a frame, in flat annotations (mmaction2 max_person)

std::string Quoted(const std::string& text) { return "'" + text + "'"; }

}  // namespace

std::vector<std::string> ReadClassNames(const Config& config) {
  std::vector<std::string> names;
  const int64_t classes = config.model.num_classes;
  const std::string& path = config.data.classes;
  if (path.empty()) {
    for (int64_t i = 0; i < classes; ++i) names.push_back(std::to_string(i));
    return names;
  }
  std::ifstream file(path);
  if (!file)
    throw Error("class names cannot be read", path, "correct data.classes, or leave it out");
  for (std::string line; std::getline(file, line);) {
    if (names.empty()) line = WithoutByteOrderMark(line, path);
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  if (static_cast<int64_t>(names.size()) != classes) {
    throw Error("there are " + std::to_string(names.size()) +
                    " class names, but model.num_classes is " + std::to_string(classes),
                path, "one name per line, as many as classes");
  }
  return names;
}

std::vector<std::string> ReadSplit(const PickleValue& root, const std::string& split,
                                   const std::string& path) {
  const PickleValue splits = root.Find("split");
  if (!splits.is(PickleKind::kDict)) {
    throw Error("the annotations have no splits, but " + Quoted(split) + " is asked for", path,
                "set data.train_split and data.val_split to \"\" to use all annotations");
  }
  std::vector<std::string> known;
  PickleValue found;
  bool exists = false;
  for (size_t i = 0; i < splits.size(); ++i) {
    known.emplace_back(splits.key(i).AsString(path + ": name of a split"));
    if (known.back() != split) continue;
    found = splits.value(i);
    exists = true;
  }
  if (!exists) {
    std::string list;
    for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
    const std::vector<std::string> near = NearestKeys(split, known);
    throw Error("there is no split " + Quoted(split), path,
                (near.empty() ? "" : "did you mean " + Quoted(near.front()) + "? ") +
                    ("known splits: " + list));
  }
  const std::string where = path + ": split " + Quoted(split);
  std::vector<std::string> ids = IdsOfSplit(found, FindAnnotations(root, path), where);
  if (ids.empty()) throw Error("the split is empty", where, "choose another split");
  return ids;
}

std::vector<std::string> IdsOfSplit(const PickleValue& split, const PickleValue& annotations,
                                    const std::string& where) {
  std::vector<std::string> ids;
  const auto add = [&](int64_t position) {
    if (position < 0 || static_cast<uint64_t>(position) >= annotations.size()) {
      throw Error("the split names annotation " + std::to_string(position) + " of " +
                      std::to_string(annotations.size()) + " (counted from 0)",
                  where, "correct the split, or write the annotations' ids (frame_dir)");
    }
    ids.push_back(ReadId(annotations[static_cast<size_t>(position)],
                         where + ": annotation " + std::to_string(position)));
  };
  if (split.is(PickleKind::kArray)) {
    for (const int64_t position : split.AsArray(where).ToInts(where)) add(position);
    return ids;
  }
  if (!split.is_sequence())
    throw Error("a split must be a list of ids", where,
                "write it as a list of the annotations' frame_dir");
  for (size_t i = 0; i < split.size(); ++i) {
    if (split[i].is(PickleKind::kInt)) {
      add(split[i].AsInt(where));
    } else {
      ids.emplace_back(split[i].AsString(where));
    }
  }
  return ids;
}

bool LabelsFromOne(const PickleValue& annotations, int64_t classes) {
  constexpr int64_t kMostClasses = 100000;
  std::set<int64_t> labels;
  for (size_t i = 0; i < annotations.size(); ++i) {
    const PickleValue label = annotations[i].Find("label");
    if (!label.is(PickleKind::kInt)) continue;
    const int64_t value = label.AsInt("label");
    if (value < 1 || value > kMostClasses || (classes >= 0 && value > classes)) return false;
    labels.insert(value);
  }
  if (labels.empty() || *labels.begin() != 1) return false;
  // One label too large is a mistake of its own: nearly every class must occur.
  constexpr double kMostOfThem = 0.9;
  if (classes >= 0) {
    return *labels.rbegin() == classes &&
           static_cast<double>(labels.size()) >= kMostOfThem * static_cast<double>(classes);
  }
  return *labels.rbegin() == static_cast<int64_t>(labels.size()) && labels.size() > 1;
}

namespace {

// The video of an annotation, refused if it could lie outside the folder of videos.
std::string VideoPath(const DataConfig& data, const std::string& name, const std::string& suffix,
                      const std::string& where) {
  const std::filesystem::path relative(name);
  bool safe = !name.empty() && !relative.is_absolute() && name.find('\0') == std::string::npos;
  for (const std::filesystem::path& part : relative) safe = safe && part != "..";
  if (!safe) {
    throw Error("the name of the video leads out of the folder of videos", where,
                "use names relative to data.videos, without '..'");
  }
  return (std::filesystem::path(data.videos) / relative).string() + suffix;
}

// The value of a member that must be there.
PickleValue Required(const PickleValue& annotation, const char* key, const std::string& where) {
  bool found = false;
  const PickleValue value = annotation.Find(key, &found);
  if (!found) {
    throw Error("the annotation has no " + Quoted(key), where,
                "docs/formats/annotation.md lists what an annotation needs");
  }
  return value;
}

void ReadImageShape(const PickleValue& annotation, const std::string& where, Sample* sample) {
  const PickleValue shape = Required(annotation, "img_shape", where);
  const std::string what = where + ".img_shape";
  std::vector<int64_t> sides;
  if (shape.is(PickleKind::kArray)) {
    sides = shape.AsArray(what).ToInts(what);
  } else {
    for (size_t i = 0; i < shape.size(); ++i) sides.push_back(shape[i].AsInt(what));
  }
  if (sides.size() != 2)
    throw Error("img_shape must be (height, width)", where, "write two positive integers");
  for (const int64_t side : sides) {
    if (side < 1 || side > kLargestImageSide) {
      throw Unusable{"img_shape (" + std::to_string(sides[0]) + ", " + std::to_string(sides[1]) +
                     ") is not the size of an image"};
    }
  }
  sample->height = sides[0];
  sample->width = sides[1];
}

// Joints as the file has them: coordinates and scores apart, still in the file's arrangement.
struct RawJoints {
  std::vector<int64_t> shape;  // without the coordinates: [M, T, V], or flat [N, V]
  std::vector<float> xy;
  std::vector<float> score;
};

// Joints that cannot be where they say become joints that were not seen.
void BlankJoints(RawJoints* raw, BlankedJoints* blanked) {
  for (size_t i = 0; i < raw->score.size(); ++i) {
    float* xy = &raw->xy[2 * i];
    const float score = raw->score[i];
    const bool nan = std::isnan(xy[0]) || std::isnan(xy[1]);
    const bool infinite = !nan && (std::isinf(xy[0]) || std::isinf(xy[1]));
    const bool far =
        !nan && !infinite && std::max(std::abs(xy[0]), std::abs(xy[1])) > kFarthestJoint;
    blanked->nan += nan ? 1 : 0;
    blanked->infinite += infinite ? 1 : 0;
    blanked->far += far ? 1 : 0;
    blanked->scores += std::isfinite(score) ? 0 : 1;
    if (nan || infinite || far) xy[0] = xy[1] = 0;
    if (nan || infinite || far || !std::isfinite(score)) raw->score[i] = 0;
  }
}

void CheckFinite(const RawJoints& raw) {
  for (const float value : raw.xy) {
    if (!std::isfinite(value)) throw Unusable{"a joint has a coordinate that is NaN or infinite"};
    if (std::abs(value) > kFarthestJoint) {
      throw Unusable{"a joint lies more than a million pixels away"};
    }
  }
  for (const float value : raw.score) {
    if (!std::isfinite(value)) throw Unusable{"a joint has a score that is NaN or infinite"};
    if (value < kLowestScore || value > kHighestScore) {
      char text[32];
      std::snprintf(text, sizeof text, "%.6g", static_cast<double>(value));
      throw Unusable{"a joint has the score " + std::string(text) +
                     "; scores run from 0 to 1 (percentages, or joints in 3D?)"};
    }
  }
}

// `dims`: dimensions of the keypoint array, 4 or (flat) 3.
RawJoints ReadJoints(const PickleValue& annotation, const std::string& where, size_t dims,
                     BlankedJoints* blanked) {
  const NdArrayView& keypoint =
      Required(annotation, "keypoint", where).AsArray(where + ".keypoint");
  const char* expected =
      dims == 4 ? "[persons, frames, joints, 2 or 3]" : "[poses, joints, 2 or 3]";
  if (keypoint.shape.size() != dims || (keypoint.shape.back() != 2 && keypoint.shape.back() != 3)) {
    throw Unusable{"keypoint has shape " + keypoint.ShapeText() + ", not " + expected};
  }
  if (keypoint.numel() == 0) throw Unusable{"keypoint is empty: " + keypoint.ShapeText()};
  const size_t width = static_cast<size_t>(keypoint.shape.back());
  const std::vector<float> values = keypoint.ToFloats();
  const size_t joints = values.size() / width;
  RawJoints raw;
  raw.shape.assign(keypoint.shape.begin(), keypoint.shape.end() - 1);
  raw.xy.resize(2 * joints);
  raw.score.assign(joints, 1.0F);
  for (size_t i = 0; i < joints; ++i) {
    raw.xy[2 * i] = values[width * i];
    raw.xy[2 * i + 1] = values[width * i + 1];
    if (width == 3) raw.score[i] = values[width * i + 2];
  }

  bool scored = false;
  const PickleValue score = annotation.Find("keypoint_score", &scored);
  if (scored && !score.is_none()) {
    const NdArrayView& scores = score.AsArray(where + ".keypoint_score");
    if (scores.shape != raw.shape) {
      throw Unusable{"keypoint_score has shape " + scores.ShapeText() + ", keypoint " +
                     keypoint.ShapeText()};
    }
    raw.score = scores.ToFloats();
  } else if (width == 3 && std::any_of(raw.score.begin(), raw.score.end(),
                                       [](float value) { return value < 0; })) {
    throw Unusable{
        "the third value of a joint is negative, so no score; joints in 3D are not "
        "supported"};
  }
  if (blanked != nullptr) BlankJoints(&raw, blanked);
  CheckFinite(raw);
  return raw;
}

// Which dense person and frame each flat pose belongs to.
struct FlatLayout {
  std::vector<int64_t> frame;
  std::vector<int64_t> person;
  int64_t frames = 0;
  int64_t persons = 0;
};

// `squeeze`: leave out the frames without any pose, as mmaction2's DecompressPose does. That moves
// joints against the video, so it is for networks that see joints only.
FlatLayout LayOut(const std::vector<int64_t>& frame_inds, int64_t total_frames, bool squeeze) {
  FlatLayout layout;
  int64_t previous = std::numeric_limits<int64_t>::min();
  int64_t frame = -1;
  int64_t person = 0;
  for (const int64_t number : frame_inds) {
    if (number < previous)
      throw Unusable{"frame_inds go back from frame " + std::to_string(previous) + " to " +
                     std::to_string(number)};
    if (number < 0 || number >= total_frames) {
      throw Unusable{"frame_inds name frame " + std::to_string(number) + ", total_frames is " +
                     std::to_string(total_frames)};
    }
    const bool next_frame = number != previous;
    frame = squeeze ? frame + (next_frame ? 1 : 0) : number;
    person = next_frame ? 0 : person + 1;
    previous = number;
    layout.frame.push_back(frame);
    layout.person.push_back(person);
    layout.persons = std::max(layout.persons, person + 1);
  }
  layout.frames = squeeze ? frame + 1 : total_frames;
  return layout;
}

// Keeps the persons with the highest scores of each frame that has too many.
void KeepBestPersons(const RawJoints& raw, FlatLayout* layout) {
  if (layout->persons <= kMostPersons) return;
  const size_t joints = static_cast<size_t>(raw.shape[1]);
  for (size_t begin = 0, end = 0; begin < layout->frame.size(); begin = end) {
    while (end < layout->frame.size() && layout->frame[end] == layout->frame[begin]) ++end;
    std::vector<float> total(end - begin);
    std::vector<size_t> order(end - begin);
    std::iota(order.begin(), order.end(), size_t{0});
    for (size_t i = 0; i < total.size(); ++i) {
      const auto first = raw.score.begin() + static_cast<int64_t>((begin + i) * joints);
      total[i] = std::accumulate(first, first + static_cast<int64_t>(joints), 0.0F);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return total[a] > total[b]; });
    for (size_t rank = 0; rank < order.size(); ++rank) {
      layout->person[begin + order[rank]] = static_cast<int64_t>(rank);
    }
  }
  layout->persons = kMostPersons;
}

// One pose per line [N, V] and its frame's number, into tracks [M, T, V]: the i-th person is the
// i-th pose of its frame (mmaction2 DecompressPose).
void ReadFlatPose(const PickleValue& annotation, const std::string& where, bool squeeze,
                  BlankedJoints* blanked, Sample* sample) {
  const RawJoints raw = ReadJoints(annotation, where, 3, blanked);
  const std::string what = where + ".frame_inds";
  const std::vector<int64_t> frame_inds =
      Required(annotation, "frame_inds", where).AsArray(what).ToInts(what);
  if (static_cast<int64_t>(frame_inds.size()) != raw.shape[0]) {
    throw Unusable{"there are " + std::to_string(raw.shape[0]) + " poses, but " +
                   std::to_string(frame_inds.size()) + " frame_inds"};
  }
  FlatLayout layout = LayOut(frame_inds, sample->total_frames, squeeze);
  KeepBestPersons(raw, &layout);

  if (layout.frames < sample->total_frames) {
    sample->frame_numbers = frame_inds;
    auto& numbers = sample->frame_numbers;
    numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  }
  Pose& pose = sample->pose;
  pose.persons = layout.persons;
  pose.frames = sample->total_frames = layout.frames;
  pose.joints = raw.shape[1];
  const int64_t joints = pose.joints;
  pose.xy.assign(static_cast<size_t>(pose.persons * pose.frames * joints * 2), 0.0F);
  pose.score.assign(static_cast<size_t>(pose.persons * pose.frames * joints), 0.0F);
  for (size_t i = 0; i < frame_inds.size(); ++i) {
    if (layout.person[i] >= pose.persons) continue;
    const int64_t from = static_cast<int64_t>(i) * joints;
    const int64_t to = (layout.person[i] * pose.frames + layout.frame[i]) * joints;
    std::copy_n(raw.xy.begin() + 2 * from, 2 * joints, pose.xy.begin() + 2 * to);
    std::copy_n(raw.score.begin() + from, joints, pose.score.begin() + to);
  }
}

void ReadTracks(const PickleValue& annotation, const std::string& where, BlankedJoints* blanked,
                Sample* sample) {
  RawJoints raw = ReadJoints(annotation, where, 4, blanked);
  if (raw.shape[1] != sample->total_frames) {
    throw Unusable{"keypoint has " + std::to_string(raw.shape[1]) +
                   " frames, but total_frames is " + std::to_string(sample->total_frames)};
  }
  sample->pose = {raw.shape[0], raw.shape[1], raw.shape[2], std::move(raw.xy),
                  std::move(raw.score)};
}

}  // namespace

void CheckJoints(const Config& config, int64_t joints, const std::string& where) {
  if (!config.model.has_pose()) return;
  const DataConfig& data = config.data;
  const int64_t limbs = data.heatmap.with_limbs ? static_cast<int64_t>(data.limbs.size()) : 0;
  const int64_t channels = (data.heatmap.with_joints ? joints : 0) + limbs;
  if (channels != config.model.pose.in_channels) {
    throw Error("the annotation has " + std::to_string(joints) + " joints, which makes " +
                    std::to_string(channels) + " heatmap channels, but model.pose.in_channels is " +
                    std::to_string(config.model.pose.in_channels),
                where,
                "set model.pose.in_channels to " + std::to_string(channels) +
                    ", or use annotations with the network's joints");
  }
  const auto check = [&](const std::vector<int64_t>& list, const char* key) {
    for (const int64_t joint : list) {
      if (joint >= 0 && joint < joints) continue;
      throw Error("joint " + std::to_string(joint) + " does not exist: the annotations have " +
                      std::to_string(joints) + " joints, counted from 0",
                  key, "correct data.left_joints, data.right_joints and data.limbs");
    }
  };
  check(data.left_joints, "data.left_joints");
  check(data.right_joints, "data.right_joints");
  if (limbs == 0) return;
  for (const std::vector<int64_t>& limb : data.limbs) check(limb, "data.limbs");
}

namespace {

// The video of a clip and where in it the clip begins.
void ReadVideo(const PickleValue& annotation, const Config& config, const std::string& where,
               Sample* sample) {
  bool segment = false;
  const PickleValue first = annotation.Find("first_frame", &segment);
  if (segment) sample->first_frame = first.AsInt(where + ".first_frame");
  if (sample->first_frame < 0 || sample->first_frame > kMostFrames) {
    throw Unusable{"first_frame is " + std::to_string(sample->first_frame)};
  }
  if (!config.model.has_rgb()) return;
  bool named = false;
  const PickleValue video = annotation.Find("video", &named);
  if (named) {
    const std::string_view name = video.AsString(where + ".video");
    sample->video = VideoPath(config.data, std::string(name), "", where);
    return;
  }
  const std::string suffix = annotation.Has("filename") ? "" : config.data.video_suffix;
  sample->video = VideoPath(config.data, sample->id, suffix, where);
}

}  // namespace

Sample ReadSample(const PickleValue& annotation, const std::string& id, const Config& config,
                  const std::string& where, BlankedJoints* blanked) {
  Sample sample;
  sample.id = id;
  ReadVideo(annotation, config, where, &sample);
  sample.label = Required(annotation, "label", where).AsInt(where + ".label");
  if (sample.label < 0 || sample.label >= config.model.num_classes) {
    throw Error("label " + std::to_string(sample.label) + " is outside the " +
                    std::to_string(config.model.num_classes) + " classes (0 to " +
                    std::to_string(config.model.num_classes - 1) + ")",
                where, "correct the label or model.num_classes");
  }
  sample.total_frames = Required(annotation, "total_frames", where).AsInt(where + ".total_frames");
  ReadImageShape(annotation, where, &sample);
  if (sample.total_frames < 1 || sample.total_frames > kMostFrames) {
    throw Unusable{"total_frames is " + std::to_string(sample.total_frames)};
  }
  if (annotation.Has("frame_inds")) {
    ReadFlatPose(annotation, where, !config.model.has_rgb(), blanked, &sample);
  } else {
    ReadTracks(annotation, where, blanked, &sample);
  }
  CheckJoints(config, sample.pose.joints, where);
  return sample;
}

PickleValue FindAnnotations(const PickleValue& root, const std::string& path) {
  const PickleValue list = root.is(PickleKind::kDict) ? root.Find("annotations") : root;
  if (!list.is(PickleKind::kList) && !list.is(PickleKind::kTuple)) {
    throw Error("this pickle holds no annotations", path,
                "expected a list of annotations, or a dict with 'split' and 'annotations'");
  }
  if (list.size() == 0)
    throw Error("the list of annotations is empty", path,
                "give a pickle with at least one annotation");
  return list;
}

std::string ReadId(const PickleValue& annotation, const std::string& where) {
  if (!annotation.is(PickleKind::kDict))
    throw Error("an annotation must be a dict", where, "docs/formats/annotation.md shows one");
  const char* key = annotation.Has("filename") ? "filename" : "frame_dir";
  return std::string(Required(annotation, key, where).AsString(where + "." + key));
}

namespace {

void CheckNotEmpty(const Dataset& dataset, const std::string& path, const std::string& split) {
  if (!dataset.samples.empty()) return;
  std::string reasons;
  for (size_t i = 0; i < std::min<size_t>(dataset.rejected.size(), 3); ++i) {
    reasons += "; " + dataset.rejected[i].id + ": " + dataset.rejected[i].reason;
  }
  throw Error("none of the " + std::to_string(dataset.rejected.size()) +
                  " annotations can be used" + reasons,
              split.empty() ? path : path + ": split " + Quoted(split),
              "repair the annotations; docs/formats/annotation.md says what they must hold");
}

}  // namespace

Dataset LoadDataset(const Config& config, const std::string& split) {
  const std::string& path = config.data.annotations;
  if (path.empty()) throw Error("no annotations are given", "data.annotations", "name a pickle");
  if (IsPackedStore(path)) return LoadPackedDataset(config, split);
  if (config.model.has_rgb() && config.data.videos.empty()) {
    throw Error("no folder of videos is given", "data.videos",
                "name it; only pose-only networks do without");
  }
  Dataset dataset;
  dataset.class_names = ReadClassNames(config);
  const Pickle pickle = Pickle::Load(path);
  const PickleValue list = FindAnnotations(pickle.root(), path);
  const int64_t classes = config.model.num_classes;
  if (LabelsFromOne(list, classes)) {
    throw Error("labels run from 1 to " + std::to_string(classes) + ", but the " +
                    std::to_string(classes) + " classes are counted from 0",
                path, "shift them: kinefit data check CONFIG --fix NEW.pkl");
  }
  std::vector<std::string> wanted;
  if (!split.empty()) wanted = ReadSplit(pickle.root(), split, path);
  std::unordered_map<std::string, int> seen;  // times each wanted id was met
  for (const std::string& id : wanted) seen.emplace(id, 0);

  for (size_t i = 0; i < list.size(); ++i) {
    std::string where = path + ": annotations[" + std::to_string(i) + "]";
    const std::string id = ReadId(list[i], where);
    if (!split.empty() && seen.count(id) == 0) continue;
    if (++seen[id] > 1) {
      dataset.rejected.push_back({id, "annotated more than once; the first counts"});
      continue;
    }
    try {
      dataset.samples.push_back(ReadSample(list[i], id, config, where + " " + Quoted(id)));
    } catch (const Unusable& unusable) {
      dataset.rejected.push_back({id, unusable.reason});
    }
  }
  for (const std::string& id : wanted) {
    int& times = seen[id];
    if (times++ == 0) {
      dataset.rejected.push_back({id, "in split " + Quoted(split) + " but not annotated"});
    }
  }
  CheckNotEmpty(dataset, path, split);
  return dataset;
}

std::vector<std::pair<std::string, std::vector<std::string>>> LoadSplits(const std::string& path) {
  const Pickle pickle = Pickle::Load(path);
  const PickleValue splits = pickle.root().Find("split");
  std::vector<std::pair<std::string, std::vector<std::string>>> all;
  if (!splits.is(PickleKind::kDict)) return all;
  for (size_t i = 0; i < splits.size(); ++i) {
    const std::string name(splits.key(i).AsString(path + ": name of a split"));
    all.emplace_back(name, ReadSplit(pickle.root(), name, path));
  }
  return all;
}

}  // namespace kinefit
