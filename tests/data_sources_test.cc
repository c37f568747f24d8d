// Other people's data, from files as they are downloaded or recorded to a trained network, with the
// real program.

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>

#include "config/load.h"
#include "convert/ntu_files_test.h"
#include "dataset/annotations.h"
#include "files/publish.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;

class DataSources : public ::testing::Test {
 protected:
  void Succeed(const std::vector<std::string>& arguments, const std::string& expected) {
    const Outcome outcome = Kinefit(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find(expected), std::string::npos) << outcome.output;
  }

  // A network small enough to train in seconds on what `include` names.
  std::string WriteConfig(const std::string& include, const std::string& type) {
    std::string text = "include = \"" + include + "\"\n[model]\ntype = \"" + type + "\"\n";
    text += "[model.rgb]\nbase_channels = 8\nstage_blocks = [1, 1, 1, 1]\n";
    text +=
        "[model.pose]\nbase_channels = 4\nstage_blocks = [1, 1, 1]\npool1_stride_s = 2\n[data]\n"
        "rgb_frames = 4\npose_frames = 16\nresize = 40\ncrop = 32\ntest_size = 32\nworkers = 1\n"
        "[data.heatmap]\nscaling = 0.5\n[train]\nbatch_size = 4\nepochs = 1\nlog_every = 1\n"
        "[train.optimizer]\nlr = 0.01\n[eval]\ntest_clips = 1\n";
    WriteText(scratch_ / "config.toml", text);
    return scratch_ / "config.toml";
  }

  void TrainAndTest(const std::string& config) {
    Succeed({"train", config, "--work-dir", scratch_ / "run"}, "best fused top-1");
    Succeed({"test", config, scratch_ / "run/last.pth"}, "top-1");
  }

  ScratchFolder scratch_;
};

// AlphaPose's results, with numbered persons, for the joints of a sample.
std::string AlphaPose(const Sample& sample) {
  const Pose& pose = sample.pose;
  std::string text = "[";
  for (int64_t i = 0; i < pose.frames; ++i) {
    for (int64_t person = pose.persons - 1; person >= 0; --person) {
      text += std::string(text.size() > 1 ? "," : "") + "{\"image_id\": \"" + std::to_string(i) +
              ".jpg\", \"category_id\": 1, \"idx\": " + std::to_string(person + 1) +
              ", \"score\": " + std::to_string(3 - person) + ", \"keypoints\": [";
      for (int64_t j = 0; j < pose.joints; ++j) {
        const auto at = static_cast<size_t>((person * pose.frames + i) * pose.joints + j);
        text += (j > 0 ? "," : "") + std::to_string(pose.xy[2 * at]) + "," +
                std::to_string(pose.xy[2 * at + 1]) + "," + std::to_string(pose.score[at]);
      }
      text += "]}";
    }
  }
  return text + "]";
}

TEST_F(DataSources, AFolderOfOwnRecordingsTrainsANetwork) {
  WriteText(scratch_ / "made.toml", SmallConfig("rgbpose"));
  const Dataset made = LoadDataset(LoadConfig(scratch_ / "made.toml").config, "");
  const std::string source = scratch_ / "recordings";
  for (const Sample& sample : made.samples) {
    const std::string folder =
        source + "/" + made.class_names[static_cast<size_t>(sample.label)] + "/";
    fs::create_directories(folder);
    fs::create_symlink(fs::absolute(sample.video), folder + sample.id + ".mp4");
    WriteText(folder + sample.id + ".json", AlphaPose(sample));
  }
  Succeed({"data", "import", source, "--out", scratch_ / "set", "--test-share", "0.34"},
          "wrote 30 clips: train 20, test 10");
  const std::string config = WriteConfig(scratch_ / "set/set.toml", "rgbpose");
  TrainAndTest(config);
  // What came in is what is there.
  const Dataset back = LoadDataset(LoadConfig(config).config, "");
  ASSERT_EQ(back.samples.size(), made.samples.size());
  std::map<std::string, const Sample*> by_id;
  for (const Sample& sample : back.samples) by_id[fs::path(sample.id).filename()] = &sample;
  for (const Sample& sample : made.samples) {
    const Sample& other = *by_id.at(sample.id);
    EXPECT_EQ(back.class_names[static_cast<size_t>(other.label)],
              made.class_names[static_cast<size_t>(sample.label)]);
    ASSERT_EQ(other.pose.xy.size(), sample.pose.xy.size());
    for (size_t i = 0; i < sample.pose.xy.size(); ++i) {
      EXPECT_NEAR(other.pose.xy[i], sample.pose.xy[i], 1e-4);
    }
  }

  const Outcome refused = Kinefit({"data", "import", scratch_ / "nothing", "--out", "x"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.output.find("neither a folder nor a manifest"), std::string::npos);
}

class NtuDownload : public DataSources {
 protected:
  NtuDownload() {
    fs::create_directories(scratch_ / "skeletons");
    fs::create_directories(scratch_ / "rgb");
  }

  static std::string Skeleton(int frames) {
    return WriteSkeleton(MakeRecording(frames, [](int i) {
      return std::vector<NtuBody>{StandingBody(1, 0.02F * static_cast<float>(i), 0)};
    }));
  }

  std::vector<std::string> Convert(const std::string& out, const std::string& threads) const {
    return {"data",  "ntu",          "--skeletons", scratch_ / "skeletons",
            "--out", scratch_ / out, "--threads",   threads};
  }

  int Parts(const std::string& out) const {
    int count = 0;
    std::error_code error;
    for (fs::directory_iterator at(scratch_ / (out + "/.parts"), error), end; !error && at != end;
         at.increment(error)) {
      count += at->path().extension() == ".zip" ? 1 : 0;
    }
    return count;
  }
};

// AVI with MPEG-4, as the data set has it, made by FFmpeg.
TEST_F(NtuDownload, SkeletonsAndAvisTrainANetwork) {
  if (std::system("ffmpeg -version >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "NOT CHECKED WITH REAL AVI FILES: ffmpeg is not installed (setup.sh --test)";
  }
  const std::string avi = scratch_ / "made.avi";
  ASSERT_EQ(std::system(("ffmpeg -v error -f lavfi -i testsrc=size=192x108:rate=30 -frames:v 24 "
                         "-c:v mpeg4 -vtag XVID " +
                         avi)
                            .c_str()),
            0);
  for (const char* performer : {"P001", "P002", "P003"}) {
    for (const char* action : {"A001", "A002", "A003", "A004"}) {
      const std::string name = std::string("S001C001") + performer + "R001" + action;
      WriteText(scratch_ / ("skeletons/" + name + ".skeleton"), Skeleton(24));
      fs::create_symlink(avi, scratch_ / ("rgb/" + name + "_rgb.avi"));
    }
  }
  std::vector<std::string> arguments = Convert("set", "2");
  arguments.insert(arguments.end(), {"--rgb", scratch_ / "rgb"});
  Succeed(arguments, "wrote 12 clips: xsub_train 8, xsub_val 4, xview_train 0, xview_val 12");
  TrainAndTest(WriteConfig(scratch_ / "set/ntu60.toml", "rgbpose"));

  WriteText(scratch_ / "skeletons/S001C001P001R001A001.skeleton", "3\n1\n");
  const Outcome refused = Kinefit(arguments);
  EXPECT_EQ(refused.exit_code, 2) << refused.output;
  EXPECT_NE(refused.output.find("S001C001P001R001A001"), std::string::npos) << refused.output;
  EXPECT_NE(refused.output.find("--max-bad-share"), std::string::npos) << refused.output;
}

TEST_F(NtuDownload, AKilledConversionContinues) {
  WriteText(scratch_ / "one.skeleton", Skeleton(300));
  for (int performer = 1; performer <= 40; ++performer) {
    for (int camera = 1; camera <= 3; ++camera) {
      char name[64];
      std::snprintf(name, sizeof(name), "skeletons/S001C%03dP%03dR001A001.skeleton", camera,
                    performer);
      fs::create_symlink(scratch_ / "one.skeleton", scratch_ / name);
    }
  }
  Succeed(Convert("whole", "2"), "wrote ");
  const int all = Parts("whole");
  EXPECT_GT(all, 100);

  std::vector<std::string> command = Convert("killed", "1");
  command.insert(command.begin(), KinefitBinary());
  int kills = 0;
  for (const int enough : {2, 20, 40}) {
    Process process(command, scratch_ / "output.txt");
    while (Parts("killed") < enough && !process.WaitFor(std::chrono::milliseconds(1))) {
    }
    process.Signal(SIGKILL);
    kills += process.Wait().exit_code == 128 + SIGKILL ? 1 : 0;
  }
  EXPECT_GE(kills, 2);
  EXPECT_FALSE(fs::exists(scratch_ / "killed/annotations.pkl"));
  const int before = Parts("killed");
  EXPECT_LT(before, all);
  const auto first = scratch_ / "killed/.parts/S001C001P001R001.zip";
  const auto made = fs::last_write_time(first);
  Succeed(Convert("killed", "2"), "wrote ");
  EXPECT_EQ(fs::last_write_time(first), made);  // was not made again
  EXPECT_EQ(ReadText(scratch_ / "killed/annotations.pkl"),
            ReadText(scratch_ / "whole/annotations.pkl"));
  EXPECT_EQ(ReadText(scratch_ / "killed/report.json"), ReadText(scratch_ / "whole/report.json"));
  // Nothing half-written is left behind.
  for (const auto& entry : fs::recursive_directory_iterator(scratch_ / "killed")) {
    EXPECT_EQ(entry.path().string().find("kinefit-tmp"), std::string::npos) << entry.path();
  }
}

}  // namespace
}  // namespace kinefit::testing
