#include "transform/resample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <opencv2/imgproc.hpp>
#include <vector>

#include "random/stream.h"
#include "transform/compact.h"
#include "transform/flip.h"
#include "transform/resize.h"

namespace kinefit {
namespace {

cv::Mat NoiseFrame(cv::Size size, RandomStream& random) {
  cv::Mat frame(size, CV_8UC3);
  for (size_t i = 0; i < frame.total() * 3; ++i) frame.data[i] = random.Bits() & 255;
  return frame;
}

// The chain of a training frame in one pass against its single steps.
void ExpectSameAsSteps(const cv::Mat& frame, const cv::Rect& box, int first, const cv::Rect& crop,
                       cv::Size last, bool mirror) {
  cv::Mat expected = ResizeFrame(CropPadded(frame, box), {first, first});
  expected = ResizeFrame(expected(crop), last);
  if (mirror) expected = FlipFrame(expected);

  AxisMap x(box.x, box.width);
  x.Resize(first);
  x.Crop(crop.x, crop.width);
  x.Resize(last.width);
  if (mirror) x.Mirror();
  x.Clip(frame.cols);
  AxisMap y(box.y, box.height);
  y.Resize(first);
  y.Crop(crop.y, crop.height);
  y.Resize(last.height);
  y.Clip(frame.rows);
  PlanarImage image;
  Resampler resampler(x, y);
  resampler.Run(frame, &image);
  resampler.Run(frame, &image);  // nothing is left over from an earlier frame
  EXPECT_LE(cv::norm(image.ToFrame(), expected, cv::NORM_INF), 1)
      << frame.size() << " " << box << " " << first << " " << crop << " " << last;
}

TEST(ResamplerTest, ChainsEqualTheirSteps) {
  RandomStream random(3, "test");
  for (int i = 0; i < 150; ++i) {
    const cv::Size size(static_cast<int>(random.Integer(1, 200)),
                        static_cast<int>(random.Integer(1, 200)));
    // Boxes inside, across the border, around and beyond the frame.
    const cv::Rect box(
        static_cast<int>(random.Integer(-150, 150)), static_cast<int>(random.Integer(-150, 150)),
        static_cast<int>(random.Integer(1, 300)), static_cast<int>(random.Integer(1, 300)));
    const int first = static_cast<int>(random.Integer(8, 130));
    const cv::Size crop(static_cast<int>(random.Integer(1, first + 1)),
                        static_cast<int>(random.Integer(1, first + 1)));
    const cv::Point at(static_cast<int>(random.Integer(0, first - crop.width + 1)),
                       static_cast<int>(random.Integer(0, first - crop.height + 1)));
    const cv::Size last(static_cast<int>(random.Integer(8, 130)),
                        static_cast<int>(random.Integer(8, 130)));
    ExpectSameAsSteps(NoiseFrame(size, random), box, first, {at, crop}, last, i % 2 == 0);
  }
}

TEST(ResamplerTest, EqualLevelsStayEqual) {
  for (const int level : {0, 1, 127, 128, 254, 255}) {
    const cv::Mat frame(61, 83, CV_8UC3, cv::Scalar::all(level));
    AxisMap x(3, 70);
    x.Resize(96);
    x.Crop(5, 77);
    x.Resize(64);
    x.Clip(83);
    AxisMap y(0, 61);
    y.Resize(50);
    y.Clip(61);
    PlanarImage image;
    Resampler(x, y).Run(frame, &image);
    EXPECT_EQ(
        cv::norm(image.ToFrame(), cv::Mat(50, 64, CV_8UC3, cv::Scalar::all(level)), cv::NORM_INF),
        0)
        << level;
  }
}

// Every colour, for some turns: OpenCV's way through 8-bit HSV.
TEST(PixelRowsTest, TurningTheHueEqualsOpenCv) {
  for (const int turn : {0, 1, 90, 179}) {
    for (int red = turn % 2; red < 256; red += 3) {
      cv::Mat frame(256, 256, CV_8UC3);
      for (int i = 0; i < 256 * 256; ++i) {
        frame.at<cv::Vec3b>(i / 256, i % 256) =
            cv::Vec3b(static_cast<uint8_t>(red), static_cast<uint8_t>(i / 256),
                      static_cast<uint8_t>(i % 256));
      }
      PlanarImage image = PlanarImage::Of(frame);
      for (int y = 0; y < 256; ++y) TransformColorRow(nullptr, turn, nullptr, 256, image.row(y));
      cv::Mat hsv;
      cv::cvtColor(frame, hsv, cv::COLOR_RGB2HSV);
      for (int i = 0; i < 256 * 256; ++i) {
        uint8_t& hue = hsv.at<cv::Vec3b>(i / 256, i % 256)[0];
        hue = static_cast<uint8_t>((hue + turn) % 180);
      }
      cv::Mat expected;
      cv::cvtColor(hsv, expected, cv::COLOR_HSV2RGB);
      ASSERT_LE(cv::norm(image.ToFrame(), expected, cv::NORM_INF), 1) << red << " " << turn;
    }
  }
}

// Of brightness, contrast and saturation with factors up to `most`, as jitter joins them.
ColorMatrix RandomMatrix(double most, RandomStream& random) {
  const double gain = random.Uniform(0, most) * random.Uniform(0, most);
  const double saturation = random.Uniform(0, most);
  const double gray[] = {0.2989, 0.587, 0.114};
  ColorMatrix color = {};
  for (size_t k = 0; k < 9; ++k) {
    color.matrix[k] =
        static_cast<float>(gain * ((k % 4 == 0 ? saturation : 0) + (1 - saturation) * gray[k % 3]));
  }
  color.offset.fill(static_cast<float>(random.Uniform(-most, most) * 100));
  return color;
}

TEST(PixelRowsTest, MatricesIn16BitsEqualExactOnes) {
  RandomStream random(4, "test");
  int64_t different = 0;
  int64_t all = 0;
  for (int i = 0; i < 400; ++i) {
    const double most = i % 2 == 0 ? 1.5 : 2;
    const ColorMatrix color = RandomMatrix(most, random);
    const FixedColorMatrix fixed(color);
    PlanarImage image = PlanarImage::Of(NoiseFrame({1 + i, 1}, random));
    const PlanarImage before = image;
    TransformColorRow(nullptr, kNoTurn, &fixed, image.width, image.row(0));
    for (int64_t x = 0; x < image.width; ++x) {
      for (size_t c = 0; c < 3; ++c) {
        double value = color.offset[c];
        for (size_t k = 0; k < 3; ++k) {
          value += static_cast<double>(color.matrix[3 * c + k]) *
                   before.levels[k * static_cast<size_t>(image.width) + static_cast<size_t>(x)];
        }
        const int level = static_cast<int>(std::clamp(value, 0.0, 255.0));
        const int made =
            image.levels[c * static_cast<size_t>(image.width) + static_cast<size_t>(x)];
        ASSERT_LE(std::abs(made - level), 1) << i << " " << x << " " << value;
        different += made != level ? 1 : 0;
        ++all;
      }
    }
  }
  EXPECT_LT(different, all / 12);
}

// What is left over at the end of a row goes another way than what fills whole vectors.
TEST(PixelRowsTest, EachPixelIsChangedAlikeWhereverItIs) {
  RandomStream random(5, "test");
  const ColorMatrix before = RandomMatrix(1.5, random);
  const FixedColorMatrix after(RandomMatrix(1.5, random));
  PlanarImage row = PlanarImage::Of(NoiseFrame({531, 1}, random));
  const cv::Mat pixels = row.ToFrame();
  TransformColorRow(&before, 17, &after, row.width, row.row(0));
  const cv::Mat changed = row.ToFrame();
  for (int x = 0; x < pixels.cols; ++x) {
    PlanarImage one = PlanarImage::Of(pixels.col(x).clone());
    TransformColorRow(&before, 17, &after, 1, one.row(0));
    ASSERT_EQ(one.ToFrame().at<cv::Vec3b>(0), changed.at<cv::Vec3b>(x)) << x;
  }
}

TEST(PixelRowsTest, SumsRowsOfAnyLength) {
  std::vector<uint8_t> values(100, 255);
  for (int64_t n = 0; n <= 100; ++n) EXPECT_EQ(SumRow(values.data(), n), 255 * n);
}

}  // namespace
}  // namespace kinefit
