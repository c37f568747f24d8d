#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "dataset/annotation_reader.h"
#include "dataset/check.h"
#include "files/error.h"
#include "files/publish.h"

namespace kinefit {
namespace {

constexpr double kCutShare = 0.1;   // of a clip's frames that may be missing in its video
constexpr double kFarInImages = 3;  // as in check_annotations.cc
constexpr double kLargestHalf = 65504;
constexpr uint64_t kInflation = 8;  // copied text and arrays may be so many times the file

uint64_t FileSize(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  return error ? 0 : size;
}

// What is to be done with one annotation.
struct Treatment {
  std::string leave_out;  // why; "" = it stays
  bool blank = false;     // impossible joints become joints that were not seen
  int64_t frames = -1;    // cut to so many; -1: all
  bool turn = false;      // exchange height and width of img_shape
};

// What is to be done with a whole file.
struct Cleaning {
  std::unordered_map<int64_t, Treatment> treatments;
  std::map<std::string, std::map<std::string, std::string>> split_leaves;  // split, id: why
};

bool IsOneOf(const std::string& code, std::initializer_list<const char*> codes) {
  return std::any_of(codes.begin(), codes.end(), [&](const char* one) { return code == one; });
}

void Treat(const Finding& finding, const CheckedClip& clip, Treatment* treatment) {
  const std::string& code = finding.code;
  if (IsOneOf(code, {"joints_nan", "joints_overflow", "joints_far", "joints_astray",
                     "scores_not_finite"})) {
    treatment->blank = true;
    return;
  }
  if (code == "video_too_short") {
    const int64_t left = clip.video_frames - clip.first_frame;
    if (static_cast<double>(left) >= (1 - kCutShare) * static_cast<double>(clip.total_frames)) {
      treatment->frames = left;
      return;
    }
  }
  if (code == "video_aspect" && finding.message.find("exchanged") != std::string::npos) {
    treatment->turn = true;
    return;
  }
  if (IsOneOf(code, {"annotation_invalid", "annotation_unusable", "id_repeats", "joints_differ",
                     "pose_empty", "joints_normalised", "joints_mostly_outside", "video_missing",
                     "video_unreadable", "video_aspect", "video_too_short"}) &&
      treatment->leave_out.empty()) {
    treatment->leave_out = finding.message;
  }
}

Cleaning Decide(const CheckResult& result) {
  Cleaning cleaning;
  for (const Finding& finding : result.findings) {
    if (finding.severity == Severity::kNote) continue;
    if (finding.code == "split_unknown") {
      cleaning.split_leaves[finding.split][finding.id] = finding.message;
    } else if (finding.code.rfind("leak_", 0) == 0) {
      const std::string train = finding.split.substr(0, finding.split.find(", "));
      cleaning.split_leaves[train].emplace(finding.id, finding.message);
    } else if (finding.annotation >= 0) {
      const CheckedClip& clip = result.clips[static_cast<size_t>(finding.annotation)];
      Treat(finding, clip, &cleaning.treatments[finding.annotation]);
    }
  }
  return cleaning;
}

// Copies values of one pickle into another. Python objects cannot be copied.
class Copier {
 public:
  // `most_bytes`: of text and arrays; a small file may refer to the same value a billion times.
  Copier(PickleWriter* writer, uint64_t most_bytes) : writer_(*writer), left_(most_bytes) {}

  bool CanCopy(const PickleValue& value) {
    Spend(1);
    switch (value.kind()) {
      case PickleKind::kGlobal:
      case PickleKind::kObject:
      case PickleKind::kPersistent:
      case PickleKind::kOpaque:
        return false;
      case PickleKind::kDict:
        for (size_t i = 0; i < value.size(); ++i) {
          if (!CanCopy(value.key(i)) || !CanCopy(value.value(i))) return false;
        }
        return true;
      default:
        for (size_t i = 0; i < value.size(); ++i) {
          if (!CanCopy(value[i])) return false;
        }
        return true;
    }
  }

  // REQUIRES: CanCopy(value).
  void Copy(const PickleValue& value) {
    Spend(1);
    switch (value.kind()) {
      case PickleKind::kBool:
        return writer_.Bool(value.AsBool(""));
      case PickleKind::kInt:
        return writer_.Int(value.AsInt(""));
      case PickleKind::kFloat:
        return writer_.Float(value.AsFloat(""));
      case PickleKind::kString:
        Spend(value.AsString("").size());
        return writer_.String(value.AsString(""));
      case PickleKind::kBytes:
        Spend(value.AsBytes("").size());
        return writer_.Bytes(value.AsBytes(""));
      case PickleKind::kArray:
        Spend(value.AsArray("").bytes.size());
        return writer_.Array(value.AsArray(""));
      case PickleKind::kDict:
        writer_.BeginDict();
        for (size_t i = 0; i < value.size(); ++i) {
          Copy(value.key(i));
          Copy(value.value(i));
        }
        return writer_.EndDict();
      case PickleKind::kTuple:
        writer_.BeginTuple();
        CopyItems(value);
        return writer_.EndTuple();
      case PickleKind::kSet:
        writer_.Global("builtins", "set");
        writer_.BeginTuple();
        CopyList(value);
        writer_.EndTuple();
        return writer_.Reduce();
      case PickleKind::kList:
        return CopyList(value);
      default:
        return writer_.None();
    }
  }

 private:
  void CopyItems(const PickleValue& value) {
    for (size_t i = 0; i < value.size(); ++i) Copy(value[i]);
  }
  void CopyList(const PickleValue& value) {
    writer_.BeginList();
    CopyItems(value);
    writer_.EndList();
  }
  void Spend(uint64_t bytes) {
    if (bytes > left_) {
      throw Error("the annotations refer to the same values so often that they cannot be written",
                  "--fix", "make the pickle anew from its source");
    }
    left_ -= bytes;
  }

  PickleWriter& writer_;
  uint64_t left_;
};

NdArray Owned(const NdArrayView& view) { return {view.dtype, view.shape, std::string(view.bytes)}; }

void Zero(NdArray* array, int64_t element, int64_t count) {
  const size_t item = ItemSize(array->dtype);
  std::fill_n(array->bytes.begin() + element * static_cast<int64_t>(item),
              static_cast<size_t>(count) * item, '\0');
}

// The joints of one annotation, changed as its treatment says.
struct Joints {
  NdArray keypoint;
  NdArray score;
  NdArray frame_inds;
  bool scored = false;  // `score` is to be written
  bool flat = false;
  int64_t blanked = 0;
};

// Sets joints that are nowhere, or far from any image, to 0 with score 0.
void Blank(const CheckedClip& clip, Joints* joints) {
  const int64_t width = joints->keypoint.shape.back();
  const std::vector<double> values = joints->keypoint.ToDoubles();
  const auto count = static_cast<int64_t>(values.size()) / width;
  std::vector<double> scores;
  if (joints->scored) scores = joints->score.ToDoubles();
  const auto impossible = [&](double value, int64_t side) {
    const bool overflown =
        joints->keypoint.dtype == DType::kFloat16 && std::abs(value) >= kLargestHalf;
    return !std::isfinite(value) || overflown || std::abs(value) > kFarthestJoint ||
           std::abs(value / static_cast<double>(side)) > kFarInImages;
  };
  std::vector<int64_t> blanked;
  for (int64_t i = 0; i < count; ++i) {
    const double* joint = &values[static_cast<size_t>(i * width)];
    const bool nowhere = impossible(joint[0], clip.width) || impossible(joint[1], clip.height);
    // Scores are read as float32, in which large ones are infinite.
    const double score = joints->scored ? scores[static_cast<size_t>(i)]
                         : width == 3   ? joint[2]
                                        : 1;
    const bool unscored = !std::isfinite(static_cast<float>(score));
    if (nowhere) Zero(&joints->keypoint, i * width, 2);
    if (nowhere || unscored) blanked.push_back(i);
  }
  if (!joints->scored && width == 2) {
    joints->score =
        NdArray::FromFloats({joints->keypoint.shape.begin(), joints->keypoint.shape.end() - 1},
                            std::vector<float>(static_cast<size_t>(count), 1.0F));
    joints->scored = true;
  }
  for (const int64_t i : blanked) {
    if (width == 3) Zero(&joints->keypoint, i * width + 2, 1);
    if (joints->scored) Zero(&joints->score, i, 1);
  }
  joints->blanked = static_cast<int64_t>(blanked.size());
}

// The first `keep` rows of dimension `axis` (0 or 1).
void Shorten(size_t axis, int64_t keep, NdArray* array) {
  const int64_t rows = array->shape[axis];
  const int64_t blocks = axis == 0 ? 1 : array->shape[0];
  const size_t block = array->bytes.size() / static_cast<size_t>(blocks);
  const size_t kept = block / static_cast<size_t>(rows) * static_cast<size_t>(keep);
  std::string bytes;
  for (int64_t i = 0; i < blocks; ++i) {
    bytes += array->bytes.substr(static_cast<size_t>(i) * block, kept);
  }
  array->bytes = std::move(bytes);
  array->shape[axis] = keep;
}

void Cut(int64_t frames, Joints* joints) {
  size_t axis = 1;
  int64_t keep = frames;
  if (joints->flat) {
    const std::vector<int64_t> numbers = joints->frame_inds.ToInts("frame_inds");
    axis = 0;
    keep = std::count_if(numbers.begin(), numbers.end(),
                         [frames](int64_t number) { return number < frames; });
    Shorten(0, keep, &joints->frame_inds);
  }
  Shorten(axis, keep, &joints->keypoint);
  if (joints->scored) Shorten(axis, keep, &joints->score);
}

Joints ReadArrays(const PickleValue& annotation) {
  Joints joints;
  joints.keypoint = Owned(annotation.Find("keypoint").AsArray("keypoint"));
  joints.flat = annotation.Has("frame_inds");
  if (joints.flat) joints.frame_inds = Owned(annotation.Find("frame_inds").AsArray("frame_inds"));
  const PickleValue score = annotation.Find("keypoint_score");
  joints.scored = !score.is_none();
  if (joints.scored) joints.score = Owned(score.AsArray("keypoint_score"));
  return joints;
}

class Cleaner {
 public:
  Cleaner(const Pickle& pickle, const CheckPlan& plan, const CheckResult& result)
      : root_(pickle.root()),
        path_(plan.config.data.annotations),
        asked_(plan.splits),
        result_(result),
        cleaning_(Decide(result)),
        list_(FindAnnotations(root_, path_)),
        copier_(&writer_, kInflation * FileSize(path_) + (uint64_t{64} << 20)) {}

  std::vector<Repair> Write(const std::string& path) {
    ChooseAnnotations();
    if (kept_.empty()) {
      throw Error("not one annotation would be left", path_, "see the findings above");
    }
    if (root_.is(PickleKind::kDict)) {
      WriteRoot();
    } else {
      WriteList();
    }
    if (result_.label_shift != 0) {
      repairs_.push_back({-1, "", "", "labels shifted, so that they are counted from 0"});
    }
    for (const auto& [what, count] : not_copied_) {
      repairs_.push_back(
          {-1, "", "",
           what + " of " + std::to_string(count) + " annotations not copied: a Python object"});
    }
    PublishFile(path, writer_.Finish());
    return std::move(repairs_);
  }

 private:
  const Treatment& TreatmentOf(size_t index) const {
    static const Treatment kNone;
    const auto found = cleaning_.treatments.find(static_cast<int64_t>(index));
    return found == cleaning_.treatments.end() ? kNone : found->second;
  }

  void ChooseAnnotations() {
    for (size_t i = 0; i < list_.size(); ++i) {
      const std::string& reason = TreatmentOf(i).leave_out;
      const std::string& id = result_.clips[i].id;
      if (reason.empty()) {
        kept_.push_back(i);
      } else {
        Note(i, "left out: " + reason);
        left_out_.insert(id);
      }
    }
    for (const size_t i : kept_) left_out_.erase(result_.clips[i].id);
  }

  void Note(size_t index, const std::string& done) {
    repairs_.push_back({static_cast<int64_t>(index), result_.clips[index].id, "", done});
  }

  void WriteRoot() {
    writer_.BeginDict();
    for (size_t i = 0; i < root_.size(); ++i) {
      const PickleValue key = root_.key(i);
      const std::string name =
          key.is(PickleKind::kString) ? std::string(key.AsString("")) : std::string();
      if (name == "annotations") {
        if (annotations_written_) continue;  // of a repeated key the last value counts
        annotations_written_ = true;
        writer_.String(name);
        WriteList();
      } else if (name == "split" && root_.Find("split").is(PickleKind::kDict)) {
        writer_.String(name);
        WriteSplits(root_.Find("split"));
      } else {
        CopyMember(key, root_.value(i));
      }
    }
    writer_.EndDict();
  }

  void CopyMember(const PickleValue& key, const PickleValue& value) {
    if (copier_.CanCopy(key) && copier_.CanCopy(value)) {
      copier_.Copy(key);
      copier_.Copy(value);
      return;
    }
    const std::string name =
        key.is(PickleKind::kString) ? std::string(key.AsString("")) : std::string();
    repairs_.push_back({-1, "", "", "member '" + name + "' not copied: a Python object"});
  }

  // Ids of a split that keep their annotation and their place in it.
  std::vector<std::string> KeptIds(const PickleValue& split, const std::string& name) {
    const auto leaves = cleaning_.split_leaves.find(name);
    std::vector<std::string> ids;
    for (const std::string& id : IdsOfSplit(split, list_, path_ + ": split '" + name + "'")) {
      if (left_out_.count(id) != 0) continue;
      if (leaves != cleaning_.split_leaves.end()) {
        const auto reason = leaves->second.find(id);
        if (reason != leaves->second.end()) {
          repairs_.push_back({-1, id, name, "left out of the split: it " + reason->second});
          continue;
        }
      }
      ids.push_back(id);
    }
    return ids;
  }

  void WriteSplits(const PickleValue& splits) {
    writer_.BeginDict();
    for (size_t i = 0; i < splits.size(); ++i) {
      if (!splits.value(i).is_sequence() &&
          !splits.value(i).is(PickleKind::kArray)) {  // nobody has asked for it
        CopyMember(splits.key(i), splits.value(i));
        continue;
      }
      const std::string name(splits.key(i).AsString(path_ + ": name of a split"));
      const std::vector<std::string> ids = KeptIds(splits.value(i), name);
      const bool had_some = splits.value(i).is(PickleKind::kArray) || splits.value(i).size() > 0;
      if (ids.empty() && had_some) {
        if (std::find(asked_.begin(), asked_.end(), name) != asked_.end()) {
          throw Error("not one clip of split '" + name + "' would be left", path_,
                      "see the findings above");
        }
        repairs_.push_back({-1, "", name, "split left out: none of its clips is left"});
        continue;
      }
      writer_.String(name);
      writer_.BeginList();
      for (const std::string& id : ids) writer_.String(id);
      writer_.EndList();
    }
    writer_.EndDict();
  }

  void WriteList() {
    writer_.BeginList();
    for (const size_t i : kept_) WriteAnnotation(i);
    writer_.EndList();
  }

  void WriteAnnotation(size_t index) {
    const PickleValue annotation = list_[index];
    const Treatment& treatment = TreatmentOf(index);
    const CheckedClip& clip = result_.clips[index];
    const bool changed = treatment.blank || treatment.frames >= 0;
    Joints joints;
    if (changed) joints = ReadArrays(annotation);
    if (treatment.blank) {
      Blank(clip, &joints);
      Note(index, std::to_string(joints.blanked) + " joints blanked (0, 0 with score 0)");
    }
    if (treatment.frames >= 0) {
      Cut(treatment.frames, &joints);
      Note(index, "cut from " + std::to_string(clip.total_frames) + " to " +
                      std::to_string(treatment.frames) + " frames");
    }
    if (treatment.turn) Note(index, "height and width of img_shape exchanged");

    writer_.BeginDict();
    for (size_t i = 0; i < annotation.size(); ++i) {
      const PickleValue key = annotation.key(i);
      const std::string name =
          key.is(PickleKind::kString) ? std::string(key.AsString("")) : std::string();
      if (changed && (name == "keypoint" || name == "keypoint_score" || name == "frame_inds")) {
        continue;
      }
      if (treatment.turn && name == "img_shape") continue;
      if (result_.label_shift != 0 && name == "label") {
        writer_.String(name);
        writer_.Int(clip.label);
        continue;
      }
      if (treatment.frames >= 0 && name == "total_frames") continue;
      if (!copier_.CanCopy(key) || !copier_.CanCopy(annotation.value(i))) {
        ++not_copied_["member '" + name + "'"];
        continue;
      }
      copier_.Copy(key);
      copier_.Copy(annotation.value(i));
    }
    if (changed) WriteJoints(joints);
    if (treatment.turn) WriteImageShape(clip.width, clip.height);
    if (treatment.frames >= 0) {
      writer_.String("total_frames");
      writer_.Int(treatment.frames);
    }
    writer_.EndDict();
  }

  void WriteJoints(const Joints& joints) {
    writer_.String("keypoint");
    writer_.Array(joints.keypoint.view());
    if (joints.scored) {
      writer_.String("keypoint_score");
      writer_.Array(joints.score.view());
    }
    if (joints.flat) {
      writer_.String("frame_inds");
      writer_.Array(joints.frame_inds.view());
    }
  }

  void WriteImageShape(int64_t height, int64_t width) {
    writer_.String("img_shape");
    writer_.BeginTuple();
    writer_.Int(height);
    writer_.Int(width);
    writer_.EndTuple();
  }

  PickleValue root_;
  std::string path_;
  std::vector<std::string> asked_;  // splits
  const CheckResult& result_;
  Cleaning cleaning_;
  PickleValue list_;
  PickleWriter writer_{3};
  Copier copier_;
  bool annotations_written_ = false;
  std::vector<size_t> kept_;
  std::unordered_set<std::string> left_out_;  // ids of which no annotation stays
  std::map<std::string, int64_t> not_copied_;
  std::vector<Repair> repairs_;
};

}  // namespace

std::vector<Repair> CleanAnnotations(const Pickle& pickle, const CheckPlan& plan,
                                     const CheckResult& result, const std::string& path) {
  return Cleaner(pickle, plan, result).Write(path);
}

}  // namespace kinefit
