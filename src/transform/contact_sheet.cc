#include "transform/contact_sheet.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>
#include <utility>

#include "transform/normalize.h"
#include "transform/sample_frames.h"
#include "video/reader.h"

namespace kinefit {
namespace {

constexpr int kTile = 224;  // side of a tile
constexpr int kGap = 8;
constexpr int kSmallTile = (kTile - kGap) / 2;  // of the strip of all pose frames
constexpr int kMargin = 16;
constexpr int kLineHeight = 20;
constexpr int kMostColumns = 8;
constexpr int kLeastColumns = 4;
constexpr float kLeastScore = 1e-4F;

const cv::Scalar kPaper(250, 250, 250);
const cv::Scalar kInk(30, 30, 30);
const cv::Scalar kLeft(70, 150, 255);
const cv::Scalar kRight(255, 150, 40);
const cv::Scalar kMiddle(90, 230, 110);
const cv::Scalar kBox(255, 225, 60);
const cv::Scalar kCrop(255, 80, 200);

void Write(cv::Mat* sheet, const std::string& text, cv::Point baseline, double scale = 0.45) {
  std::string shown;  // the font knows no other letters
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80) shown += c;
    if ((static_cast<unsigned char>(c) & 0xC0) == 0xC0) shown += '?';
  }
  cv::putText(*sheet, shown, baseline, cv::FONT_HERSHEY_SIMPLEX, scale, kInk, 1, cv::LINE_AA);
}

// `text` in lines that fit, broken after semicolons and commas.
std::vector<std::string> Wrapped(const std::string& text, int width, double scale) {
  int unused = 0;
  const auto fits = [&](const std::string& line) {
    return cv::getTextSize(line, cv::FONT_HERSHEY_SIMPLEX, scale, 1, &unused).width <= width;
  };
  std::vector<std::string> lines = {""};
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find_first_of(";,", begin), text.size() - 1) + 1;
    const std::string part = text.substr(begin, end - begin);
    if (!lines.back().empty() && !fits(lines.back() + part)) lines.emplace_back("   ");
    lines.back() += part;
    begin = end;
  }
  return lines;
}

// Colours by the side of the body.
class Palette {
 public:
  explicit Palette(const DataConfig& data) : data_(data) {}

  cv::Scalar OfJoint(int64_t joint) const {
    const auto has = [joint](const std::vector<int64_t>& list) {
      return std::find(list.begin(), list.end(), joint) != list.end();
    };
    return has(data_.left_joints) ? kLeft : has(data_.right_joints) ? kRight : kMiddle;
  }
  cv::Scalar OfLimb(const std::vector<int64_t>& limb) const {
    const cv::Scalar first = OfJoint(limb[0]);
    return first == kMiddle ? OfJoint(limb[1]) : first;
  }
  // Of a heatmap's channel: joints, then limbs, as far as the configuration draws them.
  cv::Scalar OfChannel(int64_t channel, int64_t joints) const {
    if (data_.heatmap.with_joints) {
      if (channel < joints) return OfJoint(channel);
      channel -= joints;
    }
    return OfLimb(data_.limbs[static_cast<size_t>(channel)]);
  }

 private:
  const DataConfig& data_;
};

// Where pixels of one image are in a tile that shows it, shrunk or enlarged.
struct Placement {
  double scale = 1;
  double left = 0;
  double top = 0;
  cv::Point2d operator()(double x, double y) const {
    return {left + scale * (x + 0.5), top + scale * (y + 0.5)};
  }
};

cv::Point Rounded(const cv::Point2d& point) {
  // What lies far outside is only there for the line that leads to it.
  const auto limited = [](double value) { return std::clamp(value, -8192.0, 8192.0); };
  return {static_cast<int>(std::lround(limited(point.x))),
          static_cast<int>(std::lround(limited(point.y)))};
}

void DrawSkeleton(const Pose& pose, int64_t frame, const DataConfig& data, const Placement& place,
                  cv::Mat* tile) {
  const Palette palette(data);
  for (int64_t person = 0; person < pose.persons; ++person) {
    const auto first = static_cast<size_t>((person * pose.frames + frame) * pose.joints);
    const auto seen = [&](int64_t joint) {
      return joint < pose.joints && pose.score[first + static_cast<size_t>(joint)] >= kLeastScore;
    };
    const auto at = [&](int64_t joint) {
      const size_t i = first + static_cast<size_t>(joint);
      return Rounded(place(pose.xy[2 * i], pose.xy[2 * i + 1]));
    };
    for (const std::vector<int64_t>& limb : data.limbs) {
      if (!seen(limb[0]) || !seen(limb[1])) continue;
      cv::line(*tile, at(limb[0]), at(limb[1]), cv::Scalar::all(0), 3, cv::LINE_AA);
      cv::line(*tile, at(limb[0]), at(limb[1]), palette.OfLimb(limb), 2, cv::LINE_AA);
    }
    for (int64_t joint = 0; joint < pose.joints; ++joint) {
      if (!seen(joint)) continue;
      cv::circle(*tile, at(joint), 3, cv::Scalar::all(0), cv::FILLED, cv::LINE_AA);
      cv::circle(*tile, at(joint), 2, palette.OfJoint(joint), cv::FILLED, cv::LINE_AA);
    }
  }
}

// One picture in a square tile, as large as fits.
cv::Mat Fit(const cv::Mat& picture, int side, Placement* place) {
  place->scale =
      std::min(static_cast<double>(side) / picture.cols, static_cast<double>(side) / picture.rows);
  const cv::Size size(std::max(1, static_cast<int>(std::lround(picture.cols * place->scale))),
                      std::max(1, static_cast<int>(std::lround(picture.rows * place->scale))));
  const cv::Rect inside((side - size.width) / 2, (side - size.height) / 2, size.width, size.height);
  place->left = inside.x;
  place->top = inside.y;
  cv::Mat tile(side, side, CV_8UC3, cv::Scalar::all(225));
  // Enlarged pixels stay squares: they are what the network gets.
  cv::resize(picture, tile(inside), size, 0, 0,
             place->scale > 1 ? cv::INTER_NEAREST : cv::INTER_AREA);
  return tile;
}

cv::Rect2d CropInImage(const PipelineTrace& trace, int64_t resize) {
  const double x = static_cast<double>(trace.box.width) / static_cast<double>(resize);
  const double y = static_cast<double>(trace.box.height) / static_cast<double>(resize);
  return {trace.box.x + trace.crop.x * x, trace.box.y + trace.crop.y * y, trace.crop.width * x,
          trace.crop.height * y};
}

void DrawRectangle(const cv::Rect2d& box, const cv::Scalar& colour, const Placement& place,
                   cv::Mat* tile) {
  // Edges lie between pixels, and one that reaches beyond the tile is still to be seen.
  const cv::Point2d from(place.left + place.scale * box.x, place.top + place.scale * box.y);
  const cv::Point2d to = from + cv::Point2d(place.scale * box.width, place.scale * box.height);
  const auto inside = [&](cv::Point2d point) {
    return cv::Point(static_cast<int>(std::clamp(point.x, 0.0, tile->cols - 1.0)),
                     static_cast<int>(std::clamp(point.y, 0.0, tile->rows - 1.0)));
  };
  cv::rectangle(*tile, inside(from), inside(to), colour, 1);
}

class Sheet {
 public:
  Sheet(const Sample& sample, const Config& config, const ClipTensors& tensors,
        const PipelineTrace& trace)
      : sample_(sample),
        config_(config),
        data_(config.data),
        tensors_(tensors),
        trace_(trace),
        normalizer_(config.data.mean, config.data.std) {
    const int64_t length = config.model.has_rgb() ? data_.rgb_frames : data_.pose_frames;
    columns_ = static_cast<int>(std::min<int64_t>(length, kMostColumns));
    for (int column = 0; column < columns_; ++column) {
      places_.push_back(columns_ == 1 ? 0 : column * (length - 1) / (columns_ - 1));
    }
    const int shown = std::max(columns_, kLeastColumns);
    width_ = 2 * kMargin + shown * kTile + (shown - 1) * kGap;
  }

  cv::Mat Draw(const std::vector<std::string>& lines) {
    DecodeShown();
    std::vector<std::pair<std::string, double>> written;
    for (size_t i = 0; i < lines.size(); ++i) {
      const double scale = i == 0 ? 0.6 : 0.45;
      for (const std::string& line : Wrapped(lines[i], width_ - 2 * kMargin, scale)) {
        written.emplace_back(line, scale);
      }
    }
    sheet_ = cv::Mat(HeightOf(written.size()), width_, CV_8UC3, kPaper);
    y_ = kMargin;
    for (const auto& [line, scale] : written) {
      Write(&sheet_, line, {kMargin, y_ + 14}, scale);
      y_ += scale > 0.5 ? kLineHeight + 6 : kLineHeight;
    }
    for (int64_t clip = 0; clip < trace_.clips; ++clip) DrawClip(clip);
    return sheet_(cv::Rect(0, 0, width_, y_ + kMargin - kGap));
  }

 private:
  bool has_rgb() const { return config_.model.has_rgb(); }
  bool has_pose() const { return config_.model.has_pose(); }
  // Frames of the stream that gives the columns.
  const std::vector<int64_t>& Frames() const {
    return has_rgb() ? trace_.rgb_frames : trace_.pose_frames;
  }
  int64_t Length() const { return has_rgb() ? data_.rgb_frames : data_.pose_frames; }

  int StripColumns() const { return (width_ - 2 * kMargin + kGap) / (kSmallTile + kGap); }
  int HeightOf(size_t lines) const {
    const int strip =
        has_pose() ? static_cast<int>((data_.pose_frames + StripColumns() - 1) / StripColumns()) *
                             (kSmallTile + kLineHeight) +
                         2 * kLineHeight
                   : 0;
    const int clip = 4 * (kTile + 2 * kLineHeight + kGap) + strip + kLineHeight;
    return 2 * kMargin + kLineHeight * static_cast<int>(lines + 1) +
           static_cast<int>(trace_.clips) * clip;
  }

  // The frame of the clip, as its annotation counts them, that the pose's frame is of.
  int64_t NumberOf(int64_t frame) const {
    return sample_.frame_numbers.empty() ? frame
                                         : sample_.frame_numbers[static_cast<size_t>(frame)];
  }

  void DecodeShown() {
    if (sample_.video.empty()) return;
    std::vector<int64_t> numbers;
    for (int64_t clip = 0; clip < trace_.clips; ++clip) {
      for (const int64_t place : places_) {
        numbers.push_back(Frames()[static_cast<size_t>(clip * Length() + place)]);
      }
    }
    for (int64_t& number : numbers) number = sample_.first_frame + NumberOf(number);
    frames_ = DecodeFrames(sample_.video, numbers);
  }

  void Heading(const std::string& text) {
    y_ += 4;
    Write(&sheet_, text, {kMargin, y_ + 14});
    y_ += kLineHeight;
  }

  // A row of tiles with a caption below each.
  void Row(const std::vector<cv::Mat>& tiles, const std::vector<std::string>& captions) {
    const int side = tiles.front().cols;
    const int columns = side == kTile ? columns_ : StripColumns();
    for (size_t i = 0; i < tiles.size(); ++i) {
      const int column = static_cast<int>(i) % columns;
      if (i > 0 && column == 0) y_ += side + kLineHeight;
      const int x = kMargin + column * (side + kGap);
      tiles[i].copyTo(sheet_(cv::Rect(x, y_, side, side)));
      Write(&sheet_, captions[i], {x, y_ + side + 13}, 0.4);
    }
    y_ += side + kLineHeight + kGap;
  }

  void DrawClip(int64_t clip) {
    const std::string of = trace_.clips == 1 ? ""
                                             : "Clip " + std::to_string(clip + 1) + " of " +
                                                   std::to_string(trace_.clips) + ". ";
    DrawAnnotated(clip, of);
    if (has_rgb()) DrawRgb(clip);
    if (has_pose()) DrawHeatmaps(clip);
  }

  // The picture and, where it reaches beyond, the box around the people.
  cv::Rect ShownPart(const cv::Size& picture, double scale) const {
    const cv::Rect whole({0, 0}, picture);
    if (!data_.compact) return whole;
    const cv::Rect box(static_cast<int>(trace_.box.x * scale),
                       static_cast<int>(trace_.box.y * scale),
                       static_cast<int>(trace_.box.width * scale) + 1,
                       static_cast<int>(trace_.box.height * scale) + 1);
    // A stray joint must not shrink the picture to a dot.
    const cv::Rect near(-picture.width, -picture.height, 3 * picture.width, 3 * picture.height);
    return whole | (box & near);
  }

  static cv::Mat Padded(const cv::Mat& picture, const cv::Rect& shown) {
    const cv::Rect whole({0, 0}, picture.size());
    if (shown == whole) return picture;
    cv::Mat padded(shown.size(), CV_8UC3, cv::Scalar::all(205));
    picture.copyTo(padded(whole - shown.tl()));
    return padded;
  }

  void DrawAnnotated(int64_t clip, const std::string& of) {
    std::string text = of + "As annotated";
    if (data_.compact) text += "; yellow: the box around the people";
    if (trace_.augmented) text += "; pink: what the crop keeps";
    Heading(text);
    std::vector<cv::Mat> tiles;
    std::vector<std::string> captions;
    for (int column = 0; column < columns_; ++column) {
      const size_t i = static_cast<size_t>(clip * columns_ + column);
      const int64_t frame = Frames()[static_cast<size_t>(clip * Length() + places_[column])];
      const cv::Size size(static_cast<int>(sample_.width), static_cast<int>(sample_.height));
      const cv::Mat picture =
          frames_.empty() ? cv::Mat(size, CV_8UC3, cv::Scalar::all(0)) : frames_[i];
      // The box is in pixels of the video where one was read, joints in those of the annotation.
      const double of_box = static_cast<double>(picture.cols) / trace_.image.width;
      const double of_joint =
          static_cast<double>(picture.cols) / static_cast<double>(sample_.width);
      const cv::Rect shown = ShownPart(picture.size(), of_box);
      Placement place;
      cv::Mat tile = Fit(Padded(picture, shown), kTile, &place);
      place.left -= place.scale * shown.x;
      place.top -= place.scale * shown.y;
      Placement box_place = place;
      box_place.scale *= of_box;
      Placement joint_place = place;
      joint_place.scale *= of_joint;
      if (data_.compact) DrawRectangle(trace_.box, kBox, box_place, &tile);
      if (trace_.augmented)
        DrawRectangle(CropInImage(trace_, data_.resize), kCrop, box_place, &tile);
      DrawSkeleton(SelectFrames(sample_.pose, {frame}), 0, data_, joint_place, &tile);
      tiles.push_back(tile);
      captions.push_back("frame " + std::to_string(NumberOf(frame)));
    }
    Row(tiles, captions);
  }

  // The RGB input at place `t` of a clip, back from the tensor.
  cv::Mat Picture(int64_t clip, int64_t t) const {
    const std::vector<int64_t>& shape = tensors_.imgs_shape;
    const cv::Size size(static_cast<int>(shape[4]), static_cast<int>(shape[3]));
    const int64_t plane = shape[3] * shape[4];
    const int64_t stride = shape[2] * plane;
    return normalizer_.Read(tensors_.imgs.data() + clip * 3 * stride + t * plane, stride, size);
  }

  void DrawRgb(int64_t clip) {
    const std::vector<int64_t>& shape = tensors_.imgs_shape;
    const std::string size = std::to_string(shape[4]) + "x" + std::to_string(shape[3]);
    std::vector<cv::Mat> plain;
    std::vector<cv::Mat> drawn;
    std::vector<std::string> captions;
    for (int column = 0; column < columns_; ++column) {
      const int64_t t = places_[static_cast<size_t>(column)];
      Placement place;
      plain.push_back(Fit(Picture(clip, t), kTile, &place));
      drawn.push_back(plain.back().clone());
      DrawSkeleton(trace_.rgb_pose, clip * Length() + t, data_, place, &drawn.back());
      captions.push_back("input " + std::to_string(t) + " of " + std::to_string(Length()));
    }
    Heading("What the RGB stream sees, " + size + (trace_.augmented ? ", augmented" : ""));
    Row(plain, captions);
    Heading("The same with the joints moved along");
    Row(drawn, captions);
  }

  // The heatmaps at place `t` of a clip as one picture: each channel in its colour, the brightest
  // of each colour counts.
  cv::Mat Heat(int64_t clip, int64_t t, int side) const {
    const std::vector<int64_t>& shape = tensors_.heatmaps_shape;
    const int64_t plane = shape[3] * shape[4];
    const Palette palette(data_);
    cv::Mat heat(static_cast<int>(shape[3]), static_cast<int>(shape[4]), CV_8UC3,
                 cv::Scalar::all(0));
    for (int64_t channel = 0; channel < shape[1]; ++channel) {
      const cv::Scalar colour = palette.OfChannel(channel, sample_.pose.joints);
      const float* values =
          tensors_.heatmaps.data() + ((clip * shape[1] + channel) * shape[2] + t) * plane;
      for (int64_t i = 0; i < plane; ++i) {
        if (values[i] <= 0) continue;
        uint8_t* pixel = heat.data + 3 * i;
        for (int c = 0; c < 3; ++c) {
          const double level = std::min<double>(values[i], 1) * colour[c];
          pixel[c] = std::max(pixel[c], static_cast<uint8_t>(level));
        }
      }
    }
    Placement unused;
    return Fit(heat, side, &unused);
  }

  void DrawHeatmaps(int64_t clip) {
    const std::vector<int64_t>& shape = tensors_.heatmaps_shape;
    const std::string size = std::to_string(shape[4]) + "x" + std::to_string(shape[3]);
    const auto begin = trace_.pose_frames.begin() + clip * data_.pose_frames;
    const auto end = begin + data_.pose_frames;
    std::vector<cv::Mat> tiles;
    std::vector<std::string> captions;
    for (int column = 0; column < columns_; ++column) {
      const int64_t frame =
          Frames()[static_cast<size_t>(clip * Length() + places_[static_cast<size_t>(column)])];
      const auto nearest = std::min_element(begin, end, [frame](int64_t a, int64_t b) {
        return std::abs(a - frame) < std::abs(b - frame);
      });
      const int64_t t = nearest - begin;
      tiles.push_back(Heat(clip, t, kTile));
      captions.push_back("input " + std::to_string(t) + ", frame " +
                         std::to_string(NumberOf(*nearest)));
    }
    Heading("What the pose stream sees nearest to it, " + std::to_string(shape[1]) +
            " channels of " + size + "; blue: the person's left, orange: right");
    Row(tiles, captions);
    tiles.clear();
    captions.clear();
    for (int64_t t = 0; t < data_.pose_frames; ++t) {
      tiles.push_back(Heat(clip, t, kSmallTile));
      captions.push_back(std::to_string(t) + ": frame " + std::to_string(NumberOf(begin[t])));
    }
    Heading("All " + std::to_string(data_.pose_frames) + " inputs of the pose stream");
    Row(tiles, captions);
  }

  const Sample& sample_;
  const Config& config_;
  const DataConfig& data_;
  const ClipTensors& tensors_;
  const PipelineTrace& trace_;
  Normalizer normalizer_;
  int columns_ = 1;
  int width_ = 0;
  std::vector<int64_t> places_;  // [columns] of the stream that gives the columns
  std::vector<cv::Mat> frames_;  // [clips * columns] of the video; empty without one
  cv::Mat sheet_;
  int y_ = 0;
};

}  // namespace

cv::Mat DrawContactSheet(const Sample& sample, const Config& config, const ClipTensors& tensors,
                         const PipelineTrace& trace, const std::vector<std::string>& lines) {
  return Sheet(sample, config, tensors, trace).Draw(lines);
}

}  // namespace kinefit
