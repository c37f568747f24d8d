#include "dataset/packed_store.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <thread>

#include "dataset/packed_writer.h"
#include "files/error.h"
#include "files/jpeg.h"
#include "files/publish.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

constexpr int kWidth = 40;
constexpr int kHeight = 32;

// A picture that says which clip and frame it is by its shade.
std::string Picture(int shade) {
  const std::vector<uint8_t> rgb(static_cast<size_t>(kWidth) * kHeight * 3,
                                 static_cast<uint8_t>(shade));
  JpegEncoder encoder;
  return encoder.Encode(rgb.data(), kWidth, kHeight, kWidth * 3, {90, true});
}

int ShadeOf(const Sample& sample, int64_t frame) {
  return static_cast<int>(20 * sample.label + 5 * frame);
}

class PackedStoreTest : public ::testing::Test {
 protected:
  PackedStoreTest() {
    std::string name = (fs::temp_directory_path() / "kinefit-pack-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    for (int i = 0; i < 9; ++i) set_.samples.push_back(MakeSample(i));
    set_.samples[3].pose.xy[2] = 1.0F / 3;  // not exact in float16
    set_.rejected.push_back({"broken", "img_shape is (0, 0)"});
    set_.class_names = {"sit", "stand", "wave"};
    request_.path = folder_ / "set.kfpack";
    request_.set = &set_;
    request_.threads = 2;
    request_.max_bad_share = 0.5;
    request_.splits = {{"train", {"clip 0", "clip 2", "clip 4", "broken"}},
                       {"test", {"clip 8", "clip 1", "not there"}}};
    config_.model.type = "rgbpose";
    config_.model.num_classes = 3;
    config_.model.pose.in_channels = 2;
    config_.data.annotations = request_.path;
  }
  ~PackedStoreTest() override { fs::remove_all(folder_); }

  static Sample MakeSample(int i) {
    Sample sample;
    sample.id = "clip " + std::to_string(i);
    sample.label = i % 3;
    sample.width = 320;
    sample.height = 240;
    sample.total_frames = 3 + i % 2;
    sample.pose.persons = 1 + i % 2;
    sample.pose.frames = sample.total_frames;
    sample.pose.joints = 2;
    const int64_t count = sample.pose.persons * sample.pose.frames * 2;
    for (int64_t k = 0; k < count; ++k) {
      sample.pose.xy.push_back(static_cast<float>(10 * i + k) + 0.5F);
      sample.pose.xy.push_back(-4.25F);
      sample.pose.score.push_back(0.75F);
    }
    return sample;
  }

  static PackedClip Make(const Sample& sample) {
    PackedClip clip;
    clip.table.shown_width = 640;
    clip.table.shown_height = 480;
    clip.table.window_x = 100;
    clip.table.window_y = 50;
    clip.table.window_width = 2 * kWidth;
    clip.table.window_height = 2 * kHeight;
    clip.table.width = kWidth;
    clip.table.height = kHeight;
    for (int64_t frame = 0; frame < sample.total_frames; ++frame) {
      clip.images.push_back(Picture(ShadeOf(sample, frame)));
    }
    return clip;
  }

  PackReport Write(const MakePackedClip& make = Make) { return WritePackedStore(request_, make); }

  // The bytes of the store that an undisturbed run writes.
  std::string WholeBytes() {
    Write();
    std::string bytes = ReadFile(request_.path);
    fs::remove(request_.path);
    return bytes;
  }

  std::string ErrorOf(const std::function<void()>& act) const {
    try {
      act();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string LoadError(const std::string& split = "") const {
    return ErrorOf([&] { LoadDataset(config_, split); });
  }

  fs::path folder_;
  Dataset set_;
  PackRequest request_;
  Config config_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

std::vector<std::string> Ids(const Dataset& set) {
  std::vector<std::string> ids;
  for (const Sample& sample : set.samples) ids.push_back(sample.id);
  return ids;
}

TEST_F(PackedStoreTest, GivesBackTheSet) {
  Write();
  const Dataset all = LoadDataset(config_, "");
  EXPECT_EQ(all.class_names, set_.class_names);
  ASSERT_EQ(all.samples.size(), set_.samples.size());
  for (size_t i = 0; i < all.samples.size(); ++i) {
    const Sample& got = all.samples[i];
    const Sample& want = set_.samples[i];
    EXPECT_EQ(got.id, want.id);
    EXPECT_EQ(got.label, want.label);
    EXPECT_EQ(got.width, want.width);
    EXPECT_EQ(got.height, want.height);
    EXPECT_EQ(got.total_frames, want.total_frames);
    EXPECT_EQ(got.pose.persons, want.pose.persons);
    EXPECT_EQ(got.pose.frames, want.pose.frames);
    EXPECT_EQ(got.pose.joints, want.pose.joints);
    EXPECT_EQ(got.pose.xy, want.pose.xy);
    EXPECT_EQ(got.pose.score, want.pose.score);
    EXPECT_EQ(got.video, "");
  }
  ASSERT_EQ(all.rejected.size(), 2U);
  EXPECT_EQ(all.rejected[0].id + ": " + all.rejected[0].reason, "broken: img_shape is (0, 0)");
  EXPECT_EQ(all.rejected[1].id + ": " + all.rejected[1].reason,
            "not there: in a split but not annotated");
}

TEST_F(PackedStoreTest, SplitsAreByName) {
  Write();
  const Dataset train = LoadDataset(config_, "train");
  EXPECT_EQ(Ids(train), (std::vector<std::string>{"clip 0", "clip 2", "clip 4"}));
  ASSERT_EQ(train.rejected.size(), 1U);
  EXPECT_EQ(train.rejected[0].id, "broken");
  const Dataset test = LoadDataset(config_, "test");
  EXPECT_EQ(Ids(test), (std::vector<std::string>{"clip 1", "clip 8"}));
  ASSERT_EQ(test.rejected.size(), 1U);
  EXPECT_EQ(test.rejected[0].id, "not there");
  EXPECT_HAS(LoadError("tran"), "did you mean 'train'? known splits: train, test");
}

// The mean of a picture, which Make() draws in one shade.
double Shade(const cv::Mat& picture) { return cv::mean(picture)[0]; }

TEST_F(PackedStoreTest, ReadsFramesInAnyOrder) {
  Write();
  const Dataset all = LoadDataset(config_, "");
  for (const Sample& sample : all.samples) {
    const ClipFrames clip = ReadFrames(sample, {2, 0, 2, 1});
    ASSERT_EQ(clip.frames.size(), 4U);
    EXPECT_EQ(clip.image, cv::Size(640, 480));
    EXPECT_EQ(clip.window, cv::Rect(100, 50, 80, 64));
    const std::vector<int64_t> numbers = {2, 0, 2, 1};
    for (size_t i = 0; i < numbers.size(); ++i) {
      EXPECT_EQ(clip.frames[i].size(), cv::Size(kWidth, kHeight));
      EXPECT_NEAR(Shade(clip.frames[i]), ShadeOf(sample, numbers[i]), 1.5) << sample.id;
    }
    EXPECT_EQ(clip.frames[0].data, clip.frames[2].data);
    EXPECT_EQ(clip.InFrames({120, 60, 20, 30}), cv::Rect(10, 5, 10, 15));
    EXPECT_EQ(clip.InFrames({90, 50, 20, 1}), cv::Rect(-5, 0, 10, 1));
    EXPECT_HAS(ErrorOf([&] {
                 ReadFrames(sample, {0, sample.total_frames});
               }),
               "frame " + std::to_string(sample.total_frames));
    EXPECT_HAS(ErrorOf([&] { ReadFrames(sample, {-1}); }), "frame -1");
  }
}

TEST_F(PackedStoreTest, ManyThreadsReadAtOnce) {
  Write();
  const Dataset all = LoadDataset(config_, "");
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 60; ++i) {
        const Sample& sample = all.samples[(i + static_cast<size_t>(t)) % all.samples.size()];
        const cv::Mat frame = ReadFrames(sample, {1}).frames[0];
        if (std::abs(Shade(frame) - ShadeOf(sample, 1)) > 1.5) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(PackedStoreTest, PosesAreExactAndSmallWherePossible) {
  PackedEntry entry;
  Pose pose = set_.samples[0].pose;
  entry.frames = pose.frames;
  const std::string half = EncodePose(pose, &entry);
  EXPECT_EQ(entry.coding, PoseCoding::kFloat16);
  EXPECT_EQ(half.size(), 2U * 3 * 3 * 2);
  EXPECT_EQ(ParsePose(half, entry, "").xy, pose.xy);
  pose.xy[0] = 0.1F;
  const std::string whole = EncodePose(pose, &entry);
  EXPECT_EQ(entry.coding, PoseCoding::kFloat32);
  EXPECT_EQ(ParsePose(whole, entry, "").xy, pose.xy);
  for (const float wrong : {std::nanf(""), std::numeric_limits<float>::infinity(), -2e6F}) {
    pose.xy[0] = wrong;
    const std::string bad = EncodePose(pose, &entry);
    EXPECT_HAS(ErrorOf([&] { ParsePose(bad, entry, "x"); }), "a joint or score is");
  }
}

TEST_F(PackedStoreTest, AnyNumberOfThreadsMakesTheSameBytes) {
  std::string first;
  for (const int threads : {1, 2, 7}) {
    request_.threads = threads;
    const std::string bytes = WholeBytes();
    if (first.empty()) first = bytes;
    EXPECT_EQ(bytes, first) << threads;
  }
}

TEST_F(PackedStoreTest, PosesAlone) {
  request_.settings.images = false;
  Write([](const Sample&) -> PackedClip { throw Error("no video is to be read"); });
  EXPECT_HAS(LoadError(), "holds poses alone");
  config_.model.type = "pose";
  const Dataset all = LoadDataset(config_, "");
  EXPECT_EQ(all.samples[3].pose.xy, set_.samples[3].pose.xy);
  EXPECT_HAS(ErrorOf([&] { ReadFrames(all.samples[0], {0}); }), "has no pictures");
  PackedStore::Open(request_.path)->Verify();
  EXPECT_TRUE(Write().was_complete);
}

TEST_F(PackedStoreTest, RefusesConfigurationsThatItDoesNotFit) {
  Write();
  config_.data.compact_padding = 0.5;
  EXPECT_HAS(LoadError(), "packed with data.compact_padding = 0.25, the configuration says 0.5");
  config_.model.type = "pose";  // which has no use for pictures
  EXPECT_EQ(LoadError(), "no error");
  config_.data.compact_padding = 0.25;
  config_.model.type = "rgb";
  config_.data.compact = false;
  EXPECT_HAS(LoadError(), "data.compact = true");
  config_.data.compact = true;
  config_.model.num_classes = 2;
  EXPECT_HAS(LoadError(), "has 3 classes, but model.num_classes is 2");
  config_.model.num_classes = 3;
  config_.model.type = "pose";
  config_.model.pose.in_channels = 17;
  EXPECT_HAS(LoadError(), "2 joints");
}

TEST_F(PackedStoreTest, UnreadableClipsAreNamedAndLeftOut) {
  const auto make = [](const Sample& sample) -> PackedClip {
    if (sample.id == "clip 4") throw Error("video is damaged", "clip4.mp4");
    return Make(sample);
  };
  const PackReport report = Write(make);
  ASSERT_EQ(report.failed.size(), 1U);
  EXPECT_EQ(report.failed[0].id + ": " + report.failed[0].reason,
            "clip 4: video is damaged (clip4.mp4)");
  const Dataset train = LoadDataset(config_, "train");
  EXPECT_EQ(Ids(train), (std::vector<std::string>{"clip 0", "clip 2"}));
  ASSERT_EQ(train.rejected.size(), 2U);
  EXPECT_HAS(train.rejected[0].reason, "video is damaged");
  config_.model.type = "pose";  // joints are there
  EXPECT_EQ(LoadDataset(config_, "train").samples.size(), 3U);
  EXPECT_EQ(Write(make).failed.size(), 1U);  // said again when there is nothing to do

  request_.force = true;
  request_.max_bad_share = 0.1;
  EXPECT_EQ(Write(make).failed.size(), 1U);  // few never stop it by themselves
  const auto most = [](const Sample& sample) -> PackedClip {
    if (sample.id < "clip 4") throw Error("video is damaged", "clip.mp4");
    return Make(sample);
  };
  EXPECT_HAS(ErrorOf([&] { Write(most); }), "4 of 9 clips cannot be read");
}

TEST_F(PackedStoreTest, WhatTheSystemLacksIsNoFaultOfAClip) {
  const auto make = [](const Sample& sample) -> PackedClip {
    if (sample.id == "clip 4") throw ResourceError("too many open files");
    return Make(sample);
  };
  EXPECT_HAS(ErrorOf([&] { Write(make); }), "too many open files");
  EXPECT_FALSE(fs::exists(request_.path));
}

// A run that ends after any number of clips, however it ends, and another that goes on.
TEST_F(PackedStoreTest, GoesOnAfterEveryClip) {
  const std::string whole = WholeBytes();
  for (int last = 0; last <= 9; ++last) {
    std::atomic<int> calls{0};
    request_.threads = 1;
    EXPECT_HAS(ErrorOf([&] {
                 Write([&](const Sample& sample) {
                   if (calls++ == last) throw ResourceError("stop");
                   return Make(sample);
                 });
               }),
               last < 9 ? "stop" : "no error");
    request_.threads = 3;
    std::atomic<int> made{0};
    const PackReport report = Write([&](const Sample& sample) {
      ++made;
      return Make(sample);
    });
    EXPECT_EQ(report.resumed + made, last < 9 ? 9 : 0) << last;
    EXPECT_EQ(ReadFile(request_.path), whole) << last;
    fs::remove(request_.path);
  }
}

// A file cut anywhere, or with a damaged byte anywhere, as after a loss of power.
TEST_F(PackedStoreTest, GoesOnFromTornFiles) {
  const std::string whole = WholeBytes();
  const std::string partial = request_.path + ".partial";
  for (size_t size = 0; size < whole.size(); size += 1 + whole.size() / 12) {
    std::ofstream(partial, std::ios::binary) << whole.substr(0, size);
    Write();
    EXPECT_EQ(ReadFile(request_.path), whole) << size;
    fs::remove(request_.path);
  }
  for (size_t at = kPackedHeaderBytes; at < whole.size(); at += 1 + whole.size() / 12) {
    std::string torn = whole;
    torn[at] = static_cast<char>(torn[at] ^ 0x10);
    std::ofstream(partial, std::ios::binary) << torn;
    Write();
    EXPECT_EQ(ReadFile(request_.path), whole) << at;
    fs::remove(request_.path);
  }
}

TEST_F(PackedStoreTest, ClipsRepairedInTheMeantimeComeToTheirPlace) {
  const std::string whole = WholeBytes();
  request_.threads = 1;
  EXPECT_HAS(ErrorOf([&] {
               Write([](const Sample& sample) {
                 if (sample.id == "clip 2" || sample.id == "clip 3") throw Error("damaged");
                 if (sample.id == "clip 6") throw ResourceError("stop");
                 return Make(sample);
               });
             }),
             "stop");
  const PackReport report = Write();
  EXPECT_EQ(report.resumed, 2);
  EXPECT_TRUE(report.failed.empty());
  EXPECT_EQ(ReadFile(request_.path), whole);
}

TEST_F(PackedStoreTest, NeverMixesTwoSets) {
  const auto stop = [](const Sample& sample) -> PackedClip {
    if (sample.id == "clip 6") throw ResourceError("stop");
    return Make(sample);
  };
  EXPECT_HAS(ErrorOf([&] { Write(stop); }), "stop");
  request_.settings.quality = 50;
  EXPECT_HAS(ErrorOf([&] { Write(); }), "unfinished store of other data");
  request_.force = true;
  EXPECT_EQ(Write().resumed, 0);
  request_.force = false;
  EXPECT_TRUE(Write().was_complete);
  set_.samples[5].label = 0;
  EXPECT_HAS(ErrorOf([&] { Write(); }), "of other data or with other settings is there");
  request_.path = folder_ / "letter.txt";
  PublishFile(request_.path, "Dear Sir");
  EXPECT_HAS(ErrorOf([&] { Write(); }), "a file that is no packed store is there");
}

// Reads all there is to read.
void ReadAll(const std::string& path) {
  const auto store = PackedStore::Open(path);
  for (size_t i = 0; i < store->set().entries.size(); ++i) {
    if (!store->set().entries[i].rejected.empty()) continue;
    store->ReadPose(i);
    store->ReadFrames(i, {0, store->set().entries[i].frames - 1});
  }
}

TEST_F(PackedStoreTest, EveryDamagedByteIsFoundByVerify) {
  set_.samples.resize(3);
  const std::string whole = WholeBytes();
  const std::string path = folder_ / "damaged.kfpack";
  PublishFile(path, whole);
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](size_t at, int value) {
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(value)).flush();
  };
  for (size_t at = 0; at < whole.size(); ++at) {
    put(at, whole[at] ^ 0x40);
    EXPECT_NE(ErrorOf([&] { PackedStore::Open(path)->Verify(); }), "no error") << at;
    put(at, whole[at]);
  }
  PackedStore::Open(path)->Verify();
}

TEST_F(PackedStoreTest, EveryCutIsAnErrorThatNamesTheFile) {
  const std::string whole = WholeBytes();
  const std::string path = folder_ / "cut.kfpack";
  for (size_t size = 0; size < whole.size(); size += size < 200 ? 1 : 97) {
    std::ofstream(path, std::ios::binary) << whole.substr(0, size);
    EXPECT_HAS(ErrorOf([&] { ReadAll(path); }), path) << size;
  }
  std::ofstream(path, std::ios::binary) << whole + "x";
  EXPECT_HAS(ErrorOf([&] { ReadAll(path); }), "bytes, not");
  std::ofstream(path, std::ios::binary) << "Dear Sir";
  EXPECT_HAS(ErrorOf([&] { ReadAll(path); }), "no packed store");
  EXPECT_HAS(ErrorOf([&] { ReadAll(folder_ / "missing.kfpack"); }), "missing.kfpack");
}

TEST_F(PackedStoreTest, UnfinishedAndNewerStoresSaySo) {
  PackedHeader header;
  const std::string path = folder_ / "x.kfpack";
  std::ofstream(path, std::ios::binary) << EncodePackedHeader(header);
  EXPECT_HAS(ErrorOf([&] { PackedStore::Open(path); }), "not finished");
  std::string newer = EncodePackedHeader(header);
  newer[8] = 7;
  const uint64_t hash = XxHash64(std::string_view(newer).substr(0, kPackedHeaderBytes - 8));
  newer.replace(kPackedHeaderBytes - 8, 8, reinterpret_cast<const char*>(&hash), 8);
  std::ofstream(path, std::ios::binary) << newer;
  EXPECT_HAS(ErrorOf([&] { PackedStore::Open(path); }), "version 7");
}

TEST_F(PackedStoreTest, AStoreCutWhileInUseIsAnError) {
  Write();
  const Dataset all = LoadDataset(config_, "");
  ReadFrames(all.samples[8], {0});
  fs::resize_file(request_.path, 500);
  EXPECT_HAS(ErrorOf([&] { ReadFrames(all.samples[8], {0}); }), "became shorter");
}

}  // namespace
}  // namespace kinefit
