#include "transform/resample.h"

#include <gtest/gtest.h>

#include <opencv2/imgproc.hpp>

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

}  // namespace
}  // namespace kinefit
