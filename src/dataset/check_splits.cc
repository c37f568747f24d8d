#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "dataset/check_steps.h"

namespace kinefit {
namespace {

std::string Quoted(const std::string& text) { return "'" + text + "'"; }

std::string Shown(const std::string& split) { return split.empty() ? "all annotations" : split; }

// "walk_12" -> "walk": what is left of ids that number the clips of one source. "" if this is none.
std::string SourceOf(const std::string& id) {
  const size_t digits = id.find_last_not_of("0123456789");
  if (digits == std::string::npos || digits == 0 || digits + 1 == id.size()) return "";
  return id[digits] == '_' ? id.substr(0, digits) : "";
}

bool Overlap(const CheckedClip& a, const CheckedClip& b) {
  return a.first_frame < b.first_frame + b.total_frames &&
         b.first_frame < a.first_frame + a.total_frames;
}

// Clips of one split by what makes two of them the same.
class SameClips {
 public:
  SameClips(const CheckResult& result, const std::vector<int64_t>& clips) : result_(result) {
    for (const int64_t index : clips) Add(index);
  }
  SameClips(const CheckResult& result) : result_(result) {}

  void Add(int64_t index) {
    const CheckedClip& clip = At(index);
    if (!clip.usable) return;
    if (clip.video_file.second != 0) by_file_[clip.video_file].push_back(index);
    if (clip.video_hash != 0) by_bytes_.emplace(clip.video_hash, index);
    if (clip.pose_hash != 0) by_pose_.emplace(clip.pose_hash, index);
  }

  // The clip that shows what this one shows, -1 if there is none, and what they share.
  int64_t Find(int64_t index, std::string* code, std::string* what) const {
    const CheckedClip& clip = At(index);
    const auto file = by_file_.find(clip.video_file);
    if (file != by_file_.end()) {
      for (const int64_t other : file->second) {
        if (other == index || !Overlap(clip, At(other))) continue;
        *code = "video";
        *what = "the same video file";
        return other;
      }
    }
    const auto bytes = by_bytes_.find(clip.video_hash);
    if (clip.video_hash != 0 && bytes != by_bytes_.end() && bytes->second != index &&
        At(bytes->second).video_file != clip.video_file) {
      *code = "video";
      *what = "a video of the same bytes";
      return bytes->second;
    }
    const auto pose = by_pose_.find(clip.pose_hash);
    if (clip.pose_hash != 0 && pose != by_pose_.end() && pose->second != index) {
      *code = "pose";
      *what = "the same joints";
      return pose->second;
    }
    return -1;
  }

 private:
  const CheckedClip& At(int64_t index) const { return result_.clips[static_cast<size_t>(index)]; }

  const CheckResult& result_;
  std::map<std::pair<uint64_t, uint64_t>, std::vector<int64_t>> by_file_;
  std::unordered_map<uint64_t, int64_t> by_bytes_;
  std::unordered_map<uint64_t, int64_t> by_pose_;
};

class SplitChecker {
 public:
  explicit SplitChecker(CheckResult* result) : result_(result) {}

  void CheckPair(const CheckedSplit& train, const CheckedSplit& test) {
    const std::unordered_set<int64_t> in_test(test.clips.begin(), test.clips.end());
    const SameClips same(*result_, test.clips);
    for (const int64_t index : train.clips) {
      if (in_test.count(index) != 0) {
        AddLeak("leak_id", index, index, train, test,
                "is in both splits: measured on what was trained on");
        continue;
      }
      std::string code;
      std::string what;
      const int64_t other = same.Find(index, &code, &what);
      if (other < 0) continue;
      AddLeak("leak_" + code, index, other, train, test,
              "has " + what + " as " + Quoted(At(other).id) + " of " + Quoted(Shown(test.name)));
    }
    CheckClasses(train, test);
    CheckSources(train, test);
  }

  // Clips that a split has twice under different ids.
  void CheckRepeats(const CheckedSplit& split) {
    SameClips before(*result_);
    for (const int64_t index : split.clips) {
      std::string code;
      std::string what;
      const int64_t other = before.Find(index, &code, &what);
      before.Add(index);
      if (other < 0 || !repeats_.emplace(index, other).second) continue;
      const CheckedClip& clip = At(index);
      const CheckedClip& first = At(other);
      const bool conflict = clip.label != first.label;
      std::string message = "has " + what + " as " + Quoted(first.id);
      if (conflict) {
        message +=
            ", but label " + std::to_string(clip.label) + " and not " + std::to_string(first.label);
      }
      result_->findings.push_back({conflict ? "label_conflict" : code + "_repeats",
                                   conflict ? Severity::kDistorts : Severity::kNote,
                                   index,
                                   clip.id,
                                   "",
                                   message,
                                   {{"other", static_cast<double>(other)}}});
    }
  }

 private:
  const CheckedClip& At(int64_t index) const { return result_->clips[static_cast<size_t>(index)]; }
  std::string ClassName(size_t label) const { return Quoted(result_->class_names[label]); }
  static std::string Both(const CheckedSplit& train, const CheckedSplit& test) {
    return Shown(train.name) + ", " + Shown(test.name);
  }

  void AddLeak(const std::string& code, int64_t index, int64_t other, const CheckedSplit& train,
               const CheckedSplit& test, const std::string& message) {
    result_->findings.push_back({code,
                                 Severity::kDistorts,
                                 index,
                                 At(index).id,
                                 Both(train, test),
                                 message,
                                 {{"other", static_cast<double>(other)}}});
  }

  void AddSetFinding(const char* code, Severity severity, const CheckedSplit& train,
                     const CheckedSplit& test, const std::string& message,
                     std::vector<std::pair<std::string, double>> numbers) {
    result_->findings.push_back(
        {code, severity, -1, "", Both(train, test), message, std::move(numbers)});
  }

  void CheckClasses(const CheckedSplit& train, const CheckedSplit& test) {
    std::vector<std::string> absent;
    for (size_t label = 0; label < train.labels.size(); ++label) {
      if (train.labels[label] > 0) continue;
      if (test.labels[label] == 0) {
        absent.push_back(ClassName(label));
        continue;
      }
      AddSetFinding("class_untrained", Severity::kDistorts, train, test,
                    "class " + ClassName(label) + " has " + std::to_string(test.labels[label]) +
                        " clips in " + Quoted(Shown(test.name)) + " but none in " +
                        Quoted(Shown(train.name)),
                    {{"label", static_cast<double>(label)},
                     {"clips", static_cast<double>(test.labels[label])}});
    }
    if (absent.empty()) return;
    std::string names;
    for (size_t i = 0; i < std::min<size_t>(absent.size(), 5); ++i) {
      names += (i == 0 ? "" : ", ") + absent[i];
    }
    AddSetFinding("classes_absent", Severity::kNote, train, test,
                  std::to_string(absent.size()) + " of " + std::to_string(train.labels.size()) +
                      " classes have no clip: " + names + (absent.size() > 5 ? ", ..." : ""),
                  {{"classes", static_cast<double>(absent.size())}});
  }

  void CheckSources(const CheckedSplit& train, const CheckedSplit& test) {
    std::map<std::string, int64_t> trained;
    std::map<std::string, int64_t> shared;
    for (const int64_t index : train.clips) ++trained[SourceOf(At(index).id)];
    int64_t clips = 0;
    for (const int64_t index : test.clips) {
      const std::string source = SourceOf(At(index).id);
      if (source.empty() || trained.count(source) == 0) continue;
      ++shared[source];
      ++clips;
    }
    if (shared.empty()) return;
    std::string names;
    size_t named = 0;
    for (const auto& [source, count] : shared) {
      if (++named > 3) break;
      names += (named == 1 ? "" : ", ") + Quoted(source + "_N");
    }
    AddSetFinding(
        "sources_shared", Severity::kNote, train, test,
        std::to_string(clips) + " of " + std::to_string(test.clips.size()) + " clips of " +
            Quoted(Shown(test.name)) + " have the name of a source that is trained on too: " +
            names + (shared.size() > 3 ? ", ..." : ""),
        {{"sources", static_cast<double>(shared.size())}, {"clips", static_cast<double>(clips)}});
  }

  CheckResult* result_;
  std::set<std::pair<int64_t, int64_t>> repeats_;  // reported: splits may overlap
};

const CheckedSplit& Named(const CheckResult& result, const std::string& name) {
  return *std::find_if(result.splits.begin(), result.splits.end(),
                       [&](const CheckedSplit& split) { return split.name == name; });
}

}  // namespace

void CheckSplits(const CheckPlan& plan, CheckResult* result) {
  SplitChecker checker(result);
  for (const auto& [train, test] : plan.held_out) {
    checker.CheckPair(Named(*result, train), Named(*result, test));
  }
  for (const CheckedSplit& split : result->splits) checker.CheckRepeats(split);
  if (plan.held_out.empty()) {
    result->findings.push_back({"nothing_held_out",
                                Severity::kNote,
                                -1,
                                "",
                                "",
                                "no split is held out: what is trained on is measured on too",
                                {}});
  }
}

}  // namespace kinefit
