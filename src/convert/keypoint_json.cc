#include "convert/keypoint_json.h"

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "convert/json_text.h"
#include "files/error.h"

namespace kinefit {
namespace {

using Json = nlohmann::json;

const char kShapes[] = "docs/data.md shows the forms of pose files that are read";

// The member of an object; null if there is none or it is no object.
const Json& Member(const Json& object, const char* key) {
  static const Json* const none = new Json();
  if (!object.is_object()) return *none;
  const auto found = object.find(key);
  return found == object.end() ? *none : *found;
}

// A number; null, which Python's NaN was, is none.
float Number(const Json& value, const std::string& where) {
  if (value.is_null()) return std::numeric_limits<float>::quiet_NaN();
  if (!value.is_number())
    throw Error("a keypoint holds something that is no number", where, kShapes);
  return value.get<float>();
}

// A whole number; -1 if it is none that can be used.
int64_t Whole(const Json& value) {
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(kMostDetectedFrames * 1000)) {
    return -1;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return -1;
  const double real = value.get<double>();
  const bool whole =
      real >= 0 && real < 1e12 && real == static_cast<double>(static_cast<int64_t>(real));
  return whole ? static_cast<int64_t>(real) : -1;
}

int64_t ImageNumber(const Json& image, const std::string& where) {
  const int64_t number =
      image.is_string() ? NumberInName(image.get_ref<const std::string&>()) : Whole(image);
  if (number < 0) {
    throw Error("image_id " +
                    image.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 60) +
                    " does not say which frame it is of",
                where, "it must be a number, or a name that ends in one, such as \"12.jpg\"");
  }
  return number;
}

// AlphaPose's idx may be a list of one; OpenPose's person_id is one.
int64_t TrackOf(const Json& person, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const Json* value = &Member(person, key);
    if (value->is_array() && value->size() == 1) value = &(*value)[0];
    const int64_t track = Whole(*value);
    if (track >= 0) return track;
  }
  return -1;
}

// x, y, score of each joint in turn.
void ReadTriples(const Json& values, bool visibility, const std::string& where,
                 Detection* detection) {
  if (!values.is_array() || values.empty() || values.size() % 3 != 0 ||
      values.size() > 3 * kMostDetectedJoints) {
    throw Error("keypoints are not a list of x, y, score for each joint", where, kShapes);
  }
  for (size_t i = 0; i < values.size(); i += 3) {
    detection->xy.push_back(Number(values[i], where));
    detection->xy.push_back(Number(values[i + 1], where));
    const float score = Number(values[i + 2], where);
    detection->joint_score.push_back(visibility ? 0.5F * score : score);
  }
}

// [[x, y], ...] and the scores apart.
void ReadPairs(const Json& values, const Json& scores, const std::string& where,
               Detection* detection) {
  const bool fits = values.is_array() && !values.empty() && values.size() <= kMostDetectedJoints &&
                    (scores.is_null() || (scores.is_array() && scores.size() == values.size()));
  if (!fits) {
    throw Error("an instance does not have keypoints with as many keypoint_scores", where, kShapes);
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].is_array() || values[i].size() < 2) {
      throw Error("a keypoint of an instance is not [x, y]", where, kShapes);
    }
    detection->xy.push_back(Number(values[i][0], where));
    detection->xy.push_back(Number(values[i][1], where));
    detection->joint_score.push_back(scores.is_null() ? 1.0F : Number(scores[i], where));
  }
}

// The file's score of the person, or else the mean of its joints'.
void SetScore(const Json& score, Detection* detection) {
  if (score.is_number()) {
    detection->score = score.get<float>();
    return;
  }
  for (const float joint : detection->joint_score) detection->score += joint;
  detection->score /= static_cast<float>(detection->joint_score.size());
}

void AddResult(const Json& result, int64_t frame, bool visibility, const std::string& where,
               DetectedPoses* poses) {
  // Categories are those of COCO, where 1 is a person.
  const Json& category = Member(result, "category_id");
  if (category.is_number_integer() && category.get<int64_t>() != 1) return;
  Detection detection;
  detection.frame = frame;
  detection.track = TrackOf(result, {"idx", "track_id"});
  ReadTriples(Member(result, "keypoints"), visibility, where, &detection);
  SetScore(Member(result, "score"), &detection);
  AddDetection(std::move(detection), where, poses);
}

void AddFrame(const Json& frame, int64_t first_image, const std::string& where,
              DetectedPoses* poses) {
  const int64_t number = Whole(Member(frame, "frame_id"));
  const Json& instances = Member(frame, "instances");
  if (number < 0 || !instances.is_array()) {
    throw Error("an entry is not {\"frame_id\": ..., \"instances\": [...]}", where, kShapes);
  }
  for (const Json& instance : instances) {
    Detection detection;
    detection.frame = number - first_image;
    detection.track = TrackOf(instance, {"track_id", "instance_id"});
    ReadPairs(Member(instance, "keypoints"), Member(instance, "keypoint_scores"), where,
              &detection);
    SetScore(Member(instance, "bbox_score"), &detection);
    AddDetection(std::move(detection), where, poses);
  }
  if (number - first_image < 0 || number - first_image >= kMostDetectedFrames) {
    throw Error(
        "frame_id " + std::to_string(number) + " is before the first frame, or far too high", where,
        "see --first-image");
  }
  poses->frames = std::max(poses->frames, number - first_image + 1);
}

void AddAnnotated(const Json& root, int64_t first_image, const std::string& where,
                  DetectedPoses* poses) {
  std::unordered_map<int64_t, int64_t> frames;  // by image id
  for (const Json& image : Member(root, "images")) {
    const Json& name = Member(image, "file_name");
    const int64_t id = Whole(Member(image, "id"));
    if (id < 0 || !name.is_string()) {
      throw Error("an image has no id and file_name", where, kShapes);
    }
    frames[id] = ImageNumber(name, where) - first_image;
  }
  for (const Json& annotation : Member(root, "annotations")) {
    const int64_t id = Whole(Member(annotation, "image_id"));
    const auto frame = frames.find(id);
    if (!frames.empty() && frame == frames.end()) {
      throw Error("an annotation is of image " + std::to_string(id) + ", which is not listed",
                  where, "list it under images");
    }
    if (Member(annotation, "keypoints").is_null()) continue;  // a box alone
    AddResult(annotation, frames.empty() ? id - first_image : frame->second, true, where, poses);
  }
}

// A joint as [x, y], [x, y, score] or {"x": ..., "y": ...}.
bool IsPoint(const Json& value) {
  if (value.is_object()) return value.contains("x") && value.contains("y");
  return value.is_array() && value.size() >= 2 && value.size() <= 4 && !value[0].is_structured() &&
         !value[1].is_structured();
}

// One person as a list of points: a list of lists, or MediaPipe's landmarks, whose "z" is a depth
// and whose score is "visibility".
void AddPoints(const Json& points, int64_t frame, const std::string& where, DetectedPoses* poses) {
  Detection detection;
  detection.frame = frame;
  if (points.size() > kMostDetectedJoints)
    throw Error("a pose has too many joints", where, kShapes);
  for (const Json& point : points) {
    if (!IsPoint(point)) throw Error("a joint is not [x, y] or [x, y, score]", where, kShapes);
    const Json& x = point.is_object() ? point["x"] : point[0];
    const Json& y = point.is_object() ? point["y"] : point[1];
    float score = 1;
    if (point.is_array() && point.size() > 2) score = Number(point[2], where);
    for (const char* key : {"visibility", "score", "confidence"}) {
      if (Member(point, key).is_number()) score = Number(point[key], where);
    }
    detection.xy.push_back(Number(x, where));
    detection.xy.push_back(Number(y, where));
    detection.joint_score.push_back(score);
  }
  SetScore(Json(), &detection);
  AddDetection(std::move(detection), where, poses);
}

// A person as Ultralytics writes it: {"keypoints": {"x": [...], "y": [...], "visible": [...]}}.
void AddColumns(const Json& person, int64_t frame, const std::string& where, DetectedPoses* poses) {
  const Json& keypoints = Member(person, "keypoints");
  const Json& x = Member(keypoints, "x");
  const Json& y = Member(keypoints, "y");
  const Json& visible = Member(keypoints, "visible");
  const bool fits = x.is_array() && y.is_array() && x.size() == y.size() && !x.empty() &&
                    x.size() <= kMostDetectedJoints &&
                    (visible.is_null() || (visible.is_array() && visible.size() == x.size()));
  if (!fits) throw Error("keypoints do not have as many x as y", where, kShapes);
  Detection detection;
  detection.frame = frame;
  detection.track = TrackOf(person, {"track_id"});
  for (size_t i = 0; i < x.size(); ++i) {
    detection.xy.push_back(Number(x[i], where));
    detection.xy.push_back(Number(y[i], where));
    detection.joint_score.push_back(visible.is_null() ? 1.0F : Number(visible[i], where));
  }
  SetScore(Member(person, "confidence"), &detection);
  AddDetection(std::move(detection), where, poses);
}

void AddPerson(const Json& person, int64_t frame, const std::string& where, DetectedPoses* poses) {
  const Json& keypoints = Member(person, "keypoints");
  if (keypoints.is_object()) return AddColumns(person, frame, where, poses);
  if (person.is_array()) return AddPoints(person, frame, where, poses);
  Detection detection;
  detection.frame = frame;
  detection.track = TrackOf(person, {"idx", "track_id", "person_id"});
  for (const char* key : {"keypoints", "pose_keypoints_2d", "joints"}) {
    if (detection.xy.empty() && Member(person, key).is_array()) {
      ReadTriples(person[key], false, where, &detection);
    }
  }
  if (detection.xy.empty()) throw Error("a person has no keypoints", where, kShapes);
  SetScore(Member(person, "scores").is_number() ? person["scores"] : Member(person, "score"),
           &detection);
  AddDetection(std::move(detection), where, poses);
}

// The people of one frame, however they are listed.
void AddPeople(const Json& people, int64_t frame, const std::string& where, DetectedPoses* poses) {
  if (frame < 0 || frame >= kMostDetectedFrames) {
    throw Error("a frame has the number " + std::to_string(frame), where, "see --first-image");
  }
  poses->frames = std::max(poses->frames, frame + 1);
  if (!people.is_array()) throw Error("a frame is no list of people", where, kShapes);
  if (!people.empty() && IsPoint(people[0])) return AddPoints(people, frame, where, poses);
  for (const Json& person : people) AddPerson(person, frame, where, poses);
}

// AlphaPose's forms "open" and "cmu", PoseFlow's results: a member for each image.
void AddImages(const Json& root, int64_t first_image, const std::string& where,
               DetectedPoses* poses) {
  for (const auto& [name, image] : root.items()) {
    const Json* people = &image;
    for (const char* key : {"people", "bodies"}) {
      if (Member(image, key).is_array()) people = &image[key];
    }
    AddPeople(*people, ImageNumber(Json(name), where) - first_image, where, poses);
  }
}

// Whether the members of an object are named for images, and list people.
bool IsByImage(const Json& root) {
  if (!root.is_object() || root.empty()) return false;
  const Json& first = root.begin().value();
  return NumberInName(root.begin().key()) >= 0 &&
         (first.is_array() || Member(first, "people").is_array() ||
          Member(first, "bodies").is_array());
}

// The number that an entry gives its frame; `place` if it gives none.
int64_t FrameOf(const Json& entry, int64_t place, int64_t first_image) {
  for (const char* key : {"frame_id", "frame", "frame_index", "frame_num"}) {
    const int64_t number = Whole(Member(entry, key));
    if (number >= 0) return number - first_image;
  }
  return place;
}

void AddEntry(const Json& entry, int64_t place, int64_t first_image, const std::string& where,
              DetectedPoses* poses) {
  if (!Member(entry, "instances").is_null()) return AddFrame(entry, first_image, where, poses);
  const Json& image = Member(entry, "image_id");
  if (!image.is_null()) {
    return AddResult(entry, ImageNumber(image, where) - first_image, false, where, poses);
  }
  if (entry.is_array()) return AddPeople(entry, place, where, poses);
  for (const char* key : {"landmarks", "pose_landmarks", "people", "persons", "predictions"}) {
    const Json& people = Member(entry, key);
    if (people.is_null()) continue;
    const Json& inner = Member(people, "landmark").is_null() ? people : people["landmark"];
    return AddPeople(inner, FrameOf(entry, place, first_image), where, poses);
  }
  throw Error("an entry has neither image_id nor instances", where, kShapes);
}

DetectedPoses ReadAny(const Json& root, int64_t first_image, const std::string& where) {
  DetectedPoses poses;
  if (Member(root, "annotations").is_array()) {
    AddAnnotated(root, first_image, where, &poses);
    return poses;
  }
  if (IsByImage(root)) {
    AddImages(root, first_image, where, &poses);
    return poses;
  }
  const Json* list = &root;
  for (const char* key : {"instance_info", "frames", "results"}) {
    if (Member(root, key).is_array()) list = &root[key];
  }
  if (!list->is_array()) throw Error("this JSON holds no list of poses", where, kShapes);
  int64_t place = 0;
  for (const Json& entry : *list) AddEntry(entry, place++, first_image, where, &poses);
  return poses;
}

}  // namespace

DetectedPoses ParseKeypointJson(std::string_view text, int64_t first_image,
                                const std::string& where) {
  return ReadAny(ParseJsonOrLines(text, where), first_image, where);
}

void AddOpenPoseFrame(std::string_view text, int64_t frame, const std::string& where,
                      DetectedPoses* poses) {
  const Json root = ParseJson(text, where);
  const Json& people = Member(root, "people");
  if (!people.is_array()) throw Error("this is not a frame of OpenPose: no people", where, kShapes);
  poses->frames = std::max(poses->frames, frame + 1);
  for (const Json& person : people) {
    const Json& values = Member(person, "pose_keypoints_2d");
    if (values.is_array() && values.empty()) continue;
    Detection detection;
    detection.frame = frame;
    detection.track = TrackOf(person, {"person_id"});
    ReadTriples(values, false, where, &detection);
    SetScore(Json(), &detection);
    AddDetection(std::move(detection), where, poses);
  }
}

int64_t NumberInName(std::string_view name) {
  constexpr std::string_view kEnding = "_keypoints";
  constexpr size_t kMostDigits = 15;
  const size_t slash = name.find_last_of('/');
  if (slash != std::string_view::npos) name.remove_prefix(slash + 1);
  const size_t dot = name.find_last_of('.');
  if (dot != std::string_view::npos && dot > 0) name = name.substr(0, dot);
  if (name.size() > kEnding.size() && name.substr(name.size() - kEnding.size()) == kEnding) {
    name.remove_suffix(kEnding.size());
  }
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  while (!name.empty() && !is_digit(name.back())) name.remove_suffix(1);
  size_t digits = 0;
  while (digits < name.size() && is_digit(name[name.size() - 1 - digits])) ++digits;
  if (digits == 0 || digits > kMostDigits) return -1;
  int64_t number = 0;
  for (const char c : name.substr(name.size() - digits)) number = 10 * number + (c - '0');
  return number;
}

}  // namespace kinefit
