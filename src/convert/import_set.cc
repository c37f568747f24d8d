#include "convert/import_set.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "config/joint_layout.h"
#include "convert/parallel.h"
#include "convert/parts.h"
#include "convert/pose_source.h"
#include "convert/ready_configs.h"
#include "convert/source_clips.h"
#include "files/error.h"
#include "files/publish.h"
#include "video/reader.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

// Part of what a piece is checked against: to be raised with every change of what is written.
constexpr char kVersion[] = "kinefit import 2";

// Where a clip lies in its video.
struct Range {
  int64_t first = 0;
  int64_t frames = 0;
};

bool IsSegment(const ManifestEntry& entry) {
  return entry.start || entry.end || entry.start_frame || entry.end_frame;
}

// What a video says of its frames.
struct Timing {
  int64_t frames = 0;
  double fps = 0;             // mean
  std::vector<double> times;  // of each frame, in seconds from the first; none if not known
};

// The frames shown from `start` seconds on and before `end`; times count as reached half a frame
// early, since whoever wrote them rounded.
Range RangeOfSeconds(const ManifestEntry& entry, const std::vector<double>& times) {
  double step = times.back() > 0 ? times.back() : 1;
  for (size_t i = 1; i < times.size(); ++i) step = std::min(step, times[i] - times[i - 1]);
  const double mean = times.back() / std::max<double>(1, static_cast<double>(times.size()) - 1);
  const auto reached = [&](double seconds) {
    return std::lower_bound(times.begin(), times.end(), seconds - step / 2) - times.begin();
  };
  const double length = times.back() + mean;
  const int64_t first = reached(entry.start.value_or(0));
  const int64_t end = entry.end ? reached(*entry.end) : static_cast<int64_t>(times.size());
  if (entry.end && *entry.end > length + std::max(mean, 0.1)) {
    char text[96];
    std::snprintf(text, sizeof text, "the segment ends at %.3f s, but the video lasts %.3f s",
                  *entry.end, length);
    throw Error(text, entry.where, "correct its end");
  }
  if (first >= end) throw Error("the segment holds no frame", entry.where, "make it longer");
  return {first, end - first};
}

Range RangeOf(const ManifestEntry& entry, const Timing& timing) {
  const int64_t frames = timing.frames;
  const double fps = timing.fps;
  int64_t first = entry.start_frame.value_or(0);
  int64_t end = entry.end_frame.value_or(frames);
  if ((entry.start || entry.end) && timing.times.size() > 1) {
    return RangeOfSeconds(entry, timing.times);
  }
  if (entry.start || entry.end) {
    if (!(fps > 0)) {
      throw Error("the segment is given in seconds, but the frame rate is not known", entry.where,
                  "give start_frame and end_frame");
    }
    first = std::llround(entry.start.value_or(0) * fps);
    if (entry.end) end = std::llround(*entry.end * fps);
    // Times are rounded: a segment may seem to end just after the video.
    if (end > frames && static_cast<double>(end - frames) <= std::max(1.0, fps / 10)) end = frames;
  }
  if (first >= end) throw Error("the segment holds no frame", entry.where, "make it longer");
  if (end > frames) {
    throw Error("the segment ends at frame " + std::to_string(end) + ", but there are " +
                    std::to_string(frames),
                entry.where, "correct its end");
  }
  return {first, end - first};
}

class Importer {
 public:
  Importer(const ImportOptions& options, const std::function<void(int64_t, int64_t)>& progress)
      : options_(options), progress_(progress) {}

  ConversionReport Run() {
    clips_ = FindSourceClips(options_);
    NotePassedOver();
    SetSplits();
    std::set<std::string> stems;
    for (const SourceVideo& video : clips_.videos) {
      if (!stems.insert(video.stem).second) stems_twice_.insert(video.stem);
    }
    PoseSource poses(options_.pose.empty() ? clips_.root : options_.pose, options_.first_image);
    poses_ = &poses;
    const PartFolder parts(options_.out);
    const auto total = static_cast<int64_t>(clips_.videos.size());
    int64_t done = 0;
    std::mutex mutex;
    ForEachInParallel(total, options_.threads, [&](int64_t i) {
      const SourceVideo& video = clips_.videos[static_cast<size_t>(i)];
      const std::string made_from = Fingerprint(video);
      ConvertedPart part;
      // What could not be used is tried again: its messages may name lines that have moved.
      if (!parts.Read(PartName(video), made_from, &part) || !AllUsable(part)) {
        parts.Write(PartName(video), made_from, ImportVideo(video));
      }
      const std::lock_guard<std::mutex> lock(mutex);
      if (progress_) progress_(++done, total);
    });
    Write(parts);
    return std::move(report_);
  }

 private:
  // Files among the recordings that are neither videos nor poses, by their endings.
  void NotePassedOver() {
    if (clips_.passed_over.empty()) return;
    std::map<std::string, int64_t> endings;
    for (const std::string& file : clips_.passed_over) {
      const std::string ending = fs::path(file).extension().string();
      ++endings[ending.empty() ? "without an ending" : ending];
    }
    std::string list;
    for (const auto& [ending, count] : endings) {
      list += (list.empty() ? "" : ", ") + std::to_string(count) + " " + ending;
    }
    report_.remarks.push_back(std::to_string(clips_.passed_over.size()) +
                              " files are no videos and were passed over (" + list + "), first " +
                              clips_.passed_over.front());
  }

  // Splits by the manifest, or by dealing out the videos.
  void SetSplits() {
    size_t given = 0;
    for (const ManifestEntry& entry : clips_.entries) given += entry.split.empty() ? 0 : 1;
    if (given == 0) return DealOutVideos();
    for (const ManifestEntry& entry : clips_.entries) {
      if (!entry.split.empty()) continue;
      throw Error("the clip has no split, but others have", entry.where,
                  "name one for every clip, or for none");
    }
    std::map<std::string, std::set<std::string>> splits_of;
    for (const SourceVideo& video : clips_.videos) {
      for (const size_t clip : video.clips) {
        splits_of[video.name].insert(clips_.entries[clip].split);
      }
    }
    for (const auto& [video, splits] : splits_of) {
      if (splits.size() < 2) continue;
      report_.remarks.push_back("segments of " + video + " are in " +
                                std::to_string(splits.size()) +
                                " splits: a test on them says little");
    }
  }

  // The videos of each class, in an order that depends on their names and the seed alone.
  void DealOutVideos() {
    std::map<int64_t, std::vector<std::pair<uint64_t, const SourceVideo*>>> by_class;
    for (const SourceVideo& video : clips_.videos) {
      by_class[clips_.labels[video.clips.front()]].emplace_back(XxHash64(video.name, options_.seed),
                                                                &video);
    }
    int64_t untested = 0;
    for (auto& [label, videos] : by_class) {
      std::sort(videos.begin(), videos.end(), [](const auto& a, const auto& b) {
        return std::make_pair(a.first, a.second->name) < std::make_pair(b.first, b.second->name);
      });
      const auto count = static_cast<double>(videos.size());
      const auto test = static_cast<size_t>(std::lround(count * options_.test_share));
      untested += test == 0 ? 1 : 0;
      for (size_t i = 0; i < videos.size(); ++i) {
        for (const size_t clip : videos[i].second->clips) {
          clips_.entries[clip].split = i < test ? "test" : "train";
        }
      }
    }
    if (untested == 0) return;
    report_.remarks.push_back(std::to_string(untested) + " of " + std::to_string(by_class.size()) +
                              " classes have too few videos for one in the test; see --test-share");
  }

  static bool AllUsable(const ConvertedPart& part) {
    return std::all_of(part.clips.begin(), part.clips.end(),
                       [](const ConvertedClip& clip) { return clip.left_out.empty(); });
  }

  static std::string PartName(const SourceVideo& video) {
    char name[17];
    std::snprintf(name, sizeof(name), "%016llx",
                  static_cast<unsigned long long>(XxHash64(video.name)));
    return name;
  }

  // The pose file or folder of a video; "" if there is none.
  std::string PosePath(const SourceVideo& source) const {
    if (!source.pose.empty()) return source.pose;
    return source.is_video ? poses_->Find(source.stem) : source.path;
  }

  // What the piece of a video is made from: changes with the files, what is asked for of them, and
  // the clips in the video.
  std::string Fingerprint(const SourceVideo& source) const {
    std::string text = kVersion;
    const auto add = [&](const std::string& line) { text += "\n" + line; };
    for (const int64_t number :
         {options_.persons, options_.first_image, options_.width, options_.height}) {
      add(std::to_string(number));
    }
    add(options_.joints == "coco17" ? "body" : "all joints");
    add(source.name + ": " + FileState(source.path));
    const std::string poses = PosePath(source);
    for (const std::string& file : poses_->FilesOf(poses, source.stem)) {
      add(file + ": " + FileState(file));
    }
    for (const size_t clip : source.clips) {
      const ManifestEntry& entry = clips_.entries[clip];
      add(ClipId(source, clip) + " " + std::to_string(clips_.labels[clip]));
      const auto bound = [&](const auto& value) { add(value ? std::to_string(*value) : "-"); };
      bound(entry.start);
      bound(entry.end);
      bound(entry.start_frame);
      bound(entry.end_frame);
    }
    return text;
  }

  ConvertedPart ImportVideo(const SourceVideo& source) const {
    ConvertedPart part;
    part.clips.resize(source.clips.size());
    const auto leave_out = [&](ConvertedClip* clip, const Error& error) {
      clip->left_out = error.problem();
      if (!error.where().empty()) clip->left_out += " (" + error.where() + ")";
    };
    try {
      VideoInfo video;
      Timing timing;
      const bool seconds =
          std::any_of(source.clips.begin(), source.clips.end(), [this](const size_t clip) {
            return clips_.entries[clip].start || clips_.entries[clip].end;
          });
      if (source.is_video) video = ProbeVideo(source.path, seconds ? &timing.times : nullptr);
      std::string changed;
      const DetectedPoses poses = ReadPoses(source, &video, &changed);
      part.joints = poses.joints;
      timing.frames = video.frames;
      timing.fps = video.fps;
      for (size_t i = 0; i < source.clips.size(); ++i) {
        try {
          part.clips[i].encoded = EncodeOne(source, i, timing, poses);
          part.clips[i].changed = changed;
        } catch (const Error& error) {
          leave_out(&part.clips[i], error);
        }
      }
    } catch (const ResourceError&) {
      throw;  // not the video's fault
    } catch (const Error& error) {
      for (ConvertedClip& clip : part.clips) leave_out(&clip, error);
    }
    return part;
  }

  // `changed`: what was recognised and put right.
  DetectedPoses ReadPoses(const SourceVideo& source, VideoInfo* video, std::string* changed) const {
    const std::string path = PosePath(source);
    if (path.empty()) {
      throw Error("no pose file is there for " + source.stem,
                  options_.pose.empty() ? clips_.root : options_.pose);
    }
    DetectedPoses poses = poses_->Read(path, source.stem);
    if (poses.detections.empty()) throw Error("the pose file holds no pose", path);
    if (!source.is_video) video->frames = poses.frames;
    FitTo(source, *video, path, changed, &poses);
    if (poses.frames > video->frames) {
      throw Error("the poses go to frame " + std::to_string(poses.frames - 1) +
                      ", counted from 0, but the video has " + std::to_string(video->frames) +
                      " frames" + (poses.frames == video->frames + 1 ? "; see --first-image" : ""),
                  path);
    }
    if (poses.width == 0) {
      poses.width = video->width > 0 ? video->width : options_.width;
      poses.height = video->width > 0 ? video->height : options_.height;
    }
    if (poses.width == 0) {
      throw Error("nothing says which image size the joints refer to; see --image-size", path);
    }
    if (AreNormalised(poses)) {
      Multiply(poses.width, poses.height, &poses);
      Note("coordinates were shares of the image: multiplied by its size", changed);
    }
    FollowTracks(&poses);
    return poses;
  }

  static void Note(const std::string& text, std::string* changed) {
    *changed += (changed->empty() ? "" : "; ") + text;
  }

  // Recognises what poses may be like though the video says otherwise.
  void FitTo(const SourceVideo& source, const VideoInfo& video, const std::string& path,
             std::string* changed, DetectedPoses* poses) const {
    const int64_t joints = poses->joints;
    if (options_.joints == "coco17" && KeepBody(poses)) {
      Note("17 of " + std::to_string(joints) + " joints kept", changed);
    }
    if (!source.is_video) return;
    if (options_.first_image == 0 && CountFromOne(*poses, video.frames)) {
      for (Detection& detection : poses->detections) --detection.frame;
      --poses->frames;
      Note("frames were counted from 1", changed);
    }
    if (poses->every_frame && poses->frames != video.frames) {
      throw Error("the poses have " + std::to_string(poses->frames) + " frames, the video " +
                      std::to_string(video.frames) +
                      (poses->order.empty() ? ""
                                            : "; the array seems to be ordered " + poses->order +
                                                  ", not [persons, frames, joints, 2 or 3]"),
                  path);
    }
  }

  std::string EncodeOne(const SourceVideo& source, size_t index, const Timing& timing,
                        const DetectedPoses& poses) const {
    const ManifestEntry& entry = clips_.entries[source.clips[index]];
    const Range range = RangeOf(entry, timing);
    ClipAnnotation clip;
    clip.id = ClipId(source, source.clips[index]);
    if (source.is_video) clip.video = source.name;
    clip.label = clips_.labels[source.clips[index]];
    clip.width = poses.width;
    clip.height = poses.height;
    clip.first_frame = range.first;
    clip.total_frames = range.frames;
    clip.pose = PersonsOf(poses, range.first, range.frames, options_.persons);
    const bool somebody = std::any_of(clip.pose.score.begin(), clip.pose.score.end(),
                                      [](float score) { return score > 0; });
    if (!somebody) throw Error("nobody was found in any of its frames");
    return EncodeClip(clip, DType::kFloat32);
  }

  // The video's name; with the segment if the manifest gives one.
  std::string ClipId(const SourceVideo& source, size_t clip) const {
    const ManifestEntry& entry = clips_.entries[clip];
    std::string id = stems_twice_.count(source.stem) > 0 ? source.name : source.stem;
    if (!IsSegment(entry)) return id;
    const auto text = [](const std::optional<double>& seconds,
                         const std::optional<int64_t>& frame) -> std::string {
      if (frame) return std::to_string(*frame);
      if (!seconds) return "";
      std::string number = std::to_string(std::llround(*seconds * 1000));
      while (number.size() < 4) number.insert(0, "0");
      return number.insert(number.size() - 3, ".") + "s";
    };
    return id + "@" + text(entry.start, entry.start_frame) + "-" + text(entry.end, entry.end_frame);
  }

  // The layout that fits the joints found: `counts` names a video for each number of them.
  std::string Layout(const std::map<int64_t, const SourceVideo*>& counts) const {
    if (counts.empty()) return options_.joints;
    const int64_t joints = counts.begin()->first;
    if (counts.size() > 1) {
      throw Error("the poses of " + counts.begin()->second->name + " have " +
                      std::to_string(joints) + " joints, those of " +
                      counts.rbegin()->second->name + " " + std::to_string(counts.rbegin()->first),
                  options_.source, "use one pose estimator for all videos");
    }
    if (!options_.joints.empty()) {
      const JointLayout layout = LoadJointLayout(options_.joints);
      if (layout.count() != joints) {
        throw Error("the poses have " + std::to_string(joints) + " joints, the layout \"" +
                        options_.joints + "\" has " + std::to_string(layout.count()),
                    options_.source, "name the layout of the pose estimator with --joints");
      }
      return IsBuiltInLayout(options_.joints) ? options_.joints
                                              : fs::absolute(options_.joints).string();
    }
    std::vector<std::string> fitting;
    for (const std::string& name : BuiltInLayoutNames()) {
      if (LoadJointLayout(name).count() == joints) fitting.push_back(name);
    }
    if (fitting.size() == 1) return fitting.front();
    std::string list;
    for (const std::string& name : fitting) list += (list.empty() ? "" : " or ") + name;
    throw Error("the poses have " + std::to_string(joints) + " joints, which may be " +
                    (list.empty() ? "anything" : list),
                options_.source,
                "say with --joints what they are: a layout, or a .toml of your own "
                "(docs/formats/joints.md)");
  }

  // Splits in the order train, val, test, others by name.
  static size_t Rank(const std::string& split) {
    const std::vector<std::string> usual = {"train", "val", "test"};
    return static_cast<size_t>(std::find(usual.begin(), usual.end(), split) - usual.begin());
  }

  void Write(const PartFolder& parts) {
    const std::string report_path = options_.out + "/report.json";
    const std::string annotations = options_.out + "/annotations.pkl";
    AnnotationFileWriter writer(annotations);
    std::map<std::pair<size_t, std::string>, std::vector<std::string>> splits;
    std::set<std::string> ids;
    std::map<int64_t, const SourceVideo*> joints;
    for (const SourceVideo& video : clips_.videos) {
      ConvertedPart part;
      if (!parts.Read(PartName(video), Fingerprint(video), &part) ||
          part.clips.size() != video.clips.size()) {
        throw Error("the files of " + video.name + " changed while they were imported",
                    options_.source, "run the command again once they are complete");
      }
      if (part.joints > 0) joints.emplace(part.joints, &video);
      for (size_t k = 0; k < part.clips.size(); ++k) {
        const ConvertedClip& clip = part.clips[k];
        const std::string id = ClipId(video, video.clips[k]);
        const ManifestEntry& entry = clips_.entries[video.clips[k]];
        if (!ids.insert(id).second) {
          throw Error("the clip " + id + " is listed twice", entry.where, "list it once");
        }
        if (clip.encoded.empty()) {
          report_.left_out.push_back({id, clip.left_out});
          continue;
        }
        if (!clip.changed.empty()) report_.changed.push_back({id, clip.changed});
        writer.Add(clip.encoded);
        splits[{Rank(entry.split), entry.split}].push_back(id);
        ++report_.clips;
      }
    }
    Splits named;
    for (auto& [key, members] : splits) {
      report_.splits.emplace_back(key.second, static_cast<int64_t>(members.size()));
      named.emplace_back(key.second, std::move(members));
    }
    WriteReport(report_path, report_);
    CheckBadShare(report_, options_.max_bad_share, report_path);
    const std::string layout = Layout(joints);
    WriteRest(named, annotations, layout, &writer);
  }

  void WriteRest(const Splits& splits, const std::string& annotations, const std::string& layout,
                 AnnotationFileWriter* writer) {
    const std::string classes = options_.out + "/classes.txt";
    std::string names;
    for (const std::string& name : clips_.classes) names += name + "\n";
    PublishFile(classes, names);
    writer->Commit(splits);
    report_.include = options_.out + "/set.toml";
    const bool videos = std::any_of(clips_.videos.begin(), clips_.videos.end(),
                                    [](const SourceVideo& video) { return video.is_video; });
    WriteSetInclude(report_.include,
                    {"kinefit data import", static_cast<int64_t>(clips_.classes.size()),
                     annotations, videos ? clips_.root : "", classes, layout, splits.front().first,
                     splits.size() > 1 ? splits[1].first : splits[0].first});
    report_.next =
        WriteReadyConfigs(options_.out, {"kinefit data import", "set.toml", videos, false});
  }

  const ImportOptions& options_;
  const std::function<void(int64_t, int64_t)>& progress_;
  SourceClips clips_;
  std::set<std::string> stems_twice_;  // of videos that differ in their extension alone
  const PoseSource* poses_ = nullptr;
  ConversionReport report_;
};

}  // namespace

ConversionReport ImportSet(const ImportOptions& options,
                           const std::function<void(int64_t, int64_t)>& progress) {
  return Importer(options, progress).Run();
}

}  // namespace kinefit
