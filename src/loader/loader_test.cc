#include "loader/loader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "files/error.h"
#include "loader/device_heatmaps.h"
#include "video/writer.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFrames = 12;

class LoaderTest : public ::testing::Test {
 protected:
  LoaderTest() {
    std::string name = (fs::temp_directory_path() / "kinefit-data-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    config_.model.type = "pose";
    config_.model.pose.in_channels = 3;
    DataConfig& data = config_.data;
    data.rgb_frames = 2;
    data.pose_frames = 8;
    data.resize = 24;
    data.crop = 20;
    data.test_size = 24;
    data.left_joints = {1};
    data.right_joints = {2};
    for (int i = 0; i < 23; ++i) dataset_.samples.push_back(MakeSample(i));
  }
  ~LoaderTest() override { fs::remove_all(folder_); }

  Sample MakeSample(int number) const {
    Sample sample;
    sample.id = "clip" + std::to_string(number);
    sample.label = number;
    sample.width = 64;
    sample.height = 48;
    sample.total_frames = kFrames;
    sample.pose.persons = 1;
    sample.pose.frames = kFrames;
    sample.pose.joints = 3;
    RandomStream random(9, "joints", static_cast<uint64_t>(number));
    for (int64_t i = 0; i < kFrames * 3; ++i) {
      sample.pose.xy.push_back(static_cast<float>(random.Uniform(5, 60)));
      sample.pose.xy.push_back(static_cast<float>(random.Uniform(5, 45)));
      sample.pose.score.push_back(1);
    }
    return sample;
  }

  // Gives every sample a video, with its own colour.
  void WriteVideos() {
    config_.model.type = "rgbpose";
    for (size_t i = 0; i < dataset_.samples.size(); ++i) {
      Sample& sample = dataset_.samples[i];
      sample.video = folder_ / (sample.id + ".mp4");
      VideoWriter writer(sample.video, 64, 48, 25);
      for (int64_t t = 0; t < kFrames; ++t) {
        writer.Write(cv::Mat(48, 64, CV_8UC3, cv::Scalar(10.0 * i, 20.0 * t, 90)));
      }
      writer.Finish();
    }
  }

  std::vector<Batch> Collect(Phase phase, LoaderPosition position, int64_t workers,
                             int64_t batch_size = 4, int64_t clips = 1, bool flip = false,
                             Shard shard = {}) {
    config_.data.workers = workers;
    Loader loader(dataset_, config_, phase, batch_size, clips, flip, shard);
    loader.Start(position);
    return Drain(&loader);
  }

  static std::vector<Batch> Drain(Loader* loader) {
    std::vector<Batch> batches;
    for (Batch batch; loader->Next(&batch);) batches.push_back(batch);
    return batches;
  }

  fs::path folder_;
  Config config_;
  Dataset dataset_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

void ExpectSameTensor(const at::Tensor& a, const at::Tensor& b) {
  ASSERT_EQ(a.defined(), b.defined());
  EXPECT_TRUE(!a.defined() || at::equal(a, b));
}

void ExpectSameBatches(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].ids, b[i].ids);
    EXPECT_EQ(a[i].sample_index, b[i].sample_index);
    ExpectSameTensor(a[i].imgs, b[i].imgs);
    ExpectSameTensor(a[i].heatmap_imgs, b[i].heatmap_imgs);
    ExpectSameTensor(a[i].labels, b[i].labels);
  }
}

TEST_F(LoaderTest, AnEpochShowsEverySampleOnce) {
  const std::vector<Batch> batches = Collect(Phase::kTrain, {0, 0}, 2);
  ASSERT_EQ(batches.size(), 6U);
  EXPECT_EQ(batches.back().ids.size(), 3U);
  EXPECT_EQ(batches[0].heatmap_imgs.sizes(), (at::IntArrayRef{4, 3, 8, 20, 20}));
  EXPECT_FALSE(batches[0].imgs.defined());
  std::vector<int64_t> seen;
  for (const Batch& batch : batches) {
    for (size_t i = 0; i < batch.ids.size(); ++i) {
      const int64_t index = batch.sample_index[i];
      EXPECT_EQ(batch.ids[i], dataset_.samples[static_cast<size_t>(index)].id);
      EXPECT_EQ(batch.labels[static_cast<int64_t>(i)].item<int64_t>(), index);
      seen.push_back(index);
    }
  }
  EXPECT_FALSE(std::is_sorted(seen.begin(), seen.end()));
  std::sort(seen.begin(), seen.end());
  for (int64_t i = 0; i < 23; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
}

// What `kinefit data show` draws of a clip is what a batch holds of it.
TEST_F(LoaderTest, EveryPlaceOfAnEpochCanBeMadeAgain) {
  config_.data.repeat = 2;
  const std::vector<int64_t> order = EpochOrder(dataset_, config_, Phase::kTrain, 3);
  ASSERT_EQ(order.size(), 46U);
  int64_t place = 0;
  for (const Batch& batch : Collect(Phase::kTrain, {3, 0}, 2)) {
    for (size_t i = 0; i < batch.ids.size(); ++i, ++place) {
      const int64_t index = order[static_cast<size_t>(place)];
      ASSERT_EQ(batch.sample_index[i], index);
      RandomStream random = AugmentStream(config_, 3, place);
      const ClipTensors made = RunPipeline(dataset_.samples[static_cast<size_t>(index)], config_,
                                           Phase::kTrain, 1, false, random);
      const at::Tensor row = batch.heatmap_imgs[static_cast<int64_t>(i)].contiguous();
      EXPECT_TRUE(std::equal(made.heatmaps.begin(), made.heatmaps.end(), row.data_ptr<float>()));
    }
  }
  EXPECT_EQ(place, 46);
}

TEST_F(LoaderTest, WorkersDoNotChangeBatches) {
  WriteVideos();
  config_.data.color_jitter.enabled = true;
  const std::vector<Batch> one = Collect(Phase::kTrain, {3, 0}, 1);
  ExpectSameBatches(one, Collect(Phase::kTrain, {3, 0}, 8));
  config_.data.prefetch = 7;
  ExpectSameBatches(one, Collect(Phase::kTrain, {3, 0}, 5));
}

TEST_F(LoaderTest, AnEpochContinuesInItsMiddle) {
  const std::vector<Batch> whole = Collect(Phase::kTrain, {1, 0}, 3);
  const std::vector<Batch> rest = Collect(Phase::kTrain, {1, 4}, 2);
  ExpectSameBatches({whole.begin() + 4, whole.end()}, rest);
  EXPECT_TRUE(Collect(Phase::kTrain, {1, 6}, 2).empty());
}

std::vector<int64_t> SamplesOf(const std::vector<Batch>& batches) {
  std::vector<int64_t> samples;
  for (const Batch& batch : batches) {
    samples.insert(samples.end(), batch.sample_index.begin(), batch.sample_index.end());
  }
  return samples;
}

// Three processes with batches of 2 make of 23 samples what one process with batches of 6 makes;
// the last five are shared out as 1 + 2 + 2.
TEST_F(LoaderTest, ProcessesShareEveryBatch) {
  const std::vector<Batch> single = Collect(Phase::kTrain, {2, 0}, 2, 6);
  std::vector<std::vector<Batch>> parts;
  for (int64_t rank = 0; rank < 3; ++rank) {
    Loader loader(dataset_, config_, Phase::kTrain, 2, 1, false, {rank, 3});
    EXPECT_EQ(loader.batches_per_epoch(), 4);
    EXPECT_EQ(loader.samples_per_epoch(), 23);
    parts.push_back(Collect(Phase::kTrain, {2, 0}, 2, 2, 1, false, {rank, 3}));
    ASSERT_EQ(parts.back().size(), 4U);
  }
  for (size_t i = 0; i < single.size(); ++i) {
    std::vector<at::Tensor> rows;
    std::vector<int64_t> samples;
    for (const std::vector<Batch>& part : parts) {
      rows.push_back(part[i].heatmap_imgs);
      samples.insert(samples.end(), part[i].sample_index.begin(), part[i].sample_index.end());
    }
    EXPECT_EQ(samples, single[i].sample_index);
    EXPECT_TRUE(at::equal(at::cat(rows), single[i].heatmap_imgs));  // the same augmentation, too
  }
}

TEST_F(LoaderTest, AProcessWithoutAPartOfTheLastBatchSkipsIt) {
  dataset_.samples.resize(9);  // 4 x 2 and one more
  config_.data.prefetch = 4;
  size_t batches = 0;
  for (int64_t rank = 0; rank < 4; ++rank) {
    Loader loader(dataset_, config_, Phase::kTrain, 2, 1, false, {rank, 4});
    EXPECT_EQ(loader.batches_per_epoch(), 2);
    for (const int64_t epoch : {0, 1, 2}) {
      loader.Start({epoch, 0});
      batches += Drain(&loader).size();
      EXPECT_EQ(loader.position().next_batch, 2);
    }
  }
  EXPECT_EQ(batches, 3 * (4U + 1));
}

// Half an epoch with two processes, the rest with three and other batches: every sample once, and
// each as it would have been augmented without the change.
TEST_F(LoaderTest, AnEpochContinuesWithOtherProcessesAndBatches) {
  const std::vector<Batch> whole = Collect(Phase::kTrain, {1, 0}, 2, 23);
  std::vector<int64_t> seen;
  for (int64_t rank = 0; rank < 2; ++rank) {
    Loader loader(dataset_, config_, Phase::kTrain, 4, 1, false, {rank, 2});
    loader.Start({1, 0});
    Batch batch;
    ASSERT_TRUE(loader.Next(&batch));
    seen.insert(seen.end(), batch.sample_index.begin(), batch.sample_index.end());
  }
  ASSERT_EQ(seen.size(), 8U);
  for (int64_t rank = 0; rank < 3; ++rank) {
    for (const Batch& batch : Collect(Phase::kTrain, {1, 0, 8}, 2, 2, 1, false, {rank, 3})) {
      for (size_t i = 0; i < batch.sample_index.size(); ++i) {
        seen.push_back(batch.sample_index[i]);
        const auto& order = whole[0].sample_index;
        const int64_t place = std::find(order.begin(), order.end(), seen.back()) - order.begin();
        EXPECT_TRUE(
            at::equal(batch.heatmap_imgs[static_cast<int64_t>(i)], whole[0].heatmap_imgs[place]));
      }
    }
  }
  std::sort(seen.begin(), seen.end());
  for (int64_t i = 0; i < 23; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
  ASSERT_EQ(seen.size(), 23U);
  EXPECT_EQ(SamplesOf(Collect(Phase::kTrain, {1, 1, 8}, 2, 7)).size(), 8U);
}

TEST_F(LoaderTest, EpochsSeedsAndRepeatsDiffer) {
  const std::vector<Batch> first = Collect(Phase::kTrain, {0, 0}, 2);
  EXPECT_NE(first[0].ids, Collect(Phase::kTrain, {1, 0}, 2)[0].ids);
  config_.seed = 5;
  EXPECT_NE(first[0].ids, Collect(Phase::kTrain, {0, 0}, 2)[0].ids);

  dataset_.samples.resize(2);
  config_.data.repeat = 6;
  const std::vector<Batch> repeated = Collect(Phase::kTrain, {0, 0}, 2, 12);
  ASSERT_EQ(repeated.size(), 1U);
  EXPECT_EQ(std::count(repeated[0].ids.begin(), repeated[0].ids.end(), "clip0"), 6);
  std::set<double> sums;  // every repetition is augmented in its own way
  for (int64_t i = 0; i < 12; ++i) sums.insert(repeated[0].heatmap_imgs[i].sum().item<double>());
  EXPECT_EQ(sums.size(), 12U);
}

TEST_F(LoaderTest, TestKeepsTheOrderAndTheClipsTogether) {
  config_.data.repeat = 3;  // of training alone
  const std::vector<Batch> batches = Collect(Phase::kTest, {0, 0}, 4, 5, 2, true);
  ASSERT_EQ(batches.size(), 5U);
  EXPECT_EQ(batches[0].clips, 4);
  EXPECT_EQ(batches[0].sample_index, (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(batches[0].heatmap_imgs.sizes(), (at::IntArrayRef{20, 3, 8, 24, 24}));
  EXPECT_EQ(batches[4].heatmap_imgs.size(0), 12);
  RandomStream unused(0, "unused");
  const ClipTensors clip = RunPipeline(dataset_.samples[7], config_, Phase::kTest, 2, true, unused);
  const at::Tensor rows = batches[1].heatmap_imgs.narrow(0, 8, 4).contiguous();
  EXPECT_TRUE(std::equal(clip.heatmaps.begin(), clip.heatmaps.end(), rows.data_ptr<float>()));
}

// Or a worker would begin another batch while it still takes memory.
TEST_F(LoaderTest, TheBatchBeforeIsLetGo) {
  Loader loader(dataset_, config_, Phase::kTrain, 4);
  loader.Start({0, 0});
  Batch batch;
  while (loader.position().next_batch < loader.batches_per_epoch()) {
    ASSERT_TRUE(loader.Next(&batch));
  }
  EXPECT_TRUE(batch.heatmap_imgs.defined());
  EXPECT_FALSE(loader.Next(&batch));
  EXPECT_FALSE(batch.heatmap_imgs.defined());
}

TEST_F(LoaderTest, StartDropsWhatWasPrefetched) {
  config_.data.workers = 3;
  config_.data.prefetch = 4;
  Loader loader(dataset_, config_, Phase::kTrain, 4);
  Batch batch;
  EXPECT_THROW(loader.Next(&batch), std::logic_error);
  loader.Start({0, 0});
  ASSERT_TRUE(loader.Next(&batch));
  EXPECT_EQ(loader.position().next_batch, 1);
  for (int i = 0; i < 20; ++i) loader.Start({i % 2, 0});
  const std::vector<Batch> batches = Drain(&loader);
  EXPECT_EQ(loader.position().epoch, 1);
  EXPECT_EQ(loader.position().next_batch, 6);
  EXPECT_FALSE(loader.Next(&batch));
  EXPECT_GE(loader.wait_seconds(), 0);
  ExpectSameBatches(batches, Collect(Phase::kTrain, {1, 0}, 1));
}

TEST_F(LoaderTest, ShutsDownWhileWorkersAreBusy) {
  config_.data.workers = 4;
  for (int i = 0; i < 30; ++i) {
    Loader loader(dataset_, config_, Phase::kTrain, 2);
    if (i % 3 != 0) loader.Start({i, i % 5});
    Batch batch;
    if (i % 3 == 2) {
      ASSERT_TRUE(loader.Next(&batch));
    }
  }
}

TEST_F(LoaderTest, PrefetchIsBounded) {
  WriteVideos();
  config_.data.workers = 4;
  config_.data.prefetch = 2;
  config_.data.max_bad_share = 1;
  Loader loader(dataset_, config_, Phase::kTrain, 4);
  EXPECT_EQ(loader.batches_per_epoch(), 6);
  EXPECT_EQ(loader.samples_per_epoch(), 23);
  loader.Start({0, 0});
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  // From here on no clip can be read, so what still comes had been made before.
  for (const Sample& sample : dataset_.samples) fs::remove(sample.video);
  EXPECT_LE(Drain(&loader).size(), 2U);
  EXPECT_GE(loader.bad_clips().size(), 15U);
}

// Batches that leave the drawing to the device: the same pictures, samples and draws, and joints
// that make the same heatmaps.
TEST_F(LoaderTest, JointsMakeTheHeatmapsThatTheLoaderDraws) {
  WriteVideos();
  dataset_.samples[4].pose = {2, kFrames, 3, {}, {}};  // a second person
  RandomStream random(4, "joints");
  for (int64_t i = 0; i < 2 * kFrames * 3; ++i) {
    for (const double side : {64, 48}) {
      dataset_.samples[4].pose.xy.push_back(static_cast<float>(random.Uniform(0, side)));
    }
    dataset_.samples[4].pose.score.push_back(static_cast<float>(random.Uniform(0, 1)));
  }
  std::fill(dataset_.samples[5].pose.score.begin(), dataset_.samples[5].pose.score.end(), 0.0F);
  fs::remove(dataset_.samples[6].video);
  config_.data.max_bad_share = 0.1;
  config_.model.pose.in_channels = 5;
  config_.data.limbs = {{0, 1}, {0, 2}};
  config_.data.heatmap.with_limbs = true;
  struct Way {
    Phase phase;
    int64_t clips;
    bool flip;
    bool double_flip;
  };
  for (const Way& way : {Way{Phase::kTrain, 1, false, false}, Way{Phase::kTest, 3, true, false},
                         Way{Phase::kTest, 2, false, true}, Way{Phase::kTest, 2, false, false}}) {
    config_.data.heatmap.double_flip = way.double_flip;
    config_.data.heatmap.draw_on = "host";
    std::vector<Batch> host = Collect(way.phase, {1, 0}, 2, 4, way.clips, way.flip);
    config_.data.heatmap.draw_on = "device";
    std::vector<Batch> device = Collect(way.phase, {1, 0}, 2, 4, way.clips, way.flip);
    ASSERT_EQ(host.size(), device.size());
    for (size_t i = 0; i < host.size(); ++i) {
      EXPECT_FALSE(device[i].heatmap_imgs.defined());
      const at::Tensor drawn = HeatmapsOn(device[i], config_.data, at::kCPU);
      ASSERT_EQ(drawn.sizes(), host[i].heatmap_imgs.sizes());
      EXPECT_LE((drawn - host[i].heatmap_imgs).abs().max().item<double>(), 1e-5);
      EXPECT_GT(drawn.max().item<float>(), 0.1F);
      EXPECT_EQ(host[i].clips, device[i].clips);
      host[i].heatmap_imgs = at::Tensor();
    }
    ExpectSameBatches(host, device);
  }
}

TEST_F(LoaderTest, BadClipsAreLeftOutAndCounted) {
  WriteVideos();
  const std::vector<Batch> all = Collect(Phase::kTest, {0, 0}, 2);
  fs::remove(dataset_.samples[1].video);
  fs::resize_file(dataset_.samples[2].video, fs::file_size(dataset_.samples[2].video) / 2);
  for (size_t i = 8; i < 12; ++i) fs::remove(dataset_.samples[i].video);  // all of batch 2
  config_.data.max_bad_share = 0.5;
  config_.data.workers = 4;
  Loader loader(dataset_, config_, Phase::kTest, 4);
  loader.Start({0, 0});
  const std::vector<Batch> batches = Drain(&loader);
  ASSERT_EQ(batches.size(), 5U);
  EXPECT_EQ(batches[0].ids, (std::vector<std::string>{"clip0", "clip3"}));
  EXPECT_EQ(batches[0].labels.size(0), 2);
  ASSERT_EQ(batches[0].imgs.size(0), 2);
  EXPECT_TRUE(at::equal(batches[0].imgs[1], all[0].imgs[3]));
  EXPECT_TRUE(at::equal(batches[0].heatmap_imgs[1], all[0].heatmap_imgs[3]));
  ExpectSameBatches({batches.begin() + 2, batches.end()}, {all.begin() + 3, all.end()});
  const std::vector<BadClip> bad = loader.bad_clips();
  ASSERT_EQ(bad.size(), 6U);
  EXPECT_EQ(bad[0].id, "clip1");
  EXPECT_HAS(bad[0].reason, "clip1.mp4");
  EXPECT_EQ(bad[1].id, "clip2");
  loader.Start({0, 3});
  EXPECT_TRUE(loader.bad_clips().empty());
}

TEST_F(LoaderTest, TooManyBadClipsStopTheEpoch) {
  WriteVideos();
  for (const size_t i : {3, 5, 6}) fs::remove(dataset_.samples[i].video);  // so few never do
  fs::remove(dataset_.samples[20].video);
  config_.data.max_bad_share = 0.05;  // one of 23
  for (const int64_t workers : {1, 8}) {
    config_.data.workers = workers;
    Loader loader(dataset_, config_, Phase::kTest, 4);
    loader.Start({0, 0});
    Batch batch;
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loader.Next(&batch));  // clip20 is in the sixth batch
    try {
      loader.Next(&batch);
      FAIL() << "four bad clips of 23 went unnoticed";
    } catch (const Error& error) {
      EXPECT_HAS(error.problem(), "4 of the 23 clips");
      EXPECT_HAS(error.problem(), "clip3: ");
      EXPECT_HAS(error.problem(), "clip20.mp4");
      EXPECT_HAS(error.remedy(), "data.max_bad_share");
    }
    EXPECT_EQ(loader.bad_clips().size(), 4U);
  }
}

TEST_F(LoaderTest, RefusesPositionsOutsideTheEpoch) {
  Loader loader(dataset_, config_, Phase::kTrain, 4);
  EXPECT_THROW(loader.Start({0, 7}), Error);
  EXPECT_THROW(loader.Start({-1, 0}), Error);
  EXPECT_THROW(loader.Start({0, 0, 24}), Error);
  EXPECT_THROW(Loader(dataset_, config_, Phase::kTrain, 4, 1, false, {3, 3}), Error);
  EXPECT_THROW(Loader(dataset_, config_, Phase::kTrain, 0), Error);
}

TEST_F(LoaderTest, EmptyDatasetHasNoBatches) {
  dataset_.samples.clear();
  EXPECT_TRUE(Collect(Phase::kTrain, {0, 0}, 2).empty());
}

TEST_F(LoaderTest, MemoryThatCannotBeHadReachesTheConsumer) {
  config_.data.pose_frames = int64_t{1} << 60;
  config_.data.workers = 3;
  Loader loader(dataset_, config_, Phase::kTrain, 4);
  loader.Start({0, 0});
  Batch batch;
  EXPECT_ANY_THROW(loader.Next(&batch));
}

TEST(LoaderJhmdbTest, RealClipsLoad) {
  const std::string root = std::string(KINEFIT_SHARED) + "/data/jhmdb14/";
  if (!fs::exists(root)) GTEST_SKIP() << "the JHMDB-14 set is not at " << root;
  Config config;
  config.model.num_classes = 14;
  config.model.pose.in_channels = 15;
  DataConfig& data = config.data;
  data.annotations = root + "jhmdb14_2d.pkl";
  data.videos = root + "videos";
  data.left_joints = {4, 6, 8, 10, 12, 14};
  data.right_joints = {3, 5, 7, 9, 11, 13};
  data.crop = 56;
  data.resize = 64;
  data.color_jitter.enabled = true;
  data.heatmap.scaling = 0.5;
  Dataset dataset = LoadDataset(config, "split1_train");
  dataset.samples.resize(32);
  Loader loader(dataset, config, Phase::kTrain, 8);
  loader.Start({0, 0});
  int64_t clips = 0;
  for (Batch batch; loader.Next(&batch);) {
    clips += batch.labels.size(0);
    EXPECT_EQ(batch.imgs.sizes(), (at::IntArrayRef{8, 3, 8, 56, 56}));
    EXPECT_EQ(batch.heatmap_imgs.sizes(), (at::IntArrayRef{8, 15, 32, 28, 28}));
    EXPECT_GT(batch.heatmap_imgs.amax().item<float>(), 0.9F);
    EXPECT_GT(batch.imgs.std().item<float>(), 0.3F);
    EXPECT_TRUE(at::isfinite(batch.imgs).all().item<bool>());
  }
  EXPECT_EQ(clips, 32);
  EXPECT_TRUE(loader.bad_clips().empty());
}

}  // namespace
}  // namespace kinefit
