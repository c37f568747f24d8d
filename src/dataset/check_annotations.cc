#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <mutex>

#include "dataset/annotation_reader.h"
#include "dataset/check_steps.h"
#include "files/error.h"
#include "files/publish.h"

namespace kinefit {
namespace {

constexpr float kLeastScore = 1e-4F;  // below, nothing is drawn
constexpr double kMostOutside = 0.9;  // share of a clip's joints
constexpr double kFarInImages = 3;    // from the image's corner, in sides of the image
constexpr int64_t kLabelsWithoutBound = 10000;

std::string Counted(int64_t count, const std::string& one, const std::string& many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

std::string Percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%", 100 * share);
  return text;
}

// What is wrong with one annotation. Each annotation has a list of its own, so that threads do not
// meet and the order is that of the file.
class Findings {
 public:
  Findings(int64_t annotation, const std::string& id) : annotation_(annotation), id_(id) {}
  void Add(const char* code, Severity severity, const std::string& message,
           std::vector<std::pair<std::string, double>> numbers = {}) {
    list_.push_back({code, severity, annotation_, id_, "", message, std::move(numbers)});
  }
  std::vector<Finding> Take() { return std::move(list_); }

 private:
  int64_t annotation_;
  const std::string& id_;
  std::vector<Finding> list_;
};

void ReportBlanked(const BlankedJoints& blanked, Findings* findings) {
  const auto report = [&](int64_t count, const char* code, const std::string& what) {
    if (count == 0) return;
    findings->Add(code, Severity::kStops, Counted(count, "joint", "joints") + what,
                  {{"joints", static_cast<double>(count)}});
  };
  report(blanked.nan, "joints_nan", " with a coordinate that is not a number (NaN)");
  report(blanked.infinite, "joints_overflow",
         " with an infinite coordinate, as float16 makes of more than 65504");
  report(blanked.far, "joints_far", " more than a million pixels away");
  if (blanked.scores == 0) return;
  findings->Add("scores_not_finite", Severity::kStops,
                Counted(blanked.scores, "score that is", "scores that are") + " NaN or infinite",
                {{"scores", static_cast<double>(blanked.scores)}});
}

// Where the joints are, over the whole clip.
struct Spread {
  int64_t seen = 0;
  int64_t outside = 0;
  int64_t far = 0;
  int64_t at_corner = 0;   // scored, but at 0, 0, which means "not seen" elsewhere
  int64_t scores_off = 0;  // outside 0..1
  int64_t empty_frames = 0;
  float largest = 0;  // coordinate
  bool whole_numbers = true;
};

Spread Measure(const Sample& sample) {
  const Pose& pose = sample.pose;
  const auto width = static_cast<float>(sample.width);
  const auto height = static_cast<float>(sample.height);
  Spread spread;
  std::vector<bool> somebody(static_cast<size_t>(pose.frames), false);
  for (size_t i = 0; i < pose.score.size(); ++i) {
    const float x = pose.xy[2 * i];
    const float y = pose.xy[2 * i + 1];
    const float score = pose.score[i];
    if (score < 0 || score > 1.001F) ++spread.scores_off;
    if (score < kLeastScore) continue;
    if (x == 0 && y == 0) {
      ++spread.at_corner;
      continue;
    }
    ++spread.seen;
    somebody[i / static_cast<size_t>(pose.joints) % static_cast<size_t>(pose.frames)] = true;
    spread.largest = std::max({spread.largest, std::abs(x), std::abs(y)});
    spread.outside += x < 0 || y < 0 || x > width || y > height ? 1 : 0;
    spread.far += std::abs(x / width) > kFarInImages || std::abs(y / height) > kFarInImages ? 1 : 0;
  }
  spread.empty_frames = std::count(somebody.begin(), somebody.end(), false);
  return spread;
}

void ReportSpread(const Spread& spread, const Sample& sample, bool has_pose, Findings* findings) {
  const Severity distorts = has_pose ? Severity::kDistorts : Severity::kNote;
  const auto joints = static_cast<double>(spread.seen);
  if (spread.seen == 0) {
    findings->Add("pose_empty", distorts, "nobody was detected in any frame",
                  {{"frames", static_cast<double>(sample.total_frames)}});
    return;
  }
  if (spread.empty_frames > 0) {
    findings->Add("frames_without_pose", Severity::kNote,
                  "nobody was detected in " + std::to_string(spread.empty_frames) + " of " +
                      Counted(sample.total_frames, "frame", "frames"),
                  {{"frames", static_cast<double>(spread.empty_frames)},
                   {"of", static_cast<double>(sample.total_frames)}});
  }
  const double outside = static_cast<double>(spread.outside) / joints;
  if (spread.largest <= 2) {
    findings->Add("joints_normalised", distorts,
                  "all joints lie within two pixels of the corner: coordinates must be pixels, not "
                  "shares of the image");
  } else if (outside > kMostOutside) {
    findings->Add("joints_mostly_outside", distorts,
                  Percent(outside) + " of the joints lie outside the image of " +
                      std::to_string(sample.width) + "x" + std::to_string(sample.height) +
                      ": is img_shape (height, width), and of this video?",
                  {{"share", outside}});
  } else if (spread.outside > 0) {
    findings->Add("joints_outside", Severity::kNote,
                  Percent(outside) + " of the joints lie outside the image",
                  {{"joints", static_cast<double>(spread.outside)}, {"share", outside}});
  }
  if (spread.far > 0 && outside <= kMostOutside) {
    findings->Add("joints_astray", Severity::kDistorts,
                  Counted(spread.far, "joint lies", "joints lie") +
                      " further away than three images: the crop around the people follows them",
                  {{"joints", static_cast<double>(spread.far)}});
  }
  if (spread.at_corner > 0) {
    findings->Add("joints_at_corner", Severity::kNote,
                  Counted(spread.at_corner, "joint has", "joints have") +
                      " a score but the coordinates 0, 0, where it is drawn",
                  {{"joints", static_cast<double>(spread.at_corner)}});
  }
  if (spread.scores_off > 0) {
    findings->Add("scores_out_of_range", Severity::kNote,
                  Counted(spread.scores_off, "score is", "scores are") + " outside 0 to 1",
                  {{"scores", static_cast<double>(spread.scores_off)}});
  }
}

uint64_t HashPose(const Sample& sample) {
  const Pose& pose = sample.pose;
  const int64_t sizes[] = {pose.persons, pose.frames, pose.joints};
  const auto bytes = [](const auto* data, size_t count) {
    return std::string_view(reinterpret_cast<const char*>(data), count * sizeof *data);
  };
  uint64_t hash = XxHash64(bytes(sizes, 3));
  hash = XxHash64(bytes(pose.xy.data(), pose.xy.size()), hash);
  hash = XxHash64(bytes(pose.score.data(), pose.score.size()), hash);
  return hash == 0 ? 1 : hash;
}

// The network that reads an annotation without refusing what this check is to find.
Config ReadingConfig(const CheckPlan& plan) {
  Config config = plan.config;
  if (plan.any_label) {
    config.model.num_classes = kLabelsWithoutBound;
    config.model.type = "rgb";  // any joints
  } else if (plan.videos && !config.model.has_rgb()) {
    config.model.type = "rgbpose";  // the video's name too
  }
  return config;
}

void CheckOne(const PickleValue& annotation, const Config& config, bool has_pose,
              const std::string& where, Findings* findings, CheckedClip* clip) {
  Sample sample;
  BlankedJoints blanked;
  try {
    sample = ReadSample(annotation, clip->id, config, where, &blanked);
  } catch (const Unusable& unusable) {
    findings->Add("annotation_unusable", Severity::kStops, unusable.reason);
    return;
  } catch (const Error& error) {
    findings->Add("annotation_invalid", Severity::kStops, error.problem());
    return;
  }
  clip->usable = true;
  clip->video = sample.video;
  clip->label = sample.label;
  clip->first_frame = sample.first_frame;
  clip->total_frames = sample.total_frames;
  clip->width = sample.width;
  clip->height = sample.height;
  clip->joints = sample.pose.joints;
  ReportBlanked(blanked, findings);
  const Spread spread = Measure(sample);
  clip->seen = spread.seen;
  clip->outside = spread.outside;
  clip->empty_frames = spread.empty_frames;
  if (spread.seen > 0) clip->pose_hash = HashPose(sample);
  ReportSpread(spread, sample, has_pose, findings);
}

// Of a set without a network, whose joints nothing else counts: the commonest number is right.
void CheckJointCounts(CheckResult* result) {
  std::map<int64_t, int64_t> clips_of;
  for (const CheckedClip& clip : result->clips) {
    if (clip.usable) ++clips_of[clip.joints];
  }
  if (clips_of.size() < 2) return;
  const int64_t usual =
      std::max_element(clips_of.begin(), clips_of.end(), [](const auto& a, const auto& b) {
        return a.second < b.second;
      })->first;
  for (size_t i = 0; i < result->clips.size(); ++i) {
    const CheckedClip& clip = result->clips[i];
    if (!clip.usable || clip.joints == usual) continue;
    result->findings.push_back(
        {"joints_differ",
         Severity::kStops,
         static_cast<int64_t>(i),
         clip.id,
         "",
         "has " + Counted(clip.joints, "joint", "joints") + ", most annotations have " +
             std::to_string(usual),
         {{"joints", static_cast<double>(clip.joints)}, {"usual", static_cast<double>(usual)}}});
  }
}

}  // namespace

void CheckAnnotations(const Pickle& pickle, const CheckPlan& plan, const CheckProgress& progress,
                      CheckResult* result) {
  const std::string& path = plan.config.data.annotations;
  const PickleValue list = FindAnnotations(pickle.root(), path);
  Config config = ReadingConfig(plan);
  const int64_t classes = plan.config.model.num_classes;
  if (LabelsFromOne(list, plan.any_label ? -1 : classes)) {
    result->label_shift = 1;
    ++config.model.num_classes;
    result->findings.push_back({"labels_from_one",
                                plan.any_label ? Severity::kDistorts : Severity::kStops,
                                -1,
                                "",
                                "",
                                "labels run from 1" +
                                    (plan.any_label ? "" : " to " + std::to_string(classes)) +
                                    ", but classes are counted from 0; --fix shifts them",
                                {}});
  }
  const bool has_pose = plan.any_label || plan.config.model.has_pose();
  const auto count = static_cast<int64_t>(list.size());
  std::vector<std::vector<Finding>> found(list.size());
  ForEach(
      plan.threads, count,
      [&](int64_t i) {
        const auto place = static_cast<size_t>(i);
        CheckedClip& clip = result->clips[place];
        if (!clip.checked) return;
        Findings findings(i, clip.id);
        const std::string where = path + ": annotations[" + std::to_string(i) + "]";
        CheckOne(list[place], config, has_pose, where, &findings, &clip);
        if (clip.usable) clip.label -= result->label_shift;
        if (!plan.videos) clip.video.clear();
        found[place] = findings.Take();
      },
      [&](int64_t done) {
        if (progress) progress("annotations", done, count);
      });
  for (std::vector<Finding>& findings : found) {
    std::move(findings.begin(), findings.end(), std::back_inserter(result->findings));
  }
  if (plan.any_label) CheckJointCounts(result);
}

}  // namespace kinefit
