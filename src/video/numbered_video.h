#pragma once

// For tests: pictures that carry their frame number as black and white blocks, which survive lossy
// coding, so that a decoded picture says which frame it is.

#include <cstdint>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

#include "video/writer.h"

namespace kinefit {

// 128x64: eight blocks in two rows, lowest bit first, on a background that changes with the number.
inline cv::Mat NumberedFrame(int number) {
  cv::Mat frame(64, 128, CV_8UC3, cv::Scalar(60 + number, 90, 120 - number));
  for (int bit = 0; bit < 8; ++bit) {
    const cv::Rect block(bit % 4 * 32 + 4, bit / 4 * 32 + 4, 24, 24);
    frame(block).setTo(cv::Scalar::all((number >> bit & 1) != 0 ? 235 : 20));
  }
  return frame;
}

// The number of a decoded picture of any size that shows a NumberedFrame upright.
inline int ReadNumber(const cv::Mat& frame) {
  int number = 0;
  for (int bit = 0; bit < 8; ++bit) {
    const int x = (bit % 4 * 32 + 16) * frame.cols / 128;
    const int y = (bit / 4 * 32 + 16) * frame.rows / 64;
    const cv::Scalar mean = cv::mean(frame(cv::Rect(x - 1, y - 1, 3, 3)));
    if (mean[0] + mean[1] + mean[2] > 3 * 128) number |= 1 << bit;
  }
  return number;
}

inline std::vector<int> ReadNumbers(const std::vector<cv::Mat>& frames) {
  std::vector<int> numbers;
  for (const cv::Mat& frame : frames) numbers.push_back(ReadNumber(frame));
  return numbers;
}

inline void WriteNumberedVideo(const std::string& path, int frames, double fps = 25) {
  VideoWriter writer(path, 128, 64, fps);
  for (int i = 0; i < frames; ++i) writer.Write(NumberedFrame(i));
  writer.Finish();
}

}  // namespace kinefit
