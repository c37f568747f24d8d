#pragma once

#include <memory>
#include <opencv2/core.hpp>
#include <string>

namespace kinefit {

// Writes an H.264 .mp4 (yuv420p, single-threaded encoder, bit-exact flags: same frames, same
// bytes). The file appears under its name only when Finish() has returned. Throws Error.
class VideoWriter {
 public:
  VideoWriter(const std::string& path, int width, int height, double fps, int crf = 23,
              int keyframe_interval = 12);
  ~VideoWriter();
  VideoWriter(const VideoWriter&) = delete;
  VideoWriter& operator=(const VideoWriter&) = delete;

  // `frame`: RGB, CV_8UC3, of the size given above.
  void Write(const cv::Mat& frame);
  void Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kinefit
