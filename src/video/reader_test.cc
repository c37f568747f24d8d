#include "video/reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <thread>

#include "files/error.h"
#include "video/numbered_video.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

class ReaderTest : public ::testing::Test {
 protected:
  ReaderTest() {
    std::string name = (fs::temp_directory_path() / "kinefit-video-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~ReaderTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ / name; }

  std::string Numbered(const std::string& name, int frames) const {
    WriteNumberedVideo(Path(name), frames);
    return Path(name);
  }

  // Runs the ffmpeg program in the folder; the formats that VideoWriter cannot make come from it.
  void Ffmpeg(const std::string& arguments) const {
    const std::string command =
        "cd '" + folder_.string() + "' && ffmpeg -v error -nostdin -y " + arguments;
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }

  fs::path folder_;
};

#define SKIP_WITHOUT_FFMPEG()                                                         \
  if (std::system("command -v ffmpeg >/dev/null 2>&1") != 0) {                        \
    GTEST_SKIP() << "the ffmpeg program, which makes this test's files, is not here"; \
  }

std::vector<int64_t> UpTo(int64_t n) {
  std::vector<int64_t> numbers(n);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

std::vector<int> AsInts(const std::vector<int64_t>& numbers) {
  return {numbers.begin(), numbers.end()};
}

void ExpectAllNumbersExact(const std::string& path, int64_t frames) {
  EXPECT_EQ(ProbeVideo(path).frames, frames) << path;
  EXPECT_EQ(ReadNumbers(DecodeFrames(path, UpTo(frames))), AsInts(UpTo(frames))) << path;
}

// Runs `action`, which must throw an Error whose text has every one of `parts`.
template <typename Action>
void ExpectError(Action action, const std::vector<std::string>& parts) {
  try {
    action();
    FAIL() << "no error; expected one with: " << parts.front();
  } catch (const Error& error) {
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "no '" << part << "' in: " << error.what();
    }
  }
}

void Overwrite(const std::string& path, int64_t offset, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(offset);
  file << bytes;
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_F(ReaderTest, NumbersAreExactInAnyOrderWithRepeats) {
  const std::string path = Numbered("a.mp4", 40);
  const std::vector<int64_t> wanted = {39, 0, 17, 17, 5, 38, 0, 1};
  const auto frames = DecodeFrames(path, wanted);
  EXPECT_EQ(ReadNumbers(frames), AsInts(wanted));
  EXPECT_EQ(frames[2].data, frames[3].data);
  EXPECT_EQ(frames[0].type(), CV_8UC3);
  EXPECT_TRUE(frames[0].isContinuous());
  EXPECT_TRUE(DecodeFrames(path, {}).empty());
  ExpectAllNumbersExact(path, 40);
}

TEST_F(ReaderTest, ProbeTellsFramesSizeAndRate) {
  WriteNumberedVideo(Path("a.mp4"), 31, 12.5);
  const VideoInfo info = ProbeVideo(Path("a.mp4"));
  EXPECT_EQ(info.frames, 31);
  EXPECT_EQ(info.width, 128);
  EXPECT_EQ(info.height, 64);
  EXPECT_NEAR(info.fps, 12.5, 0.01);
}

TEST_F(ReaderTest, SingleFrameVideo) { ExpectAllNumbersExact(Numbered("one.mp4", 1), 1); }

TEST_F(ReaderTest, OtherContainersAndCodecs) {
  SKIP_WITHOUT_FFMPEG();
  Numbered("a.mp4", 37);
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {"xvid.avi", "-c:v mpeg4 -bf 2 -q:v 3 -vtag xvid"},
      {"pyramid.mkv", "-c:v libx264 -bf 6 -b_strategy 2 -x264-params b-pyramid=normal:ref=5"},
      {"stream.ts", "-c:v libx264 -bf 3"},
      {"bare.h264", "-c:v libx264 -bf 3"},
      {"mpeg.mpg", "-c:v mpeg2video -bf 2 -q:v 3"},
      {"motion.avi", "-c:v mjpeg -q:v 3"},
      {"bgr.mkv", "-c:v ffv1 -pix_fmt bgr0"},
      {"wide.mp4", "-c:v libx264 -pix_fmt yuv444p10le"},
      {"open.mp4", "-c:v libx264 -g 8 -x264-params open-gop=1:bframes=3"},
      {"fragments.mp4", "-c:v libx264 -movflags frag_keyframe+empty_moov"},
  };
  for (const auto& [name, options] : kinds) {
    Ffmpeg("-i a.mp4 -fps_mode passthrough " + options + " " + name);
    ExpectAllNumbersExact(Path(name), 37);
  }
}

// Frames of all kinds of groups, picked out and from the start: the same pixels.
TEST_F(ReaderTest, PickedFramesAreThoseOfSequentialDecoding) {
  SKIP_WITHOUT_FFMPEG();
  const std::vector<std::string> kinds = {
      "-g 1",
      "-g 12 -bf 0",
      "-g 8 -bf 3 -x264-params b-pyramid=normal:ref=4:scenecut=0",
      "-g 25 -bf 5 -x264-params b-pyramid=strict:open-gop=1:scenecut=0",
      "-g 250 -bf 2 -x264-params b-pyramid=none:intra-refresh=1",
      "-g 10 -bf 3 -flags +ildct+ilme -x264-params interlaced=1",
      "-g 9 -bf 3 -x264-params slices=3",
      "-g 6 -bsf:v dump_extra"};
  for (const std::string& options : kinds) {
    Ffmpeg("-f lavfi -i testsrc2=s=96x64:r=25:d=2.4 -pix_fmt yuv420p -c:v libx264 " + options +
           " kinds.mp4");
    const std::string path = Path("kinds.mp4");
    const std::vector<cv::Mat> all = DecodeFramesFromStart(path, UpTo(60));
    std::mt19937 random(7);
    for (int i = 0; i < 12; ++i) {
      std::vector<int64_t> wanted;
      for (int k = 0; k <= i % 5; ++k) wanted.push_back(random() % 60);
      const std::vector<cv::Mat> picked = DecodeFrames(path, wanted, 60);
      for (size_t k = 0; k < wanted.size(); ++k) {
        EXPECT_EQ(cv::norm(picked[k], all[static_cast<size_t>(wanted[k])], cv::NORM_INF), 0)
            << options << ", frame " << wanted[k];
      }
    }
    ExpectError([&] { DecodeFrames(path, {3, 1}, 61); }, {"only 60 frames", "frame 60"});
  }
}

// A group that holds no wanted frame is not even looked at.
TEST_F(ReaderTest, OnlyWhatIsNeededIsDecoded) {
  const std::string path = Numbered("a.mp4", 40);  // key frames at 0, 12, 24, 36
  std::string bytes = ReadAll(path);
  const int64_t end = static_cast<int64_t>(bytes.find("moov"));
  // The pictures of 40 frames follow one another; the second quarter is in frames 1 to 23.
  Overwrite(path, end * 3 / 8, std::string(8, '\x55'));
  EXPECT_EQ(ReadNumbers(DecodeFrames(path, {30, 39, 25})), (std::vector<int>{30, 39, 25}));
  ExpectError([&] { DecodeFramesFromStart(path, {30, 39, 25}); }, {"a.mp4, frame "});
}

TEST_F(ReaderTest, TimeStampsAreNotBelieved) {
  SKIP_WITHOUT_FFMPEG();
  Numbered("a.mp4", 30);
  Ffmpeg(
      "-i a.mp4 -fps_mode passthrough -enc_time_base 1:1000 "
      "-vf \"setpts='(N+if(gt(N,9),100)+mod(N,3)*0.3)/TB/25'\" -c:v libx264 gaps.mp4");
  ExpectAllNumbersExact(Path("gaps.mp4"), 30);
  Ffmpeg("-r 1000 -i a.mp4 -c copy -fps_mode passthrough fast.mp4");
  ExpectAllNumbersExact(Path("fast.mp4"), 30);
}

TEST_F(ReaderTest, EditListHidesFramesAsInPlayers) {
  SKIP_WITHOUT_FFMPEG();
  Numbered("a.mp4", 40);                       // key frames at 0, 12, 24, 36
  Ffmpeg("-ss 0.6 -i a.mp4 -c copy cut.mp4");  // frame 15 on; 12 to 14 are there, but hidden
  Ffmpeg("-i cut.mp4 -fps_mode passthrough -f rawvideo -pix_fmt rgb24 cut.raw");
  const int64_t shown = static_cast<int64_t>(fs::file_size(Path("cut.raw"))) / (128 * 64 * 3);
  EXPECT_EQ(ProbeVideo(Path("cut.mp4")).frames, shown);
  const auto frames = DecodeFrames(Path("cut.mp4"), UpTo(shown));
  EXPECT_EQ(ReadNumber(frames.front()), 15);
  EXPECT_EQ(ReadNumber(frames.back()), 39);
}

TEST_F(ReaderTest, RotationIsApplied) {
  SKIP_WITHOUT_FFMPEG();
  Numbered("a.mp4", 20);
  for (const std::string angle : {"90", "180", "270"}) {
    Ffmpeg("-i a.mp4 -c copy -metadata:s:v:0 rotate=" + angle + " turned.mp4");
    Ffmpeg("-i turned.mp4 -frames:v 1 -pix_fmt rgb24 -f rawvideo players.raw");
    const VideoInfo info = ProbeVideo(Path("turned.mp4"));
    EXPECT_EQ(info.width, angle == "180" ? 128 : 64) << angle;
    EXPECT_EQ(info.height, angle == "180" ? 64 : 128) << angle;
    const cv::Mat frame = DecodeFrames(Path("turned.mp4"), {0})[0];
    ASSERT_EQ(frame.cols, info.width);
    ASSERT_EQ(frame.rows, info.height);
    std::string expected = ReadAll(Path("players.raw"));
    ASSERT_EQ(expected.size(), frame.total() * 3);
    const cv::Mat players(frame.rows, frame.cols, CV_8UC3, expected.data());
    // Turned after the conversion to RGB here, before it there: colours at edges differ a little.
    const double mean_difference = cv::norm(frame, players, cv::NORM_L1) / (frame.total() * 3);
    EXPECT_LT(mean_difference, 1.0) << angle;
  }
}

TEST_F(ReaderTest, OddSizesKeepTheirLastColumnAndRow) {
  SKIP_WITHOUT_FFMPEG();
  Numbered("a.mp4", 12);
  for (const std::string size : {"101:75", "33:31", "322:240", "7:5"}) {
    Ffmpeg("-i a.mp4 -vf scale=" + size + ":flags=area -c:v ffv1 -pix_fmt yuv420p odd.mkv");
    Ffmpeg("-i odd.mkv -frames:v 1 -sws_flags bilinear -pix_fmt rgb24 -f rawvideo odd.raw");
    const VideoInfo info = ProbeVideo(Path("odd.mkv"));
    EXPECT_EQ(info.frames, 12);
    const cv::Mat frame = DecodeFrames(Path("odd.mkv"), {0})[0];
    EXPECT_EQ(std::to_string(frame.cols) + ":" + std::to_string(frame.rows), size);
    std::string expected = ReadAll(Path("odd.raw"));
    ASSERT_EQ(expected.size(), frame.total() * 3);
    const cv::Mat reference(frame.rows, frame.cols, CV_8UC3, expected.data());
    EXPECT_LE(cv::norm(frame, reference, cv::NORM_INF), 4) << size;
  }
}

TEST_F(ReaderTest, DeclaredColourMatrixAndRangeAreUsed) {
  SKIP_WITHOUT_FFMPEG();
  const std::vector<std::string> kinds = {
      "-vf scale=out_color_matrix=bt709:out_range=tv -colorspace bt709 -color_range tv",
      "-vf scale=out_color_matrix=bt601:out_range=pc -colorspace smpte170m -color_range pc",
      "-vf scale=out_color_matrix=bt601:out_range=tv"};
  for (const std::string& options : kinds) {
    Ffmpeg("-f lavfi -i color=0xC83214:s=64x64:d=0.2 " + options +
           " -c:v libx264 -crf 1 -pix_fmt yuv420p colour.mp4");
    const cv::Mat frame = DecodeFrames(Path("colour.mp4"), {2})[0];
    const cv::Vec3b pixel = frame.at<cv::Vec3b>(32, 32);
    EXPECT_NEAR(pixel[0], 0xC8, 4) << options;
    EXPECT_NEAR(pixel[1], 0x32, 4) << options;
    EXPECT_NEAR(pixel[2], 0x14, 4) << options;
  }
}

TEST_F(ReaderTest, ManyThreadsAtOnce) {
  const std::string path = Numbered("a.mp4", 25);
  std::vector<std::vector<int>> found(4);
  std::vector<std::thread> threads;
  for (auto& numbers : found) {
    threads.emplace_back([&] { numbers = ReadNumbers(DecodeFrames(path, {24, 3, 11})); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& numbers : found) EXPECT_EQ(numbers, (std::vector<int>{24, 3, 11}));
}

TEST_F(ReaderTest, FrameThatDoesNotExist) {
  const std::string path = Numbered("short.mp4", 24);
  ExpectError(
      [&] {
        DecodeFrames(path, {3, 30});
      },
      {"video has only 24 frames", "short.mp4, frame 30", "total_frames"});
  ExpectError([&] { DecodeFrames(path, {2, -1}); }, {"start at 0", "frame -1"});
}

TEST_F(ReaderTest, WhatIsNotAVideoFile) {
  for (const bool probe : {false, true}) {
    const auto read = [&](const std::string& path) {
      return [=] { probe ? (void)ProbeVideo(path) : (void)DecodeFrames(path, {0}); };
    };
    ExpectError(read(Path("none.mp4")), {"video file not found", "none.mp4"});
    ExpectError(read(folder_.string()), {"a folder stands where a video file", folder_.string()});
    std::ofstream(Path("empty.mp4")).flush();
    ExpectError(read(Path("empty.mp4")), {"empty (0 bytes)", "empty.mp4"});
    std::ofstream(Path("text.mp4")) << "dear diary,\ntoday I was renamed to a video\n";
    ExpectError(read(Path("text.mp4")), {"not a video", "text.mp4"});
    ExpectError(read("/dev/null"), {"not a regular file", "/dev/null"});
    ExpectError(read("http://localhost/a.mp4"), {"video file not found"});
  }
}

TEST_F(ReaderTest, PlaylistsCannotOpenOtherFiles) {
  Numbered("secret.mp4", 5);
  std::ofstream(Path("list.mp4")) << "ffconcat version 1.0\nfile secret.mp4\n";
  ExpectError([&] { DecodeFrames(Path("list.mp4"), {0}); }, {"list.mp4"});
  std::ofstream(Path("list2.mp4")) << "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n"
                                   << "#EXT-X-ENDLIST\n";
  ExpectError([&] { DecodeFrames(Path("list2.mp4"), {0}); }, {"list2.mp4"});
}

TEST_F(ReaderTest, AbsurdPictureSize) {
  std::ofstream(Path("huge.y4m")) << "YUV4MPEG2 W20000 H20 F25:1 Ip A1:1 C420jpeg\nFRAME\n"
                                  << std::string(20000 * 20 * 3 / 2, 'x');
  ExpectError([&] { DecodeFrames(Path("huge.y4m"), {0}); },
              {"absurd picture size of 20000x20", "huge.y4m"});
}

TEST_F(ReaderTest, FileWithoutVideoStream) {
  SKIP_WITHOUT_FFMPEG();
  Ffmpeg("-f lavfi -i sine=duration=0.5 -c:a aac sound.mp4");
  ExpectError([&] { DecodeFrames(Path("sound.mp4"), {0}); }, {"no video stream", "sound.mp4"});
  Ffmpeg(
      "-f lavfi -i sine=duration=0.5 -f lavfi -i color=red:s=32x32:d=0.04 -c:v mjpeg "
      "-frames:v 1 -disposition:v attached_pic -c:a aac -f mp4 cover.mp4");
  ExpectError([&] { ProbeVideo(Path("cover.mp4")); }, {"no video stream", "cover.mp4"});
}

TEST_F(ReaderTest, SizeThatChangesMidStream) {
  SKIP_WITHOUT_FFMPEG();
  Numbered("a.mp4", 10);
  Ffmpeg("-i a.mp4 -c:v libx264 large.h264");
  Ffmpeg("-i a.mp4 -vf scale=64:32 -c:v libx264 small.h264");
  std::ofstream(Path("both.h264"), std::ios::binary)
      << ReadAll(Path("large.h264")) << ReadAll(Path("small.h264"));
  EXPECT_EQ(ReadNumbers(DecodeFrames(Path("both.h264"), {9, 4})), (std::vector<int>{9, 4}));
  ExpectError(
      [&] {
        DecodeFrames(Path("both.h264"), {9, 12});
      },
      {"changes its picture size from 128x64 to 64x32", "both.h264, frame 10"});
}

TEST_F(ReaderTest, TruncatedFileNamesTheFrame) {
  const std::string path = Numbered("whole.mp4", 40);
  const auto size = fs::file_size(path);
  fs::copy_file(path, Path("no_index.mp4"));
  fs::resize_file(Path("no_index.mp4"), size / 2);  // the index is at the end
  ExpectError([&] { DecodeFrames(Path("no_index.mp4"), {0}); },
              {"cut off before its index", "no_index.mp4"});

  SKIP_WITHOUT_FFMPEG();
  Ffmpeg("-i whole.mp4 -c copy -movflags faststart cut.mp4");
  fs::resize_file(Path("cut.mp4"), size * 2 / 3);
  EXPECT_EQ(ReadNumber(DecodeFrames(Path("cut.mp4"), {1})[0]), 1);
  ExpectError([&] { DecodeFrames(Path("cut.mp4"), {1, 39}); }, {"truncated", "cut.mp4, frame "});
  ExpectError([&] { ProbeVideo(Path("cut.mp4")); }, {"truncated", "cut.mp4, frame "});
}

TEST_F(ReaderTest, DamageInTheMiddleNeverShiftsNumbers) {
  const std::string whole = Numbered("whole.mp4", 40);
  const std::string bytes = ReadAll(whole);
  const auto end = static_cast<int64_t>(bytes.find("moov"));
  int errors = 0;
  for (int64_t offset = end / 10; offset < end - 64; offset += end / 20) {
    const std::string path = Path("damaged.mp4");
    fs::copy_file(whole, path, fs::copy_options::overwrite_existing);
    Overwrite(path, offset, std::string(48, offset % 2 == 0 ? '\0' : '\xff'));
    try {
      const auto frames = DecodeFrames(path, UpTo(40));
      EXPECT_EQ(ReadNumbers(frames).back(), 39) << offset;
    } catch (const Error& error) {
      ++errors;
      EXPECT_NE(std::string(error.what()).find("damaged.mp4, frame "), std::string::npos)
          << error.what();
    }
  }
  EXPECT_GE(errors, 10);
}

TEST_F(ReaderTest, StreamRecordedFromItsMiddle) {
  SKIP_WITHOUT_FFMPEG();
  Numbered("a.mp4", 40);  // key frames at 0, 12, 24, 36
  Ffmpeg("-i a.mp4 -c copy -bsf:v h264_mp4toannexb,noise=drop='lt(n\\,5)' joined.h264");
  const auto frames = DecodeFrames(Path("joined.h264"), {0, 1});
  EXPECT_EQ(ReadNumbers(frames), (std::vector<int>{12, 13}));
}

}  // namespace
}  // namespace kinefit
