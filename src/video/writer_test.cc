#include "video/writer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "files/error.h"
#include "video/numbered_video.h"
#include "video/reader.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

class WriterTest : public ::testing::Test {
 protected:
  WriterTest() {
    std::string name = (fs::temp_directory_path() / "kinefit-video-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~WriterTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ / name; }

  fs::path folder_;
};

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_F(WriterTest, SameFramesSameBytes) {
  WriteNumberedVideo(Path("a.mp4"), 20);
  WriteNumberedVideo(Path("b.mp4"), 20);
  WriteNumberedVideo(Path("c.mp4"), 19);
  EXPECT_EQ(ReadAll(Path("a.mp4")), ReadAll(Path("b.mp4")));
  EXPECT_NE(ReadAll(Path("a.mp4")), ReadAll(Path("c.mp4")));
}

TEST_F(WriterTest, ColoursComeBack) {
  const std::vector<cv::Vec3b> colours = {{255, 255, 255}, {0, 0, 0},     {200, 30, 30},
                                          {30, 180, 40},   {40, 50, 210}, {128, 128, 128}};
  VideoWriter writer(Path("colours.mp4"), 48 * 6, 48, 25, 10);
  cv::Mat frame(48, 48 * 6, CV_8UC3);
  for (int i = 0; i < 6; ++i) {
    frame(cv::Rect(48 * i, 0, 48, 48))
        .setTo(cv::Scalar(colours[i][0], colours[i][1], colours[i][2]));
  }
  for (int i = 0; i < 3; ++i) writer.Write(frame);
  writer.Finish();
  const cv::Mat read = DecodeFrames(Path("colours.mp4"), {1})[0];
  for (int i = 0; i < 6; ++i) {
    for (int c = 0; c < 3; ++c) {
      EXPECT_NEAR(read.at<cv::Vec3b>(24, 48 * i + 24)[c], colours[i][c], 6) << i << " " << c;
    }
  }
}

TEST_F(WriterTest, NothingAppearsBeforeFinish) {
  {
    VideoWriter writer(Path("a.mp4"), 128, 64, 25);
    for (int i = 0; i < 30; ++i) writer.Write(NumberedFrame(i));
  }
  EXPECT_TRUE(fs::is_empty(folder_));
  WriteNumberedVideo(Path("a.mp4"), 3);
  EXPECT_TRUE(fs::exists(Path("a.mp4")));
}

TEST_F(WriterTest, RefusesWhatItCannotWrite) {
  EXPECT_THROW(VideoWriter(Path("odd.mp4"), 127, 64, 25), Error);
  EXPECT_THROW(VideoWriter(Path("none.mp4"), 0, 64, 25), Error);
  EXPECT_THROW(VideoWriter(Path("still.mp4"), 128, 64, 0), Error);
  VideoWriter writer(Path("a.mp4"), 128, 64, 25);
  EXPECT_THROW(writer.Finish(), Error);
  EXPECT_THROW(writer.Write(cv::Mat(64, 126, CV_8UC3)), Error);
  EXPECT_THROW(writer.Write(cv::Mat(64, 128, CV_8UC1)), Error);
  writer.Write(NumberedFrame(0));
  writer.Finish();
  EXPECT_THROW(writer.Write(NumberedFrame(1)), Error);

  VideoWriter nowhere(Path("no/such/folder/a.mp4"), 128, 64, 25);
  nowhere.Write(NumberedFrame(0));
  try {
    nowhere.Finish();
    FAIL() << "written into a folder that does not exist";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("no/such/folder/a.mp4"), std::string::npos);
  }
}

}  // namespace
}  // namespace kinefit
