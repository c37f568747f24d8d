#include "convert/ntu_set.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>

#include "convert/media_files.h"
#include "convert/ntu_performers.h"
#include "convert/ntu_skeleton.h"
#include "convert/parallel.h"
#include "convert/parts.h"
#include "convert/ready_configs.h"
#include "files/error.h"
#include "files/publish.h"
#include "video/reader.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

// Part of what a piece is checked against: to be raised with every change of what is written.
constexpr char kVersion[] = "kinefit ntu 2";
constexpr int64_t kWidth = 1920;
constexpr int64_t kHeight = 1080;
constexpr double kTruncated = 0.9;  // a video shorter than this share of the skeleton is damaged

// A sample and the files it was found in, relative to their folders.
struct Source {
  NtuSample sample;
  std::string skeleton;
  std::string video;
};

// The samples that differ in their action alone: the piece of work that is done or not.
struct Group {
  std::string name;
  std::vector<Source> sources;
};

class Converter {
 public:
  Converter(const NtuOptions& options, const std::function<void(int64_t, int64_t)>& progress)
      : options_(options), progress_(progress) {}

  ConversionReport Run() {
    const std::vector<Source> sources = Match();
    if (sources.empty()) {
      throw Error("none of the " + std::to_string(skeletons_) +
                      " skeletons found belongs to a sample that can be used",
                  options_.skeletons,
                  options_.rgb.empty() ? "it must hold files such as S001C001P001R001A001.skeleton"
                                       : "they need a video each in " + options_.rgb +
                                             ", such as S001C001P001R001A001_rgb.avi");
    }
    const PartFolder parts(options_.out);
    const std::vector<Group> groups = MakeGroups(sources);
    total_ = static_cast<int64_t>(sources.size());
    ForEachInParallel(static_cast<int64_t>(groups.size()), options_.threads, [&](int64_t i) {
      const Group& group = groups[static_cast<size_t>(i)];
      const std::string made_from = Fingerprint(group);
      if (!parts.Read(group.name, made_from, nullptr)) {
        parts.Write(group.name, made_from, ConvertGroup(group));
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      done_ += static_cast<int64_t>(group.sources.size());
      if (progress_) progress_(done_, total_);
    });
    Assemble(groups, parts);
    return report_;
  }

 private:
  // Files of a folder by the sample they belong to.
  std::map<std::string, std::string> FindFiles(const std::string& folder, bool video) {
    std::map<std::string, std::string> found;
    for (const std::string& file : ListFiles(folder)) {
      const std::string name = fs::path(file).filename().string();
      const std::string ending = name.size() > 20 ? name.substr(20) : "";
      const bool fits =
          video ? IsVideoName(name) && (ending.rfind("_rgb.", 0) == 0 || ending.rfind('.') == 0)
                : ending == ".skeleton";
      if (!fits || !ParseNtuName(name.substr(0, 20))) continue;
      const auto [entry, added] = found.emplace(name.substr(0, 20), file);
      if (!added) report_.remarks.push_back(file + " is left out: " + entry->second + " counts");
    }
    return found;
  }

  void Remark(int64_t count, const std::string& text) {
    if (count > 0) report_.remarks.push_back(std::to_string(count) + " " + text);
  }

  std::vector<Source> Match() {
    const std::map<std::string, std::string> skeletons = FindFiles(options_.skeletons, false);
    std::map<std::string, std::string> videos;
    if (!options_.rgb.empty()) videos = FindFiles(options_.rgb, true);
    skeletons_ = static_cast<int64_t>(skeletons.size());
    std::vector<Source> sources;
    int64_t other_set = 0;
    int64_t incomplete = 0;
    int64_t no_video = 0;
    for (const auto& [name, file] : skeletons) {
      const NtuSample sample = *ParseNtuName(name);
      const auto video = videos.find(name);
      if (!IsIn(sample, options_.set)) {
        ++other_set;
      } else if (NtuMissingSkeletons().count(name) > 0) {
        ++incomplete;
      } else if (!options_.rgb.empty() && video == videos.end()) {
        ++no_video;
      } else {
        sources.push_back({sample, file, options_.rgb.empty() ? "" : video->second});
      }
    }
    int64_t no_skeleton = 0;
    for (const auto& entry : videos) {
      if (skeletons.count(entry.first) == 0 && NtuMissingSkeletons().count(entry.first) == 0 &&
          IsIn(*ParseNtuName(entry.first), options_.set)) {
        ++no_skeleton;
      }
    }
    Remark(other_set, "skeletons are of NTU RGB+D 120 only (--edition 120 takes them)");
    Remark(incomplete, "skeletons are left out because their authors list them as incomplete");
    Remark(no_video, "skeletons are left out because they have no video");
    Remark(no_skeleton, "videos have no skeleton");
    return sources;
  }

  static std::vector<Group> MakeGroups(const std::vector<Source>& sources) {
    std::vector<Group> groups;
    for (const Source& source : sources) {  // sorted by name
      const std::string name = source.sample.name.substr(0, 16);
      if (groups.empty() || groups.back().name != name) groups.push_back({name, {}});
      groups.back().sources.push_back(source);
    }
    return groups;
  }

  // What a piece was made from: changes with the files.
  std::string Fingerprint(const Group& group) const {
    std::string text = kVersion;
    for (const Source& source : group.sources) {
      for (const std::string& path :
           {options_.skeletons + "/" + source.skeleton,
            source.video.empty() ? "" : options_.rgb + "/" + source.video}) {
        if (!path.empty()) text += "\n" + FileState(path);
      }
      text += "\n" + source.sample.name + "\n" + source.video;
    }
    return text;
  }

  ConvertedPart ConvertGroup(const Group& group) const {
    ConvertedPart part;
    part.joints = kNtuJoints;
    for (const Source& source : group.sources) {
      ConvertedClip one;
      try {
        one = Convert(source);
      } catch (const ResourceError&) {
        throw;  // not the sample's fault
      } catch (const Error& error) {
        one.left_out = error.problem();
        if (!error.where().empty()) one.left_out += " (" + error.where() + ")";
      }
      part.clips.push_back(std::move(one));
    }
    return part;
  }

  ConvertedClip Convert(const Source& source) const {
    ConvertedClip one;
    NtuPerformers performers =
        ChoosePerformers(ReadNtuSkeleton(options_.skeletons + "/" + source.skeleton));
    const auto note = [&](const std::string& text) {
      one.changed += (one.changed.empty() ? "" : "; ") + text;
    };
    if (performers.lost_joints > 0) {
      note(std::to_string(performers.lost_joints) +
           " joints without coordinates count as not seen");
    }
    ClipAnnotation clip;
    clip.id = source.sample.name;
    clip.video = source.video;
    clip.label = source.sample.action - 1;
    clip.width = kWidth;
    clip.height = kHeight;
    clip.pose = std::move(performers.pose);
    if (!source.video.empty()) {
      const int64_t skeleton = clip.pose.frames;
      FitToVideo(options_.rgb + "/" + source.video, &clip.pose);
      if (clip.pose.frames < skeleton) {
        note("the last " + std::to_string(skeleton - clip.pose.frames) +
             " frames are cut because the video ends before");
      }
    }
    clip.total_frames = clip.pose.frames;
    one.encoded = EncodeClip(clip, DType::kFloat16);
    return one;
  }

  // A video of other proportions is not the one that the joints refer to; one that is a little
  // shorter than the skeleton cuts it.
  static void FitToVideo(const std::string& path, Pose* pose) {
    const VideoInfo video = ProbeVideo(path);
    if (std::abs(static_cast<double>(video.width) * kHeight /
                     (static_cast<double>(video.height) * kWidth) -
                 1) > 0.02) {
      throw Error("the video shows " + std::to_string(video.width) + "x" +
                      std::to_string(video.height) + ", which is not 1920x1080 scaled",
                  path);
    }
    if (video.frames >= pose->frames) return;
    if (static_cast<double>(video.frames) < kTruncated * static_cast<double>(pose->frames)) {
      throw Error("the video has only " + std::to_string(video.frames) + " frames, the skeleton " +
                      std::to_string(pose->frames),
                  path);
    }
    *pose = FirstFrames(*pose, video.frames);
  }

  static Pose FirstFrames(const Pose& pose, int64_t frames) {
    Pose cut{pose.persons, frames, pose.joints, {}, {}};
    for (int64_t person = 0; person < pose.persons; ++person) {
      const int64_t from = person * pose.frames * pose.joints;
      const int64_t count = frames * pose.joints;
      cut.xy.insert(cut.xy.end(), pose.xy.begin() + 2 * from, pose.xy.begin() + 2 * (from + count));
      cut.score.insert(cut.score.end(), pose.score.begin() + from,
                       pose.score.begin() + from + count);
    }
    return cut;
  }

  Splits EmptySplits() const {
    Splits splits = {{"xsub_train", {}}, {"xsub_val", {}}};
    const std::string second = options_.set == NtuSet::k60 ? "xview" : "xset";
    splits.push_back({second + "_train", {}});
    splits.push_back({second + "_val", {}});
    return splits;
  }

  void AddToSplits(const NtuSample& sample, Splits* splits) const {
    const bool second =
        options_.set == NtuSet::k60 ? TrainsCrossView(sample) : TrainsCrossSetup(sample);
    (*splits)[TrainsCrossSubject(sample, options_.set) ? 0 : 1].second.push_back(sample.name);
    (*splits)[second ? 2 : 3].second.push_back(sample.name);
  }

  void Assemble(const std::vector<Group>& groups, const PartFolder& parts) {
    const std::string annotations = options_.out + "/annotations.pkl";
    AnnotationFileWriter writer(annotations);
    Splits splits = EmptySplits();
    for (const Group& group : groups) {
      ConvertedPart part;
      if (!parts.Read(group.name, Fingerprint(group), &part) ||
          part.clips.size() != group.sources.size()) {
        throw Error("the files of " + group.name + " changed while they were converted",
                    options_.skeletons, "run the command again once they are complete");
      }
      for (size_t i = 0; i < part.clips.size(); ++i) {
        const NtuSample& sample = group.sources[i].sample;
        const ConvertedClip& one = part.clips[i];
        if (!one.changed.empty()) report_.changed.push_back({sample.name, one.changed});
        if (!one.left_out.empty()) {
          report_.left_out.push_back({sample.name, one.left_out});
          continue;
        }
        writer.Add(one.encoded);
        AddToSplits(sample, &splits);
        ++report_.clips;
      }
    }
    Finish(splits, annotations, &writer);
  }

  void Finish(const Splits& splits, const std::string& annotations, AnnotationFileWriter* writer) {
    for (const auto& [name, ids] : splits) {
      report_.splits.emplace_back(name, static_cast<int64_t>(ids.size()));
    }
    const int64_t whole = NtuUsableCount(options_.set);
    if (report_.clips == whole) {
      report_.remarks.push_back("complete: all " + std::to_string(whole) + " usable samples");
    } else {
      report_.remarks.push_back(std::to_string(report_.clips) + " of the set's " +
                                std::to_string(whole) + " usable samples");
    }
    const std::string report_path = options_.out + "/report.json";
    WriteReport(report_path, report_);
    CheckBadShare(report_, options_.max_bad_share, report_path);
    const std::string classes = options_.out + "/classes.txt";
    PublishFile(classes, NtuClassNames(options_.set));
    writer->Commit(splits);
    report_.include = options_.out + (options_.set == NtuSet::k60 ? "/ntu60.toml" : "/ntu120.toml");
    WriteSetInclude(report_.include, {"kinefit data ntu", NtuClassCount(options_.set), annotations,
                                      options_.rgb, classes, "ntu25", "xsub_train", "xsub_val"});
    report_.next =
        WriteReadyConfigs(options_.out, {"kinefit data ntu",
                                         options_.set == NtuSet::k60 ? "ntu60.toml" : "ntu120.toml",
                                         !options_.rgb.empty(), true});
  }

  const NtuOptions& options_;
  const std::function<void(int64_t, int64_t)>& progress_;
  std::mutex mutex_;
  int64_t skeletons_ = 0;
  int64_t total_ = 0;
  int64_t done_ = 0;
  ConversionReport report_;
};

}  // namespace

ConversionReport ConvertNtu(const NtuOptions& options,
                            const std::function<void(int64_t, int64_t)>& progress) {
  return Converter(options, progress).Run();
}

}  // namespace kinefit
