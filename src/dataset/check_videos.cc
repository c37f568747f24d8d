#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>

#include "dataset/check_steps.h"
#include "files/error.h"
#include "files/publish.h"
#include "video/reader.h"

namespace kinefit {
namespace {

constexpr double kAllowedAspect = 0.02;  // as the pipeline allows for

// One file, however many clips it holds.
struct VideoFile {
  std::string path;
  std::vector<int64_t> clips;  // that name it
  VideoInfo info;
  std::string problem;  // why it cannot be read
  bool missing = false;
  std::pair<uint64_t, uint64_t> file;  // device and number: the same for two names of one file
  uint64_t bytes = 0;
  uint64_t hash = 0;  // of its bytes; 0: no other file has this size
};

void Probe(VideoFile* video) {
  struct stat status = {};
  video->missing = stat(video->path.c_str(), &status) != 0;
  if (!video->missing) {
    video->file = {status.st_dev, status.st_ino};
    video->bytes = static_cast<uint64_t>(status.st_size);
  }
  try {
    video->info = ProbeVideo(video->path);
  } catch (const ResourceError&) {
    throw;
  } catch (const Error& error) {
    // "path, frame 12" is where; the path is known.
    const std::string& where = error.where();
    const bool further = where.size() > video->path.size();
    video->problem = error.problem() + (further ? where.substr(video->path.size()) : "");
  }
}

uint64_t HashFile(const std::string& path) {
  struct Closer {
    int file;
    ~Closer() { close(file); }
  };
  const Closer closer{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  std::string block(size_t{1} << 20, '\0');
  uint64_t hash = 1;
  for (;;) {
    const ssize_t count = read(closer.file, block.data(), block.size());
    if (count <= 0) return count == 0 ? hash : 0;
    hash = XxHash64({block.data(), static_cast<size_t>(count)}, hash);
  }
}

std::string Size(int64_t width, int64_t height) {
  return std::to_string(width) + "x" + std::to_string(height);
}

class VideoFindings {
 public:
  VideoFindings(const CheckPlan& plan, CheckResult* result)
      : result_(result),
        severity_(plan.any_label || plan.config.model.has_rgb() ? Severity::kStops
                                                                : Severity::kNote) {}

  void Report(const VideoFile& video) {
    for (const int64_t index : video.clips) {
      CheckedClip& clip = result_->clips[static_cast<size_t>(index)];
      if (!video.problem.empty()) {
        Add(index, video.missing ? "video_missing" : "video_unreadable", severity_,
            (video.missing ? "there is no video " + video.path : video.problem), {});
        continue;
      }
      clip.video_frames = video.info.frames;
      CompareLength(index, clip, video);
      CompareSize(index, clip, video);
    }
  }

 private:
  void Add(int64_t index, const char* code, Severity severity, const std::string& message,
           std::vector<std::pair<std::string, double>> numbers) {
    result_->findings.push_back({code, severity, index,
                                 result_->clips[static_cast<size_t>(index)].id, "", message,
                                 std::move(numbers)});
  }

  void CompareLength(int64_t index, const CheckedClip& clip, const VideoFile& video) {
    const int64_t wanted = clip.first_frame + clip.total_frames;
    const std::vector<std::pair<std::string, double>> numbers = {
        {"video", static_cast<double>(video.info.frames)},
        {"annotated", static_cast<double>(wanted)}};
    const std::string both = "the video has " + std::to_string(video.info.frames) +
                             " frames, the annotation " + std::to_string(wanted);
    if (video.info.frames < wanted) {
      Add(index, "video_too_short", severity_, both, numbers);
    } else if (video.info.frames > wanted && video.clips.size() == 1) {
      Add(index, "video_longer", Severity::kNote, both, numbers);
    }
  }

  void CompareSize(int64_t index, const CheckedClip& clip, const VideoFile& video) {
    const int64_t width = video.info.width;
    const int64_t height = video.info.height;
    if (width == clip.width && height == clip.height) return;
    const std::vector<std::pair<std::string, double>> numbers = {
        {"width", static_cast<double>(width)},
        {"height", static_cast<double>(height)},
        {"annotated_width", static_cast<double>(clip.width)},
        {"annotated_height", static_cast<double>(clip.height)}};
    const std::string both = "the video shows " + Size(width, height) + ", the joints refer to " +
                             Size(clip.width, clip.height);
    const double ratio = static_cast<double>(clip.width) * static_cast<double>(height) /
                         (static_cast<double>(clip.height) * static_cast<double>(width));
    if (std::abs(ratio - 1) > kAllowedAspect) {
      const bool turned = width == clip.height && height == clip.width;
      Add(index, "video_aspect", severity_,
          both + (turned ? ": width and height are exchanged in img_shape" : ": another picture"),
          numbers);
      if (turned) result_->findings.back().repair = Finding::Repair::kTurnImage;
    } else {
      Add(index, "video_resized", Severity::kNote, both + "; they are scaled", numbers);
    }
  }

  CheckResult* result_;
  Severity severity_;
};

std::vector<VideoFile> DistinctVideos(const CheckResult& result) {
  std::vector<VideoFile> videos;
  std::unordered_map<std::string, size_t> by_path;
  for (size_t i = 0; i < result.clips.size(); ++i) {
    const CheckedClip& clip = result.clips[i];
    if (clip.video.empty()) continue;
    const auto [place, added] = by_path.emplace(clip.video, videos.size());
    if (added) {
      videos.emplace_back();
      videos.back().path = clip.video;
    }
    videos[place->second].clips.push_back(static_cast<int64_t>(i));
  }
  return videos;
}

// Only files of one size can be equal, so only those are read again.
void HashEqualSizes(const CheckPlan& plan, std::vector<VideoFile>* videos) {
  std::map<uint64_t, std::vector<size_t>> of_size;
  for (size_t i = 0; i < videos->size(); ++i) {
    if (!(*videos)[i].missing) of_size[(*videos)[i].bytes].push_back(i);
  }
  std::vector<size_t> wanted;
  for (const auto& [size, list] : of_size) {
    if (list.size() > 1) wanted.insert(wanted.end(), list.begin(), list.end());
  }
  ForEach(
      plan.threads, static_cast<int64_t>(wanted.size()),
      [&](int64_t i) {
        VideoFile& video = (*videos)[wanted[static_cast<size_t>(i)]];
        video.hash = HashFile(video.path);
      },
      [](int64_t) {});
}

}  // namespace

void CheckVideos(const CheckPlan& plan, const CheckProgress& progress, CheckResult* result) {
  std::vector<VideoFile> videos = DistinctVideos(*result);
  const auto count = static_cast<int64_t>(videos.size());
  ForEach(
      plan.threads, count, [&](int64_t i) { Probe(&videos[static_cast<size_t>(i)]); },
      [&](int64_t done) {
        if (progress) progress("videos", done, count);
      });
  HashEqualSizes(plan, &videos);
  VideoFindings findings(plan, result);
  for (const VideoFile& video : videos) {
    findings.Report(video);
    result->videos += video.missing ? 0 : 1;
    result->video_frames += video.info.frames;
    result->video_bytes += video.bytes;
    for (const int64_t index : video.clips) {
      CheckedClip& clip = result->clips[static_cast<size_t>(index)];
      clip.video_file = video.file;
      clip.video_hash = video.hash;
    }
  }
}

}  // namespace kinefit
