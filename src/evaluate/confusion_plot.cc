#include "evaluate/confusion_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "files/error.h"
#include "files/png.h"

namespace kinefit {
namespace {

constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX;
constexpr int kMargin = 24;
constexpr int kGap = 10;         // between labels and cells
constexpr int kScaleWidth = 18;  // the colour scale
constexpr size_t kLongestName = 28;
constexpr int kMostCounted = 130;  // classes up to which counts are drawn
constexpr double kSmallestCount = 0.33;
const cv::Scalar kInk(40, 44, 52);
const cv::Scalar kFaint(120, 126, 136);

// Sizes that follow from the number of classes: small sets get large cells with large counts.
struct Layout {
  int classes = 0;
  int cell = 0;
  double name_scale = 0;
  double count_scale = 0;  // 0: no counts
  int left = 0;            // of the first cell
  int top = 0;
  int side() const { return classes * cell; }
};

cv::Size TextSize(const std::string& text, double scale) {
  int baseline = 0;
  return cv::getTextSize(text, kFont, scale, 1, &baseline);
}

void PutText(cv::Mat& image, const std::string& text, cv::Point origin, double scale,
             const cv::Scalar& colour) {
  cv::putText(image, text, origin, kFont, scale, colour, 1, cv::LINE_AA);
}

std::string PrintableName(const std::vector<std::string>& names, int label) {
  if (label >= static_cast<int>(names.size())) return std::to_string(label);
  const std::string& name = names[label];
  const bool ascii =
      std::all_of(name.begin(), name.end(), [](char c) { return c >= 32 && c < 127; });
  if (name.empty() || !ascii) return std::to_string(label);
  return name.size() > kLongestName ? name.substr(0, kLongestName - 2) + ".." : name;
}

// Light to dark blue, in even steps of lightness (ColorBrewer "Blues").
cv::Scalar CellColour(double share) {
  static constexpr std::array<std::array<double, 3>, 6> kStops = {{{247, 249, 252},
                                                                   {214, 228, 242},
                                                                   {158, 199, 225},
                                                                   {91, 160, 206},
                                                                   {36, 110, 176},
                                                                   {8, 48, 107}}};
  const double position = std::clamp(share, 0.0, 1.0) * (kStops.size() - 1);
  const size_t low = std::min<size_t>(static_cast<size_t>(position), kStops.size() - 2);
  const double part = position - static_cast<double>(low);
  cv::Scalar colour;
  for (int i = 0; i < 3; ++i) {
    colour[i] = kStops[low][i] + part * (kStops[low + 1][i] - kStops[low][i]);
  }
  return colour;
}

Layout MakeLayout(int classes, int64_t largest_count, const std::vector<std::string>& names) {
  Layout layout;
  layout.classes = classes;
  layout.cell = std::clamp(840 / std::max(classes, 1), 14, 56);
  const std::string widest_count = std::to_string(largest_count);
  // Counts stay legible up to NTU-120's size, at the price of a larger picture.
  if (classes <= kMostCounted) {
    layout.cell = std::max(layout.cell, TextSize(widest_count, kSmallestCount).width + 6);
  }
  layout.name_scale = std::clamp(layout.cell / 56.0, 0.38, 0.5);
  int widest = 0;
  for (int c = 0; c < classes; ++c) {
    widest = std::max(widest, TextSize(PrintableName(names, c), layout.name_scale).width);
  }
  if (classes <= kMostCounted) {
    const double fitting = (layout.cell - 6.0) / TextSize(widest_count, 1.0).width;
    layout.count_scale = std::clamp(fitting, kSmallestCount, 0.5);
  }
  layout.left = kMargin + 22 + widest + kGap;
  layout.top = kMargin + 42 + 22 + widest + kGap;
  return layout;
}

void DrawCells(const std::vector<int64_t>& matrix, const Layout& layout, cv::Mat& image) {
  for (int r = 0; r < layout.classes; ++r) {
    int64_t total = 0;
    for (int c = 0; c < layout.classes; ++c) total += matrix[r * layout.classes + c];
    for (int c = 0; c < layout.classes; ++c) {
      const int64_t count = matrix[r * layout.classes + c];
      const double share = total > 0 ? static_cast<double>(count) / static_cast<double>(total) : 0;
      const cv::Rect box(layout.left + c * layout.cell, layout.top + r * layout.cell,
                         layout.cell - 1, layout.cell - 1);
      cv::rectangle(image, box, CellColour(share), cv::FILLED);
      if (layout.count_scale == 0 || count == 0) continue;
      const std::string text = std::to_string(count);
      const cv::Size size = TextSize(text, layout.count_scale);
      PutText(image, text,
              {box.x + (box.width - size.width) / 2, box.y + (box.height + size.height) / 2},
              layout.count_scale, share > 0.45 ? cv::Scalar(255, 255, 255) : kInk);
    }
    // The row's recall, at its right end.
    const double recall =
        total > 0 ? 100.0 * matrix[r * layout.classes + r] / static_cast<double>(total) : 0;
    const std::string text = total > 0 ? std::to_string(std::lround(recall)) + "%" : "-";
    const cv::Size size = TextSize(text, layout.name_scale);
    PutText(image, text,
            {layout.left + layout.side() + kGap,
             layout.top + r * layout.cell + (layout.cell + size.height) / 2},
            layout.name_scale, kFaint);
  }
}

// `text` running upwards, its end at the bottom, centred on `x`.
void DrawUpwards(cv::Mat& image, const std::string& text, int x, int bottom, double scale,
                 const cv::Scalar& colour) {
  int baseline = 0;
  const cv::Size size = cv::getTextSize(text, kFont, scale, 1, &baseline);
  cv::Mat strip(size.height + baseline + 4, size.width + 4, CV_8UC3, cv::Scalar(255, 255, 255));
  PutText(strip, text, {1, size.height + 2}, scale, colour);
  cv::rotate(strip, strip, cv::ROTATE_90_COUNTERCLOCKWISE);
  const cv::Rect place(x - size.height / 2 - 2, bottom - strip.rows, strip.cols, strip.rows);
  if ((place & cv::Rect(0, 0, image.cols, image.rows)) == place) strip.copyTo(image(place));
}

void DrawNames(const std::vector<std::string>& names, const Layout& layout, cv::Mat& image) {
  for (int c = 0; c < layout.classes; ++c) {
    const std::string name = PrintableName(names, c);
    const cv::Size size = TextSize(name, layout.name_scale);
    PutText(image, name,
            {layout.left - kGap - size.width,
             layout.top + c * layout.cell + (layout.cell + size.height) / 2},
            layout.name_scale, kInk);
    DrawUpwards(image, name, layout.left + c * layout.cell + layout.cell / 2, layout.top - kGap,
                layout.name_scale, kInk);
  }
  const cv::Size predicted = TextSize("predicted", 0.5);
  PutText(image, "predicted", {layout.left + (layout.side() - predicted.width) / 2, kMargin + 48},
          0.5, kFaint);
  const cv::Size labelled = TextSize("label", 0.5);
  DrawUpwards(image, "label", kMargin + 6, layout.top + (layout.side() + labelled.width) / 2, 0.5,
              kFaint);
  PutText(image, "recall", {layout.left + layout.side() + kGap, layout.top - kGap},
          layout.name_scale, kFaint);
}

void DrawScale(const Layout& layout, int x, cv::Mat& image) {
  const int height = std::min(layout.side(), 240);
  for (int y = 0; y < height; ++y) {
    const double share = 1.0 - static_cast<double>(y) / std::max(height - 1, 1);
    cv::line(image, {x, layout.top + y}, {x + kScaleWidth, layout.top + y}, CellColour(share));
  }
  PutText(image, "100%", {x + kScaleWidth + 6, layout.top + 9}, 0.38, kFaint);
  PutText(image, "0%", {x + kScaleWidth + 6, layout.top + height}, 0.38, kFaint);
  DrawUpwards(image, "share of the row", x + kScaleWidth / 2,
              layout.top + height + TextSize("share of the row", 0.38).width + 14, 0.38, kFaint);
}

}  // namespace

cv::Mat DrawConfusionMatrix(const std::vector<int64_t>& matrix,
                            const std::vector<std::string>& class_names, const std::string& title) {
  const int classes = static_cast<int>(std::lround(std::sqrt(static_cast<double>(matrix.size()))));
  if (classes < 1 || static_cast<size_t>(classes) * classes != matrix.size()) {
    throw Error("a confusion matrix of " + std::to_string(matrix.size()) + " counts is not square");
  }
  // 14 pixels per class and 32768 pixels are what image viewers can be trusted with.
  if (classes > 2000) {
    throw Error(
        "a confusion matrix of " + std::to_string(classes) + " classes is too large to draw", "",
        "use the CSV file");
  }
  const Layout layout =
      MakeLayout(classes, *std::max_element(matrix.begin(), matrix.end()), class_names);
  const int scale_x = layout.left + layout.side() + kGap + 64;
  const int title_width = TextSize(title, 0.6).width;
  const int width = std::max(scale_x + kScaleWidth + 44 + kMargin, title_width + 2 * kMargin);
  // The colour scale and its caption may be taller than a small matrix.
  const int height =
      layout.top + std::max(layout.side(), std::min(layout.side(), 240) + 130) + kMargin;
  cv::Mat image(height, width, CV_8UC3, cv::Scalar(255, 255, 255));
  PutText(image, title, {kMargin, kMargin + 14}, 0.6, kInk);
  DrawCells(matrix, layout, image);
  DrawNames(class_names, layout, image);
  DrawScale(layout, scale_x, image);
  return image;
}

void WriteConfusionPng(const std::string& path, const std::vector<int64_t>& matrix,
                       const std::vector<std::string>& class_names, const std::string& title) {
  const cv::Mat drawing = DrawConfusionMatrix(matrix, class_names, title);
  Image8 image;
  image.width = drawing.cols;
  image.height = drawing.rows;
  image.channels = 3;
  image.pixels.assign(drawing.datastart, drawing.dataend);
  WritePng(path, image);
}

}  // namespace kinefit
