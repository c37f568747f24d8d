#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dataset/sample.h"
#include "files/npy.h"
#include "files/pickle.h"
#include "files/publish.h"

namespace kinefit {

// One clip as it goes into an annotation file (docs/formats/annotation.md).
struct ClipAnnotation {
  std::string id;
  std::string video;  // its path below the folder of videos; "" = pose only
  int64_t label = 0;
  int64_t width = 0;  // of the image the joints refer to
  int64_t height = 0;
  int64_t first_frame = 0;
  int64_t total_frames = 0;
  Pose pose;
};

// The annotation as a piece of a pickle, for AnnotationFileWriter. `joints`: kFloat16 (half the
// size, exact to half a pixel up to 1024 and to one up to 2048, as mmaction2's files) or kFloat32.
// REQUIRES: pose.frames == total_frames.
std::string EncodeClip(const ClipAnnotation& clip, DType joints);

// Names of splits and the ids in each.
using Splits = std::vector<std::pair<std::string, std::vector<std::string>>>;

// Writes an annotation pickle piece by piece, so that its size does not matter. The file appears
// when Commit returns. Throws Error.
class AnnotationFileWriter {
 public:
  explicit AnnotationFileWriter(const std::string& path);
  void Add(std::string_view encoded_clip);
  void Commit(const Splits& splits);

 private:
  AtomicFile file_;
  PickleWriter pickle_;
};

// What a configuration needs to know about a finished set.
struct SetInclude {
  std::string made_by;  // for the comment on top
  int64_t num_classes = 0;
  std::string annotations;
  std::string videos;  // "" = no videos
  std::string classes;
  std::string joints;
  std::string train_split;
  std::string val_split;
};

// Writes these as a TOML file that a configuration includes; paths are made absolute. Throws Error.
void WriteSetInclude(const std::string& path, const SetInclude& set);

// A clip that did not come out as it went in, or not at all, and why.
struct ClipNote {
  std::string id;
  std::string text;
};

// What a conversion did.
struct ConversionReport {
  int64_t clips = 0;
  std::vector<std::pair<std::string, int64_t>> splits;  // clips in each
  std::vector<ClipNote> left_out;                       // could not be used
  std::vector<ClipNote> changed;                        // used, but shortened or cleaned
  std::vector<std::string> remarks;                     // about the set as a whole
  std::string include;                                  // the file to include
  std::vector<std::string> next;                        // commands to run next
};

// As JSON, for programs. Throws Error.
void WriteReport(const std::string& path, const ConversionReport& report);

// Throws Error if too many of the clips could not be used (dataset/bad_share.h), or all of them;
// `report_path` is where the others can be looked up.
void CheckBadShare(const ConversionReport& report, double max_bad_share,
                   const std::string& report_path);

}  // namespace kinefit
