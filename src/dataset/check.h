#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "files/pickle.h"

namespace kinefit {

// What a finding means for a training run.
enum class Severity {
  kNote,      // good to know; real sets have such clips
  kDistorts,  // training runs, but on something that is wrong, or measures something else
  kStops,     // the clip is left out, or the run refuses to start
};
const char* SeverityName(Severity severity);  // "note", "distorts", "stops"

// One thing found. docs/formats/check.md lists the codes.
struct Finding {
  std::string code;
  Severity severity = Severity::kNote;
  int64_t annotation = -1;  // index in the file; -1: it concerns the set
  std::string id;
  std::string split;    // of an entry of a split, or "train, test" of a leak; else ""
  std::string message;  // a sentence without the id
  std::vector<std::pair<std::string, double>> numbers;  // what the sentence says, for programs
};

// One annotation as far as it could be read; about 300 bytes. Its joints are not kept.
struct CheckedClip {
  std::string id;
  std::string video;    // path; "" if videos are not checked
  bool checked = true;  // false: in none of the splits that are checked
  bool usable = false;  // it can be read; label, sizes and joints are there
  int64_t label = -1;
  int64_t first_frame = 0;
  int64_t total_frames = 0;
  int64_t width = 0;
  int64_t height = 0;
  int64_t joints = 0;
  int64_t seen = 0;                          // joints that were seen, over all frames and persons
  int64_t outside = 0;                       // of them outside the image
  int64_t empty_frames = 0;                  // frames in which nobody was seen
  uint64_t pose_hash = 0;                    // of sizes, joints and scores; 0 if nobody is seen
  int64_t video_frames = -1;                 // -1: not known
  std::pair<uint64_t, uint64_t> video_file;  // device and file number; 0, 0: none
  uint64_t video_hash = 0;                   // of its bytes; 0: no other video has its size
};

struct CheckedSplit {
  std::string name;             // "" = all annotations
  std::vector<int64_t> clips;   // annotations, in the order of the file; each once
  std::vector<int64_t> labels;  // clips of each class
  int64_t frames = 0;
};

// What to look at.
struct CheckPlan {
  Config config;
  std::vector<std::string> splits;  // none: all annotations
  // Pairs of splits that must not share clips: (trained on, measured on).
  std::vector<std::pair<std::string, std::string>> held_out;
  bool any_label = false;   // num_classes is not known
  bool everything = false;  // also annotations in none of the splits
  bool videos = true;
  int threads = 0;  // 0: one per core
};

// The splits and the network of a configuration. Videos are looked at if it names them.
CheckPlan PlanCheck(const Config& config);
// All splits of a pickle, without a network: any labels, any number of joints. Splits whose names
// differ only in "train" against "val" or "test" are held out from each other. `videos` may be "".
CheckPlan PlanCheck(const Pickle& pickle, const std::string& annotations, const std::string& videos,
                    const std::string& video_suffix);

struct CheckResult {
  std::vector<CheckedClip> clips;  // one per annotation of the file
  std::vector<CheckedSplit> splits;
  std::vector<std::string> class_names;
  int64_t label_shift = 0;        // 1: the file counts labels from 1; `clips` has them from 0
  std::vector<Finding> findings;  // of the set, then by annotation; the same for any `threads`
  int64_t videos = 0;             // distinct files decoded, readable or not
  int64_t video_frames = 0;       // decoded
  uint64_t video_bytes = 0;

  int64_t Count(Severity severity) const;
};

// Reads every annotation and decodes every frame of every video, on `plan.threads` threads. Beside
// the pickle memory holds one frame per thread and a CheckedClip per annotation. `progress` is told
// what is being read and how far it is, one call at a time. Throws Error if the set as a whole
// cannot be checked (no annotations in it, an unknown split, no folder of videos, too few file
// handles); everything else is a finding.
using CheckProgress = std::function<void(const std::string& what, int64_t done, int64_t total)>;
CheckResult CheckDataset(const Pickle& pickle, const CheckPlan& plan,
                         const CheckProgress& progress = {});

// One thing that CleanAnnotations did.
struct Repair {
  int64_t annotation = -1;
  std::string id;
  std::string split;  // where it was left out of one split alone
  std::string done;   // "left out: ...", "joints blanked: ..."
};

// Writes `pickle` anew without what `result` finds to stop or distort training, as far as that can
// be told: what cannot be used is left out, of clips that two splits share the held-out one keeps
// them, impossible joints become joints that were not seen, clips that are a few frames longer than
// their video are cut. All else is copied, also members that kinefit does not know; Python objects
// among those cannot be, and are left out by name. Published atomically. Throws Error, also if
// nothing would be left, or nothing of a split that was checked.
std::vector<Repair> CleanAnnotations(const Pickle& pickle, const CheckPlan& plan,
                                     const CheckResult& result, const std::string& path);

// The result as JSON lines (docs/formats/check.md), published atomically.
void WriteCheckReport(const std::string& path, const CheckPlan& plan, const CheckResult& result,
                      const std::vector<Repair>& repairs);

}  // namespace kinefit
