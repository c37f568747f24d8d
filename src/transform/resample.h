#pragma once

#include <array>
#include <cstdint>
#include <opencv2/core.hpp>
#include <vector>

#include "transform/pixel_rows.h"

namespace kinefit {

// A picture as planar rows: red, green and blue of row 0, of row 1, ...
struct PlanarImage {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> levels;  // [height, 3, width]

  void Resize(int64_t new_width, int64_t new_height);
  // CV_8UC3 frames, RGB.
  static PlanarImage Of(const cv::Mat& frame);
  cv::Mat ToFrame() const;

  uint8_t* row(int64_t y) { return levels.data() + y * 3 * width; }
  const uint8_t* row(int64_t y) const { return levels.data() + y * 3 * width; }
};

// One axis of a chain of crops and bilinear resizes, as one linear map: what each output is made
// of. A chain of two resizes takes up to four inputs for an output.
class AxisMap {
 public:
  // The inputs [begin, begin + size) as they are.
  AxisMap(int begin, int size);
  // Resizes what there is so far to `size` outputs, as cv::resize with INTER_LINEAR does. At most
  // twice.
  void Resize(int size);
  // Keeps the outputs [begin, begin + size).
  void Crop(int begin, int size);
  void Mirror();
  // Leaves inputs out that do not exist: they are black.
  void Clip(int inputs);

  struct Tap {
    int index;
    float weight;
  };
  struct Output {
    std::array<Tap, 4> taps;  // in ascending order
    int count = 0;
    void Add(Tap tap);
  };
  const std::vector<Output>& outputs() const { return outputs_; }
  // The inputs that the outputs are made of, all in this range; size 0 if all is black.
  // REQUIRES of both: Clip() was called last.
  int first_input() const { return first_; }
  int inputs() const { return inputs_; }

 private:
  std::vector<Output> outputs_;
  int first_ = 0;
  int inputs_ = 0;
};

// Applies two axes' maps to frames of one size. Not thread-safe; keeps its scratch memory.
class Resampler {
 public:
  // `x` and `y`: clipped to the frames' width and height.
  Resampler(const AxisMap& x, const AxisMap& y);
  // `frame`: RGB, CV_8UC3. Within one level of what the single resizes, each rounded, give.
  void Run(const cv::Mat& frame, PlanarImage* image);

 private:
  void PlaceColumns(const AxisMap& x);
  void PlaceRows(const AxisMap& y);
  const int16_t* Row(const cv::Mat& frame, int y, const int32_t* kept);

  static constexpr int kSlots = 8;  // rows kept: those of an output row, and some it shares
  int first_column_;
  int columns_;  // inputs of a row; 0 if all is black
  int64_t width_;
  int64_t pairs_ = 1;                  // of inputs for each output along a row
  std::vector<int32_t> column_index_;  // PairTaps
  std::vector<int16_t> column_weight_;
  int rows_;  // inputs
  int64_t height_;
  int64_t blended_ = 1;              // rows for each output row
  std::vector<int32_t> row_index_;   // [height_, blended_]
  std::vector<int16_t> row_weight_;  // [height_, blended_]
  std::array<int, kSlots> slot_rows_ = {};
  int next_slot_ = 0;
  std::vector<int16_t> pair_row_;  // [columns_ + 1, 8]
  std::vector<int16_t> slots_;     // [kSlots, 3, width_]
};

}  // namespace kinefit
