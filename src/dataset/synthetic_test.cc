#include "dataset/synthetic.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "dataset/synthetic_scene.h"
#include "files/error.h"
#include "files/pickle.h"
#include "files/publish.h"
#include "video/reader.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

class SyntheticTest : public ::testing::Test {
 protected:
  // Two actors, made once for all tests.
  static void SetUpTestSuite() {
    std::string name = (fs::temp_directory_path() / "kinefit-synthetic-XXXXXX").string();
    root_ = new fs::path(mkdtemp(name.data()));
    set_ = new SyntheticSet(MakeSyntheticSet(Folder("set"), Small(1)));
  }
  static void TearDownTestSuite() {
    fs::remove_all(*root_);
    delete root_;
    delete set_;
  }

  static SyntheticOptions Small(int threads) {
    SyntheticOptions options;
    options.seed = 5;
    options.actors = 2;
    options.takes = 1;
    options.threads = threads;
    return options;
  }
  static std::string Folder(const std::string& name) { return *root_ / name; }

  static fs::path* root_;
  static SyntheticSet* set_;
};

fs::path* SyntheticTest::root_ = nullptr;
SyntheticSet* SyntheticTest::set_ = nullptr;

// Relative path -> content of every file below a folder.
std::map<std::string, std::string> Contents(const std::string& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    contents[fs::relative(entry.path(), folder)] = ReadFile(entry.path());
  }
  return contents;
}

void ExpectError(const std::function<void()>& action, const std::string& part) {
  try {
    action();
    FAIL() << "no error; expected one with: " << part;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST_F(SyntheticTest, BytesDependOnTheSeedAlone) {
  const auto first = Contents(Folder("set"));
  EXPECT_EQ(first.size(), 3 + 2 * SyntheticClassNames().size());
  std::vector<int64_t> progress;
  MakeSyntheticSet(Folder("again"), Small(3), [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 20);
    progress.push_back(done);
  });
  EXPECT_EQ(progress.size(), 20U);
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
  const auto again = Contents(Folder("again"));
  ASSERT_EQ(again.size(), first.size());
  for (const auto& [name, bytes] : first) EXPECT_TRUE(again.at(name) == bytes) << name;

  SyntheticOptions other = Small(2);
  other.seed = 6;
  MakeSyntheticSet(Folder("other"), other);
  for (const auto& [name, bytes] : Contents(Folder("other"))) {
    EXPECT_EQ(first.at(name) == bytes, name == "classes.txt") << name;
  }
}

TEST_F(SyntheticTest, SplitsShareNoActor) {
  const Pickle pickle = Pickle::Load(set_->annotations);
  const PickleValue split = pickle.root().Find("split");
  std::map<std::string, std::set<std::string>> actors;
  std::set<std::string> names;
  for (const char* part : {"train", "test"}) {
    const PickleValue list = split.Find(part);
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string name(list[i].AsString("name"));
      names.insert(name);
      actors[part].insert(name.substr(0, name.find('_')));
    }
  }
  EXPECT_EQ(actors["train"], std::set<std::string>{"actor00"});
  EXPECT_EQ(actors["test"], std::set<std::string>{"actor01"});
  EXPECT_EQ(names.size(), pickle.root().Find("annotations").size());
  EXPECT_EQ(set_->train_clips, 10);
  EXPECT_EQ(set_->test_clips, 10);
}

TEST_F(SyntheticTest, AnnotationsFitVideosAndClasses) {
  std::ifstream file(set_->classes);
  std::vector<std::string> classes;
  for (std::string line; std::getline(file, line);) classes.push_back(line);
  EXPECT_EQ(classes, SyntheticClassNames());

  const Pickle pickle = Pickle::Load(set_->annotations);
  const PickleValue list = pickle.root().Find("annotations");
  std::vector<int> count(classes.size(), 0);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string name(list[i].Find("frame_dir").AsString("frame_dir"));
    const int64_t label = list[i].Find("label").AsInt("label");
    const int64_t frames = list[i].Find("total_frames").AsInt("total_frames");
    ASSERT_LT(label, static_cast<int64_t>(classes.size()));
    EXPECT_NE(name.find(classes[label]), std::string::npos);
    ++count[label];
    const VideoInfo video = ProbeVideo(set_->videos + "/" + name + ".mp4");
    EXPECT_EQ(video.frames, frames) << name;
    EXPECT_EQ(video.height, list[i].Find("img_shape")[0].AsInt("height"));
    EXPECT_EQ(video.width, list[i].Find("img_shape")[1].AsInt("width"));
    const NdArrayView& xy = list[i].Find("keypoint").AsArray("keypoint");
    const NdArrayView& score = list[i].Find("keypoint_score").AsArray("keypoint_score");
    EXPECT_EQ(xy.dtype, DType::kFloat16);
    const int64_t persons = xy.shape.at(0);
    EXPECT_EQ(xy.shape, (std::vector<int64_t>{persons, frames, 17, 2}));
    EXPECT_EQ(score.shape, (std::vector<int64_t>{persons, frames, 17}));
  }
  EXPECT_EQ(count, std::vector<int>(classes.size(), 2));
}

TEST_F(SyntheticTest, NoiseIsAsStated) {
  const Pickle pickle = Pickle::Load(set_->annotations);
  const PickleValue list = pickle.root().Find("annotations");
  int64_t joints = 0, missed = 0, low = 0, second_persons = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::vector<float> xy = list[i].Find("keypoint").AsArray("keypoint").ToFloats();
    const NdArrayView& view = list[i].Find("keypoint_score").AsArray("keypoint_score");
    const std::vector<float> score = view.ToFloats();
    second_persons += view.shape[0] > 1;
    const int64_t of_actor = view.shape[1] * view.shape[2];
    for (int64_t k = 0; k < of_actor; ++k) {
      const bool seen = score[k] > 0;
      EXPECT_EQ(seen, xy[2 * k] != 0 || xy[2 * k + 1] != 0);
      EXPECT_LE(score[k], 1);
      missed += !seen;
      low += seen && score[k] < kLowScore;
    }
    joints += of_actor;
  }
  EXPECT_GE(missed, kMissedShareLow * joints);
  EXPECT_LE(missed, kMissedShareHigh * joints);
  EXPECT_GT(low, 0.01 * joints);
  EXPECT_LT(low, 0.15 * joints);
  EXPECT_GE(second_persons, 1);
  EXPECT_LE(second_persons, 10);
}

// A clip as MakeSyntheticSet makes them, in colours that no room has.
Clip CleanClip(Movement movement, uint64_t number) {
  RandomStream random(11, "synthetic_test", number);
  Clip clip;
  clip.width = 160;
  clip.height = 120;
  clip.frames = 40;
  Person person;
  person.body = MakeBody(random, clip.height);
  person.body.skin = {240, 190, 160};
  person.body.hair = person.body.shoes = {200, 20, 20};
  person.body.shirt = person.body.stripe = person.body.trousers = {20, 20, 200};
  person.body.long_sleeves = false;
  person.performance = MakePerformance(movement, false, {80, 113}, random);
  clip.persons.push_back(person);
  clip.background = MakeBackground(clip.width, clip.height, 80, person.body.height, random);
  clip.camera.zoom = 1.03;
  clip.camera.drift = 5;
  clip.camera.shake = 1;
  clip.lighting.tint = {1, 1, 1};
  return clip;
}

TEST_F(SyntheticTest, JointsLieOnTheDrawnFigure) {
  for (const Movement movement : {Movement::kHandToFace, Movement::kLift, Movement::kSalute,
                                  Movement::kWave, Movement::kStep}) {
    const Clip clip = CleanClip(movement, static_cast<uint64_t>(movement));
    int on_figure = 0, wrists = 0, skin = 0, joints = 0;
    for (int64_t frame = 0; frame < clip.frames; frame += 3) {
      const cv::Mat picture = DrawFrame(clip, frame);
      const cv::Mat scene = DrawFrame(clip, frame, false);
      const Joints truth = JointsInFrame(clip, 0, frame);
      for (int v = 0; v < kJoints; ++v) {
        const cv::Point at(cvRound(truth[v].x), cvRound(truth[v].y));
        ASSERT_TRUE(cv::Rect(0, 0, clip.width, clip.height).contains(at));
        const cv::Vec3b seen = picture.at<cv::Vec3b>(at);
        ++joints;
        on_figure += cv::norm(seen, scene.at<cv::Vec3b>(at)) > 15;
        if (v != kLeftWrist && v != kRightWrist) continue;
        ++wrists;
        const cv::Scalar& wanted = clip.persons[0].body.skin;
        skin += cv::norm(cv::Scalar(seen[0], seen[1], seen[2]) - wanted) < 60;
      }
    }
    EXPECT_GE(on_figure, 0.95 * joints) << static_cast<int>(movement);
    EXPECT_GE(skin, 0.9 * wrists) << static_cast<int>(movement);
  }
}

// What a class holds must not show in its joints, and must show in its pictures.
TEST_F(SyntheticTest, HeldThingsShowInPicturesAlone) {
  const std::pair<Movement, Thing> kinds[] = {{Movement::kHandToFace, Thing::kCup},
                                              {Movement::kHandToFace, Thing::kPhone},
                                              {Movement::kLift, Thing::kBox},
                                              {Movement::kLift, Thing::kBall}};
  for (const auto& [movement, thing] : kinds) {
    Clip clip = CleanClip(movement, 3);
    const cv::Mat without = DrawFrame(clip, 7);
    const Joints before = JointsInFrame(clip, 0, 7);
    RandomStream random(1, "look");
    clip.persons[0].held = MakeLook(thing, random);
    EXPECT_EQ(JointsInFrame(clip, 0, 7), before);
    cv::Mat difference;
    cv::absdiff(DrawFrame(clip, 7), without, difference);
    int changed = 0;
    for (int y = 0; y < difference.rows; ++y) {
      for (int x = 0; x < difference.cols; ++x) {
        const cv::Vec3b d = difference.at<cv::Vec3b>(y, x);
        changed += std::max({d[0], d[1], d[2]}) > 30;
      }
    }
    EXPECT_GE(changed, 100) << static_cast<int>(thing);
  }
}

TEST_F(SyntheticTest, ForeignFoldersAreLeftAlone) {
  const std::string folder = Folder("foreign");
  MakeFolder(folder);
  PublishFile(folder + "/thesis.txt", "years of work");
  SyntheticOptions options = Small(2);
  options.width = options.height = 96;
  ExpectError([&] { MakeSyntheticSet(folder, options); }, "not empty");
  EXPECT_EQ(Contents(folder).size(), 1U);

  options.force = true;
  MakeSyntheticSet(folder, options);
  EXPECT_EQ(ReadFile(folder + "/thesis.txt"), "years of work");

  // An earlier set is replaced without being forced, its clips included.
  options.force = false;
  PublishFile(folder + "/videos/actor07_jog_take00.mp4", "stale");
  MakeSyntheticSet(folder, options);
  EXPECT_EQ(Contents(folder).size(), 4 + 2 * SyntheticClassNames().size());
}

TEST_F(SyntheticTest, RefusesImpossibleOptions) {
  SyntheticOptions options = Small(1);
  options.actors = 1;
  ExpectError([&] { MakeSyntheticSet(Folder("bad"), options); }, "actors must be 2 to");
  options = Small(1);
  options.width = 131;
  ExpectError([&] { MakeSyntheticSet(Folder("bad"), options); }, "must be even");
  PublishFile(Folder("file"), "not a folder");
  ExpectError([&] { MakeSyntheticSet(Folder("file"), Small(1)); }, Folder("file"));
  EXPECT_FALSE(fs::exists(Folder("bad")));
}

}  // namespace
}  // namespace kinefit
