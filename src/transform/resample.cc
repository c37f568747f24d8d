#include "transform/resample.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace kinefit {

void PlanarImage::Resize(int64_t new_width, int64_t new_height) {
  width = new_width;
  height = new_height;
  levels.resize(static_cast<size_t>(3 * width * height));
}

PlanarImage PlanarImage::Of(const cv::Mat& frame) {
  PlanarImage image;
  image.Resize(frame.cols, frame.rows);
  for (int y = 0; y < frame.rows; ++y) {
    const uint8_t* from = frame.ptr<uint8_t>(y);
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t x = 0; x < image.width; ++x) image.row(y)[c * image.width + x] = from[3 * x + c];
    }
  }
  return image;
}

cv::Mat PlanarImage::ToFrame() const {
  cv::Mat frame(static_cast<int>(height), static_cast<int>(width), CV_8UC3);
  for (int y = 0; y < frame.rows; ++y) {
    uint8_t* to = frame.ptr<uint8_t>(y);
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t x = 0; x < width; ++x) to[3 * x + c] = row(y)[c * width + x];
    }
  }
  return frame;
}

void AxisMap::Output::Add(Tap tap) {
  if (tap.weight == 0) return;
  int place = 0;
  while (place < count && taps[static_cast<size_t>(place)].index < tap.index) ++place;
  if (place < count && taps[static_cast<size_t>(place)].index == tap.index) {
    taps[static_cast<size_t>(place)].weight += tap.weight;
    return;
  }
  if (count == static_cast<int>(taps.size())) throw std::logic_error("an axis is resized thrice");
  std::copy_backward(taps.begin() + place, taps.begin() + count, taps.begin() + count + 1);
  taps[static_cast<size_t>(place)] = tap;
  ++count;
}

AxisMap::AxisMap(int begin, int size) : outputs_(static_cast<size_t>(size)) {
  for (int i = 0; i < size; ++i) outputs_[static_cast<size_t>(i)].Add({begin + i, 1});
}

void AxisMap::Resize(int size) {
  const int inputs = static_cast<int>(outputs_.size());
  if (inputs == size) return;
  const double scale = static_cast<double>(inputs) / size;
  std::vector<Output> resized(static_cast<size_t>(size));
  for (int i = 0; i < size; ++i) {
    float share = static_cast<float>((i + 0.5) * scale - 0.5);
    int from = static_cast<int>(std::floor(share));
    share -= static_cast<float>(from);
    if (from < 0) {
      from = 0;
      share = 0;
    }
    if (from >= inputs - 1) {
      from = inputs - 1;
      share = 0;
    }
    Output& output = resized[static_cast<size_t>(i)];
    const auto add = [&](int input, float weight) {
      if (weight == 0) return;
      const Output& source = outputs_[static_cast<size_t>(input)];
      for (int k = 0; k < source.count; ++k) {
        const Tap& tap = source.taps[static_cast<size_t>(k)];
        output.Add({tap.index, tap.weight * weight});
      }
    };
    add(from, 1 - share);
    add(from + 1, share);
  }
  outputs_ = std::move(resized);
}

void AxisMap::Crop(int begin, int size) {
  outputs_ = std::vector<Output>(outputs_.begin() + begin, outputs_.begin() + begin + size);
}

void AxisMap::Mirror() { std::reverse(outputs_.begin(), outputs_.end()); }

void AxisMap::Clip(int inputs) {
  int first = inputs;
  int last = -1;
  for (Output& output : outputs_) {
    Output kept;
    for (int k = 0; k < output.count; ++k) {
      const Tap& tap = output.taps[static_cast<size_t>(k)];
      if (tap.index < 0 || tap.index >= inputs) continue;
      kept.Add(tap);
      first = std::min(first, tap.index);
      last = std::max(last, tap.index);
    }
    output = kept;
  }
  first_ = last < 0 ? 0 : first;
  inputs_ = last < 0 ? 0 : last - first + 1;
}

namespace {

// Weights as multiples of 1 / unit that add up to what they should: what rounding leaves over goes
// to the largest. Equal levels stay what they are.
std::array<int16_t, 4> RoundWeights(const AxisMap::Output& output, int unit) {
  std::array<int16_t, 4> rounded = {};
  float sum = 0;
  int left = 0;
  size_t largest = 0;
  for (size_t k = 0; k < static_cast<size_t>(output.count); ++k) {
    const float weight = output.taps[k].weight;
    rounded[k] = static_cast<int16_t>(std::lround(weight * static_cast<float>(unit)));
    sum += weight;
    left -= rounded[k];
    if (weight > output.taps[largest].weight) largest = k;
  }
  left += static_cast<int>(std::lround(sum * static_cast<float>(unit)));
  if (output.count > 0) rounded[largest] = static_cast<int16_t>(rounded[largest] + left);
  return rounded;
}

struct Pair {
  int index = 0;
  int16_t first = 0;
  int16_t second = 0;
};

// Taps of neighbours together. A chain of two resizes has two neighbours of each of two
// neighbours: two pairs are enough.
std::vector<Pair> PairsOf(const AxisMap::Output& output) {
  const std::array<int16_t, 4> weights = RoundWeights(output, 1 << 14);
  std::vector<Pair> pairs;
  for (size_t k = 0; k < static_cast<size_t>(output.count); ++k) {
    const int index = output.taps[k].index;
    if (!pairs.empty() && pairs.back().index + 1 == index) {
      pairs.back().second = weights[k];
    } else {
      pairs.push_back({index, weights[k], 0});
    }
  }
  return pairs;
}

}  // namespace

Resampler::Resampler(const AxisMap& x, const AxisMap& y) {
  PlaceColumns(x);
  PlaceRows(y);
}

void Resampler::PlaceColumns(const AxisMap& x) {
  first_column_ = x.first_input();
  columns_ = x.inputs();
  width_ = static_cast<int64_t>(x.outputs().size());
  std::vector<std::vector<Pair>> pairs;
  for (const AxisMap::Output& output : x.outputs()) {
    pairs.push_back(PairsOf(output));
    pairs_ = std::max(pairs_, static_cast<int64_t>(pairs.back().size()));
  }
  if (pairs_ > 2) throw std::logic_error("an axis is resized thrice");
  for (std::vector<Pair>& output : pairs) {
    output.resize(static_cast<size_t>(pairs_), Pair{first_column_, 0, 0});
    for (const Pair& pair : output) {
      column_index_.push_back(pair.index - first_column_);
      for (int i = 0; i < 4; ++i) {
        column_weight_.push_back(pair.first);
        column_weight_.push_back(pair.second);
      }
    }
  }
  pair_row_.resize(static_cast<size_t>(8 * (columns_ + 1)));
  slots_.resize(static_cast<size_t>(kSlots * 3 * width_));
}

void Resampler::PlaceRows(const AxisMap& y) {
  rows_ = y.inputs();
  height_ = static_cast<int64_t>(y.outputs().size());
  for (const AxisMap::Output& output : y.outputs()) {
    blended_ = std::max<int64_t>(blended_, output.count);
  }
  constexpr int kUnit = 32767;
  for (const AxisMap::Output& output : y.outputs()) {
    const std::array<int16_t, 4> weights = RoundWeights(output, kUnit);
    for (size_t k = 0; k < static_cast<size_t>(blended_); ++k) {
      // An output of fewer rows repeats one of them, with weight 0.
      const size_t tap = k < static_cast<size_t>(output.count) ? k : 0;
      row_index_.push_back(output.count > 0 ? output.taps[tap].index : y.first_input());
      row_weight_.push_back(weights[k]);
    }
  }
}

// Row `y` of the frame, resampled along x; made unless it still is in a slot. `kept`: the rows that
// must stay in theirs.
const int16_t* Resampler::Row(const cv::Mat& frame, int y, const int32_t* kept) {
  const int64_t size = 3 * width_;
  for (int slot = 0; slot < kSlots; ++slot) {
    if (slot_rows_[static_cast<size_t>(slot)] == y) return slots_.data() + slot * size;
  }
  const auto needed = [&](int slot) {
    const int row = slot_rows_[static_cast<size_t>(slot)];
    return std::find(kept, kept + blended_, row) != kept + blended_;
  };
  while (needed(next_slot_)) next_slot_ = (next_slot_ + 1) % kSlots;
  slot_rows_[static_cast<size_t>(next_slot_)] = y;
  int16_t* row = slots_.data() + next_slot_ * size;
  next_slot_ = (next_slot_ + 1) % kSlots;
  PairRow(frame.ptr<uint8_t>(y) + 3 * first_column_, columns_, pair_row_.data());
  ResampleRow(pair_row_.data(), {column_index_.data(), column_weight_.data(), pairs_, width_}, row);
  return row;
}

void Resampler::Run(const cv::Mat& frame, PlanarImage* image) {
  image->Resize(width_, height_);
  if (columns_ == 0 || rows_ == 0) {
    std::fill(image->levels.begin(), image->levels.end(), uint8_t{0});
    return;
  }
  slot_rows_.fill(-1);
  for (int64_t i = 0; i < height_; ++i) {
    const int32_t* index = row_index_.data() + i * blended_;
    std::array<const int16_t*, 4> rows = {};
    for (int64_t k = 0; k < blended_; ++k) {
      rows[static_cast<size_t>(k)] = Row(frame, index[k], index);
    }
    BlendRows(rows.data(), row_weight_.data() + i * blended_, blended_, 3 * width_, image->row(i));
  }
}

}  // namespace kinefit
