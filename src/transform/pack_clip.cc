#include "transform/pack_clip.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "dataset/frames.h"
#include "files/error.h"
#include "files/jpeg.h"
#include "transform/compact.h"
#include "transform/resize.h"
#include "video/reader.h"

namespace kinefit {
namespace {

// Which part of the picture is stored, and in which size.
struct Cut {
  cv::Rect window;
  cv::Size size;
};

Cut ChooseCut(const Sample& sample, const PackSettings& settings, const cv::Size& shown) {
  const cv::Rect whole({0, 0}, shown);
  cv::Rect box = whole;
  if (settings.compact) {
    Pose pose = sample.pose;
    const cv::Size annotated(static_cast<int>(sample.width), static_cast<int>(sample.height));
    if (annotated != shown) ResizeJoints(&pose, annotated, shown);
    box = CompactBox(pose, shown,
                     {settings.compact_padding, settings.compact_threshold,
                      settings.compact_hw_ratio, settings.compact_allow_imgpad});
  }
  const int short_side = std::min(box.width, box.height);
  const int margin = static_cast<int>(std::ceil(settings.margin * short_side));
  cv::Rect window =
      cv::Rect(box.x - margin, box.y - margin, box.width + 2 * margin, box.height + 2 * margin) &
      whole;
  if (window.empty()) window = whole;  // the box lies outside: all that it shows is black
  const double scale = std::min(1.0, static_cast<double>(settings.short_side) / short_side);
  const auto scaled = [scale](int side) {
    return std::max(1, static_cast<int>(std::lround(side * scale)));
  };
  const cv::Size size(scaled(window.width), scaled(window.height));
  if (static_cast<int64_t>(size.width) * size.height > kMostPackedPixels) {
    throw Error("its pictures would have " + std::to_string(size.width) + "x" +
                    std::to_string(size.height) + " pixels",
                sample.video, "choose a smaller short side");
  }
  return {window, size};
}

}  // namespace

PackSettings PackSettingsOf(const DataConfig& data) {
  PackSettings settings;
  settings.compact = data.compact;
  settings.compact_padding = data.compact_padding;
  settings.compact_threshold = data.compact_threshold;
  settings.compact_hw_ratio = data.compact_hw_ratio;
  settings.compact_allow_imgpad = data.compact_allow_imgpad;
  return settings;
}

PackedClip PackClip(const Sample& sample, const PackSettings& settings) {
  thread_local JpegEncoder encoder;
  const JpegOptions options = {static_cast<int>(settings.quality), settings.halve_chroma};
  PackedClip clip;
  Cut cut;
  VisitFrames(sample.video, sample.first_frame, sample.total_frames, [&](const cv::Mat& frame) {
    if (clip.images.empty()) {
      CheckAspect({static_cast<int>(sample.width), static_cast<int>(sample.height)}, frame.size());
      cut = ChooseCut(sample, settings, frame.size());
      clip.table.shown_width = frame.cols;
      clip.table.shown_height = frame.rows;
    }
    const cv::Mat picture = ResizeFrame(frame(cut.window), cut.size);
    clip.images.push_back(
        encoder.Encode(picture.data, picture.cols, picture.rows, picture.step, options));
  });
  clip.table.window_x = cut.window.x;
  clip.table.window_y = cut.window.y;
  clip.table.window_width = cut.window.width;
  clip.table.window_height = cut.window.height;
  clip.table.width = cut.size.width;
  clip.table.height = cut.size.height;
  return clip;
}

}  // namespace kinefit
