// What a user can get wrong, tried on the real program: each ends with exit code 2 (never a crash)
// and a message that names the file, key or sample and says what to do.

#include <gtest/gtest.h>

#include <filesystem>

#include "files/zip.h"
#include "tests/process.h"

namespace kinefit::testing {
namespace {

namespace fs = std::filesystem;

class BadInput : public ::testing::Test {
 protected:
  void SetUp() override {
    config_ = scratch_ / "config.toml";
    WriteText(config_, SmallConfig("pose"));
  }

  // Trains with these further arguments, for one epoch.
  Outcome Train(std::vector<std::string> arguments) const {
    std::vector<std::string> all = {"train",          config_, "--work-dir",
                                    scratch_ / "run", "--set", "train.epochs=1"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return Kinefit(all);
  }

  static void ExpectRefused(const Outcome& outcome, const std::vector<std::string>& words) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    for (const std::string& word : words) {
      EXPECT_NE(outcome.output.find(word), std::string::npos) << "no \"" << word << "\" in:\n"
                                                              << outcome.output;
    }
  }

  // A copy of the small set's videos that may be damaged, and a config that uses it.
  std::string CopyOfVideos() {
    const std::string videos = scratch_ / "videos";
    fs::copy(SmallSet() + "/videos", videos);
    WriteText(config_, SmallConfig("rgb"));
    return videos;
  }

  // One training clip of the copied set, by its file name.
  static std::string SomeVideo(const std::string& folder) {
    std::string first;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string path = entry.path().string();
      if (first.empty() || path < first) first = path;  // the first actors are the training split
    }
    return first;
  }

  ScratchFolder scratch_;
  std::string config_;
};

TEST_F(BadInput, UnknownKeySuggestsTheNearest) {
  ExpectRefused(Train({"--set", "train.optimiser.lr=0.1"}), {"train.optimiser", "train.optimizer"});
  WriteText(config_, SmallConfig("pose") + "[data.colour_jitter]\nenabled = true\n");
  ExpectRefused(Train({}), {config_, "color_jitter"});
}

TEST_F(BadInput, ValuesOutOfRangeOrOfTheWrongType) {
  ExpectRefused(Train({"--set", "train.batch_size=0"}), {"train.batch_size", "0"});
  ExpectRefused(Train({"--set", "train.optimizer.lr=fast"}), {"train.optimizer.lr"});
  ExpectRefused(Train({"--set", "model.type=resnet"}), {"model.type", "rgbpose_attention"});
}

TEST_F(BadInput, MissingFiles) {
  ExpectRefused(Kinefit({"train", scratch_ / "none.toml"}), {"none.toml"});
  ExpectRefused(Train({"--set", "data.annotations=" + (scratch_ / "none.pkl")}), {"none.pkl"});
  ExpectRefused(Kinefit({"test", config_, scratch_ / "none.pth"}), {"none.pth"});
  ExpectRefused(Kinefit({"predict", scratch_ / "none.pth"}), {"none.pth"});
}

TEST_F(BadInput, CommandLine) {
  EXPECT_EQ(Kinefit({"trian"}).exit_code, 2);
  EXPECT_EQ(Kinefit({"train"}).exit_code, 2);
  EXPECT_EQ(Kinefit({}).exit_code, 2);
  EXPECT_EQ(Kinefit({"--help"}).exit_code, 0);
}

TEST_F(BadInput, TruncatedAnnotations) {
  const std::string whole = ReadText(SmallSet() + "/annotations.pkl");
  const std::string path = scratch_ / "cut.pkl";
  for (const size_t size : {size_t{0}, size_t{1}, whole.size() / 2, whole.size() - 1}) {
    WriteText(path, whole.substr(0, size));
    ExpectRefused(Train({"--set", "data.annotations=" + path}), {"cut.pkl"});
  }
}

// os.system("touch FILE"), as pickle's protocol 0 spells it.
TEST_F(BadInput, MaliciousPicklesAreNeverExecuted) {
  const std::string witness = scratch_ / "witness";
  const std::string path = scratch_ / "evil.pkl";
  WriteText(path, "cos\nsystem\n(S'touch " + witness + "'\ntR.");
  ExpectRefused(Train({"--set", "data.annotations=" + path}), {"evil.pkl"});
  EXPECT_FALSE(fs::exists(witness));

  WriteText(path, std::string(2000000, '(') + ".");
  ExpectRefused(Train({"--set", "data.annotations=" + path}), {"evil.pkl"});
  WriteText(path, "\x80\x04]" + std::string(2000000, ']') + std::string(2000000, 'a') + ".");
  ExpectRefused(Train({"--set", "data.annotations=" + path}), {"evil.pkl"});
  // A string that claims to be 2^62 bytes long.
  WriteText(path, std::string("\x80\x04\x8d\0\0\0\0\0\0\0\x40...", 14));
  ExpectRefused(Train({"--set", "data.annotations=" + path}), {"evil.pkl"});
}

TEST_F(BadInput, LabelsJointsAndSplitsThatDoNotFit) {
  ExpectRefused(Train({"--set", "model.num_classes=5"}), {"classes.txt", "model.num_classes"});
  ExpectRefused(Train({"--set", "model.num_classes=5", "--set", "data.classes=\"\""}),
                {"label", "model.num_classes"});
  ExpectRefused(Train({"--set", "model.pose.in_channels=15"}), {"joint", "model.pose.in_channels"});
  ExpectRefused(Train({"--set", "model.pose.in_channels=18"}), {"17", "18"});
  ExpectRefused(Train({"--set", "data.train_split=trian"}), {"trian", "train"});
}

TEST_F(BadInput, CheckpointsThatAreDamagedOrOfAnotherNetwork) {
  ASSERT_EQ(Train({}).exit_code, 0);
  const std::string checkpoint = scratch_ / "run/last.pth";
  const std::string other = scratch_ / "other.toml";
  WriteText(other, SmallConfig("rgb"));
  ExpectRefused(Kinefit({"test", other, checkpoint}), {"last.pth"});

  const std::string whole = ReadText(checkpoint);
  const std::string damaged = scratch_ / "damaged.pth";
  for (const size_t size : {size_t{0}, whole.size() / 3, whole.size() - 1}) {
    WriteText(damaged, whole.substr(0, size));
    ExpectRefused(Kinefit({"test", config_, damaged}), {"damaged.pth"});
  }
  // One flipped bit in a weight: only its CRC can tell.
  std::string flipped = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 1);
  WriteText(damaged, flipped);
  ExpectRefused(Kinefit({"test", config_, damaged}), {"damaged.pth"});
}

// A checkpoint with more in it than the network has is of another network.
TEST_F(BadInput, WeightsThatTheNetworkDoesNotHave) {
  const std::string attention = scratch_ / "attention.toml";
  const std::string pcan = scratch_ / "pcan.toml";
  const std::string rgbpose = scratch_ / "rgbpose.toml";
  WriteText(attention, SmallConfig("rgbpose_attention"));
  WriteText(pcan, SmallConfig("pcan"));
  WriteText(rgbpose, SmallConfig("rgbpose"));
  const Outcome trained =
      Kinefit({"train", attention, "--work-dir", scratch_ / "run", "--set", "train.epochs=1"});
  ASSERT_EQ(trained.exit_code, 0) << trained.output;
  for (const std::string& other : {rgbpose, pcan}) {
    ExpectRefused(Kinefit({"test", other, scratch_ / "run/last.pth"}),
                  {"weights of the network rgbpose_attention", "called pcan", "model.type"});
  }
  ExpectRefused(Kinefit({"train", pcan, "--work-dir", scratch_ / "other", "--set",
                         "train.init=" + (scratch_ / "run/last.pth")}),
                {"weights of the network rgbpose_attention", "model.type = \"rgbpose_attention\""});
}

TEST_F(BadInput, GroupsThatDoNotFitTheClasses) {
  const std::string pcan = scratch_ / "pcan.toml";
  WriteText(pcan, SmallConfig("pcan"));
  const auto with = [&](const std::string& setting) {
    return Kinefit({"plan", pcan, "--memory", "2GiB", "--set", setting});
  };
  ExpectRefused(with("model.groups=[[0,1,2,3,4],[5,6,7,8]]"), {"class 9 is in no group"});
  ExpectRefused(with("model.groups=[[0,1,2,3,4,5],[5,6,7,8,9]]"), {"class 5 is in two groups"});
  ExpectRefused(with("model.groups=[[0,1,2,3,4],[5,6,7,8,9,10]]"), {"11 classes", "model.num_classes is 10"});
  ExpectRefused(with("model.groups=[]"), {"which classes make a group", "model.groups"});
  ExpectRefused(with("model.group_names=[\"arms\"]"), {"1 names for 2 groups"});
  ExpectRefused(with("model.pcan.heads=3"), {"not divisible by 3 heads", "model.pcan.hidden"});
}

TEST_F(BadInput, ARefusedRunChangesNothingInTheWorkDir) {
  ASSERT_EQ(Train({}).exit_code, 0);
  const std::string config = ReadText(scratch_ / "run/config.toml");
  ExpectRefused(Train({"--set", "model.pose.base_channels=8", "--set", "train.epochs=2"}),
                {"epoch_1.pth"});
  EXPECT_EQ(ReadText(scratch_ / "run/config.toml"), config);
}

TEST_F(BadInput, EmptyTextsAreNotTakenForDefaults) {
  ExpectRefused(Kinefit({"train", config_, "-w", ""}), {"train.work_dir"});
}

TEST_F(BadInput, OutputThatCannotBeWritten) {
  ASSERT_EQ(Train({}).exit_code, 0);
  WriteText(scratch_ / "file", "");
  // Before the test set is gone through, not after.
  const Outcome refused =
      Kinefit({"test", config_, scratch_ / "run/last.pth", "--out", scratch_ / "file/results"});
  ExpectRefused(refused, {"file/results", "--out"});
  EXPECT_EQ(refused.output.find("top-1"), std::string::npos) << refused.output;

  Process process({"/bin/sh", "-c", "exec \"$0\" config keys > /dev/full", KinefitBinary()},
                  scratch_ / "output.txt");
  const Outcome full = process.Wait();
  EXPECT_EQ(full.exit_code, 1) << full.output;
  EXPECT_NE(full.output.find("cannot write to standard output"), std::string::npos) << full.output;
}

// The pickle says that the joints refer to images of another height.
TEST_F(BadInput, JointsOfAnotherPicture) {
  WriteText(config_, SmallConfig("rgbpose"));
  std::string pickle = ReadText(SmallSet() + "/annotations.pkl");
  const std::string shape = "img_shape(J";  // then height and width, little-endian
  int changed = 0;
  for (size_t at = pickle.find(shape); at != std::string::npos; at = pickle.find(shape, at + 1)) {
    pickle[at + shape.size()] = 40;
    ++changed;
  }
  ASSERT_GT(changed, 10);
  WriteText(scratch_ / "other.pkl", pickle);
  ExpectRefused(Train({"--set", "data.annotations=" + (scratch_ / "other.pkl"), "--set",
                       "data.compact=false"}),
                {"x40 (img_shape)", "data.max_bad_share"});
}

TEST_F(BadInput, TooManyOpenFilesAreNotTheClipsFault) {
  WriteText(config_, SmallConfig("rgb"));
  Process process({"/bin/sh", "-c",
                   // Whoever runs the tests may leave files open to them.
                   "exec 3<&- 4<&- 5<&- 6<&-; ulimit -n 7; "
                   "exec \"$0\" train \"$1\" --work-dir \"$2\" --set data.workers=4",
                   KinefitBinary(), config_, scratch_ / "few"},
                  scratch_ / "output.txt");
  const Outcome outcome = process.Wait();
  ExpectRefused(outcome, {"Too many open files", "ulimit -n"});
  EXPECT_EQ(outcome.output.find("max_bad_share"), std::string::npos) << outcome.output;
}

TEST_F(BadInput, OneBadClipIsSkippedCountedAndNamed) {
  const std::string videos = CopyOfVideos();
  const std::string victim = SomeVideo(videos);
  const std::string id = fs::path(victim).stem().string();
  const std::vector<std::string> use = {"--set", "data.videos=" + videos};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), use.begin(), use.end());
    return more;
  };
  const std::string whole = ReadText(victim);

  // Of 20 training clips one is 5 %: fatal at the default of 1 %, tolerated at 50 %.
  fs::remove(victim);
  ExpectRefused(Train(with({})), {id, "data.max_bad_share"});
  fs::remove_all(scratch_ / "run");
  const Outcome tolerated = Train(with({"--set", "data.max_bad_share=0.5"}));
  EXPECT_EQ(tolerated.exit_code, 0) << tolerated.output;
  EXPECT_NE(tolerated.output.find(id), std::string::npos) << tolerated.output;
  EXPECT_NE(tolerated.output.find("could not be used"), std::string::npos) << tolerated.output;

  for (const std::string& bytes :
       {whole.substr(0, whole.size() / 2), std::string(), std::string("this is not a video\n")}) {
    WriteText(victim, bytes);
    fs::remove_all(scratch_ / "run");
    ExpectRefused(Train(with({})), {id, "data.max_bad_share"});
  }
}

TEST_F(BadInput, FullDiskAndUnwritableWorkDir) {
  WriteText(scratch_ / "file", "");
  ExpectRefused(Kinefit({"train", config_, "--work-dir", scratch_ / "file/run"}), {"file/run"});

  // No file may grow beyond 200 blocks of 512 bytes: writing a checkpoint fails half-way.
  Process process({"/bin/sh", "-c", "ulimit -f 200; exec \"$0\" train \"$1\" --work-dir \"$2\"",
                   KinefitBinary(), config_, scratch_ / "full"},
                  scratch_ / "output.txt");
  const Outcome outcome = process.Wait();
  ExpectRefused(outcome, {"full/"});
  for (const auto& entry : fs::directory_iterator(scratch_ / "full")) {
    EXPECT_NE(entry.path().extension(), ".pth") << "a partial checkpoint was left";
  }
}

}  // namespace
}  // namespace kinefit::testing
