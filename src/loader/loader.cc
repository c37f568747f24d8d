#include "loader/loader.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <opencv2/core.hpp>
#include <stdexcept>
#include <thread>
#include <unordered_set>
#include <utility>

#include "dataset/bad_share.h"
#include "dataset/worker_threads.h"
#include "files/error.h"
#include "loader/device_heatmaps.h"
#include "random/stream.h"

namespace kinefit {
namespace {

// A batch in the making. A worker writes the rows of the place it has claimed; everything else is
// read and written under the loader's lock.
struct Slot {
  int64_t epoch = 0;
  int64_t first = 0;                 // position in the epoch of place 0
  int64_t first_row = 0;             // of place 0 within the batch of all processes
  std::vector<int64_t> samples;      // [places] index into the dataset
  std::vector<std::string> reasons;  // [places] why the clip cannot be used; "" = it can
  at::Tensor imgs;                   // rows of all places, good or bad
  at::Tensor heatmap_imgs;
  at::Tensor joints;
  int64_t claimed = 0;
  int64_t unfinished = 0;
  std::exception_ptr failure;  // anything but an unreadable clip, of the lowest place
  int64_t failed_place = 0;

  int64_t places() const { return static_cast<int64_t>(samples.size()); }
};

struct Claim {
  std::shared_ptr<Slot> slot;
  int64_t place = 0;
};

// A GPU copies from pinned memory while the host goes on.
at::Tensor AllocateRows(int64_t places, const std::array<int64_t, 5>& shape, bool pinned) {
  if (shape[0] == 0) return {};
  return at::empty({places * shape[0], shape[1], shape[2], shape[3], shape[4]},
                   at::TensorOptions(at::kFloat).pinned_memory(pinned));
}

float* RowsOf(const at::Tensor& tensor, int64_t place, int64_t places) {
  return tensor.defined() ? tensor.data_ptr<float>() + place * (tensor.numel() / places) : nullptr;
}

// The rows of the good places, moved together at the front.
at::Tensor KeepRows(const at::Tensor& tensor, const std::vector<int64_t>& good, int64_t places) {
  if (!tensor.defined()) return tensor;
  const size_t bytes = static_cast<size_t>(tensor.numel() / places) * sizeof(float);
  for (int64_t to = 0; to < static_cast<int64_t>(good.size()); ++to) {
    const int64_t from = good[static_cast<size_t>(to)];
    if (from == to) continue;
    std::memcpy(RowsOf(tensor, to, places), RowsOf(tensor, from, places), bytes);
  }
  const int64_t rows = tensor.size(0) / places * static_cast<int64_t>(good.size());
  return tensor.narrow(0, 0, rows);
}

// What batches hold of one sample's joints, as JointsOutput; zeros if the loader draws heatmaps.
std::array<int64_t, 5> JointsShape(const Dataset& dataset, const Config& config, Phase phase,
                                   int64_t clips) {
  if (!config.model.has_pose() || config.data.heatmap.draw_on != "device") return {};
  int64_t persons = 1;
  for (const Sample& sample : dataset.samples) persons = std::max(persons, sample.pose.persons);
  return {phase == Phase::kTrain ? 1 : clips, persons, 3, JointsDrawn(config),
          config.data.pose_frames};
}

}  // namespace

std::vector<int64_t> EpochOrder(const Dataset& dataset, const Config& config, Phase phase,
                                int64_t epoch) {
  return Sampler(dataset, config, phase).Order(epoch);
}

RandomStream AugmentStream(const Config& config, int64_t epoch, int64_t place) {
  return RandomStream(static_cast<uint64_t>(config.seed), "augment", static_cast<uint64_t>(epoch),
                      static_cast<uint64_t>(place));
}

struct Loader::State {
  State(const Dataset& the_dataset, const Config& the_config, Phase the_phase, int64_t batch,
        int64_t the_clips, bool the_flip, Shard the_shard);
  ~State();

  void StartWorkers();
  void Work();
  bool CanClaim() const;
  Claim TakePlace();
  std::shared_ptr<Slot> OpenSlot();
  void Fill(const Claim& claim);
  std::shared_ptr<Slot> AwaitSlot();
  void RecordBadClips(const Slot& slot);

  const Dataset& dataset;
  const Config config;
  const Phase phase;
  const int64_t batch_size;
  const int64_t clips;
  const bool flip;
  const Shard shard;
  const ClipShapes shapes;
  const std::array<int64_t, 5> joints_shape;  // of one sample; zeros: the loader draws heatmaps
  const Sampler sampler;
  const size_t most_slots;

  // Of the consumer alone.
  bool started = false;
  std::vector<BadClip> bad_clips;
  std::unordered_set<std::string> bad_ids;
  double wait_seconds = 0;

  std::mutex mutex;  // guards what follows
  std::condition_variable work;
  std::condition_variable ready;
  bool stop = false;
  std::exception_ptr broken;  // what ended a worker
  int64_t epoch = 0;
  std::vector<int64_t> order;               // [sampler.samples()] index into the dataset
  MicroBatches batches;                     // of the epoch under way
  std::deque<std::shared_ptr<Slot>> slots;  // the front one is handed out next
  int64_t next_batch;                       // to be handed out; the last before Start()
  int64_t next_slot;                        // batch to be begun

  std::vector<std::thread> workers;
};

Loader::State::State(const Dataset& the_dataset, const Config& the_config, Phase the_phase,
                     int64_t batch, int64_t the_clips, bool the_flip, Shard the_shard)
    : dataset(the_dataset),
      config(the_config),
      phase(the_phase),
      batch_size(batch),
      clips(the_clips),
      flip(the_flip),
      shard(the_shard),
      shapes(PipelineShapes(the_config, the_phase, the_clips, the_flip)),
      joints_shape(JointsShape(the_dataset, the_config, the_phase, the_clips)),
      sampler(the_dataset, the_config, the_phase),
      most_slots(static_cast<size_t>(std::max<int64_t>(the_config.data.prefetch, 1))),
      batches(sampler.samples(), batch, the_shard),
      next_batch(batches.count()),
      next_slot(batches.count()) {}

void Loader::State::StartWorkers() {
  // One clip per worker is all the parallelism there is; OpenCV's own threads would only get in
  // its way.
  if (cv::getNumThreads() > 1) cv::setNumThreads(0);
  const int64_t wanted = std::max<int64_t>(config.data.workers, 1);
  // Fewer will do, and be slower.
  if (StartThreads(
          wanted, [this] { Work(); }, &workers) > 0)
    return;
  throw ResourceError("the system starts no thread to read clips with", "data.workers",
                      "allow more processes (ulimit -u, or the limit of the control group)");
}

Loader::State::~State() {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    stop = true;
  }
  work.notify_all();
  for (std::thread& worker : workers) worker.join();
}

void Loader::State::Work() {
  std::unique_lock<std::mutex> lock(mutex);
  for (;;) {
    work.wait(lock, [this] { return stop || CanClaim(); });
    if (stop) return;
    Claim claim;
    try {
      claim = TakePlace();
    } catch (...) {  // no memory even for a place; whoever waits for a batch is told
      broken = std::current_exception();
      ready.notify_all();
      return;
    }
    if (claim.slot->unfinished == 0) {  // no memory for the batch, or no place in it
      ready.notify_all();
      continue;
    }
    lock.unlock();
    std::string reason;
    std::exception_ptr failure;
    try {
      Fill(claim);
    } catch (const ResourceError&) {
      failure = std::current_exception();
    } catch (const Error& error) {
      reason = error.problem() + " (" + error.where() + ")";
    } catch (const cv::Exception& error) {
      reason = std::string("frames cannot be processed: ") + error.what();
      if (error.code == cv::Error::StsNoMem) failure = std::make_exception_ptr(std::bad_alloc());
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    Slot& slot = *claim.slot;
    slot.reasons[static_cast<size_t>(claim.place)] = std::move(reason);
    if (failure && (!slot.failure || claim.place < slot.failed_place)) {
      slot.failure = failure;
      slot.failed_place = claim.place;
    }
    if (--slot.unfinished == 0) ready.notify_all();
  }
}

bool Loader::State::CanClaim() const {
  if (!slots.empty() && slots.back()->claimed < slots.back()->places()) return true;
  return slots.size() < most_slots && next_slot < batches.count();
}

// The next place in the order of the epoch. REQUIRES: lock held, CanClaim().
Claim Loader::State::TakePlace() {
  // An empty batch, which no process but another has places of, is claimed beyond its end.
  if (slots.empty() || slots.back()->claimed >= slots.back()->places()) slots.push_back(OpenSlot());
  const std::shared_ptr<Slot>& slot = slots.back();
  return {slot, slot->claimed++};
}

std::shared_ptr<Slot> Loader::State::OpenSlot() {
  auto slot = std::make_shared<Slot>();
  slot->epoch = epoch;
  const Places range = batches.Of(next_slot);
  const int64_t places = range.size();
  slot->first = range.begin;
  slot->first_row = range.begin - batches.skipped() - next_slot * batch_size * shard.world;
  slot->samples.assign(order.begin() + range.begin, order.begin() + range.end);
  slot->reasons.resize(static_cast<size_t>(places));
  slot->unfinished = places;
  ++next_slot;
  try {
    const bool pinned = config.device.rfind("cuda", 0) == 0 && at::hasCUDA();
    slot->imgs = AllocateRows(places, shapes.imgs, pinned);
    const bool joints = joints_shape[0] > 0;
    slot->joints = AllocateRows(places, joints_shape, pinned);
    if (!joints) slot->heatmap_imgs = AllocateRows(places, shapes.heatmaps, pinned);
  } catch (...) {
    slot->failure = std::current_exception();
    slot->claimed = places - 1;  // nobody is to work on it; the caller takes the last place
    slot->unfinished = 0;
  }
  return slot;
}

// Makes one sample, at its place in the batch. Called without the lock: what it reads of the slot
// does not change any more.
void Loader::State::Fill(const Claim& claim) {
  const Slot& slot = *claim.slot;
  const Sample& sample =
      dataset.samples[static_cast<size_t>(slot.samples[static_cast<size_t>(claim.place)])];
  RandomStream random = AugmentStream(config, slot.epoch, slot.first + claim.place);
  const auto rows = [&](const at::Tensor& t) { return RowsOf(t, claim.place, slot.places()); };
  RunPipelineInto(sample, config, phase, clips, flip, random,
                  {rows(slot.imgs),
                   rows(slot.heatmap_imgs),
                   {rows(slot.joints), joints_shape[1], joints_shape[3]}});
}

// Waits for the next batch, takes it and makes room for another.
std::shared_ptr<Slot> Loader::State::AwaitSlot() {
  const auto begin = std::chrono::steady_clock::now();
  std::unique_lock<std::mutex> lock(mutex);
  ready.wait(lock, [this] { return broken || (!slots.empty() && slots.front()->unfinished == 0); });
  if (broken) std::rethrow_exception(broken);
  wait_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::shared_ptr<Slot> slot = std::move(slots.front());
  slots.pop_front();
  ++next_batch;
  lock.unlock();
  work.notify_all();
  return slot;
}

// Bad clips count when their batch is handed out, so that what is reported, and when, does not
// depend on how far the workers are ahead.
void Loader::State::RecordBadClips(const Slot& slot) {
  for (size_t place = 0; place < slot.reasons.size(); ++place) {
    if (slot.reasons[place].empty()) continue;
    const std::string& id = dataset.samples[static_cast<size_t>(slot.samples[place])].id;
    if (bad_ids.insert(id).second) bad_clips.push_back({id, slot.reasons[place]});
  }
  const auto bad_count = static_cast<int64_t>(bad_clips.size());
  const auto all = static_cast<int64_t>(dataset.samples.size());
  if (bad_count < all && !TooManyBad(bad_count, all, config.data.max_bad_share)) return;
  constexpr size_t kListed = 20;
  std::string list;
  for (size_t i = 0; i < std::min(bad_clips.size(), kListed); ++i) {
    list += "\n    " + bad_clips[i].id + ": " + bad_clips[i].reason;
  }
  if (bad_clips.size() > kListed) {
    list += "\n    and " + std::to_string(bad_clips.size() - kListed) + " more";
  }
  throw Error(std::to_string(bad_count) + " of the " + std::to_string(all) +
                  " clips cannot be used so far:" + list,
              "",
              "repair or remove them, or raise data.max_bad_share (now " +
                  std::to_string(config.data.max_bad_share) + ")");
}

Loader::Loader(const Dataset& dataset, const Config& config, Phase phase, int64_t batch_size,
               int64_t clips, bool flip, Shard shard) {
  if (batch_size < 1 || clips < 1) {
    throw Error("batch size and number of clips must be at least 1");
  }
  state_ = std::make_unique<State>(dataset, config, phase, batch_size, clips, flip, shard);
  state_->StartWorkers();
}

Loader::~Loader() = default;

void Loader::Start(LoaderPosition position) {
  State& s = *state_;
  const MicroBatches batches(s.sampler.samples(), s.batch_size, s.shard, position.skipped);
  if (position.epoch < 0 || position.next_batch < 0 || position.next_batch > batches.count()) {
    throw Error("an epoch of " + std::to_string(batches.count()) +
                    " batches cannot be continued at batch " + std::to_string(position.next_batch),
                "",
                "the checkpoint comes from a run with other data or another batch size; use those, "
                "or start anew from its weights (train.init)");
  }
  std::vector<int64_t> order = s.sampler.Order(position.epoch);
  s.started = true;
  s.bad_clips.clear();
  s.bad_ids.clear();
  s.wait_seconds = 0;
  {
    const std::lock_guard<std::mutex> lock(s.mutex);
    s.epoch = position.epoch;
    s.order = std::move(order);
    s.batches = batches;
    s.slots.clear();  // workers finish what they hold of them, unseen
    s.next_batch = s.next_slot = position.next_batch;
  }
  s.work.notify_all();
}

bool Loader::Next(Batch* batch) {
  State& s = *state_;
  if (!s.started) throw std::logic_error("Loader::Next() before Start()");
  *batch = Batch();  // before a worker may begin another
  while (position().next_batch < s.batches.count()) {
    const std::shared_ptr<Slot> slot = s.AwaitSlot();
    if (slot->failure) std::rethrow_exception(slot->failure);
    s.RecordBadClips(*slot);
    std::vector<int64_t> good;
    for (int64_t place = 0; place < slot->places(); ++place) {
      if (slot->reasons[static_cast<size_t>(place)].empty()) good.push_back(place);
    }
    if (good.empty()) continue;

    batch->clips = s.shapes.clips;
    batch->first_row = slot->first_row;
    batch->imgs = KeepRows(slot->imgs, good, slot->places());
    batch->heatmap_imgs = KeepRows(slot->heatmap_imgs, good, slot->places());
    batch->joints.tensor = KeepRows(slot->joints, good, slot->places());
    batch->joints.side = s.phase == Phase::kTrain ? s.config.data.crop : s.config.data.test_size;
    batch->joints.mirrored =
        s.phase == Phase::kTest && (s.flip || s.config.data.heatmap.double_flip);
    batch->labels = at::empty({static_cast<int64_t>(good.size())}, at::kLong);
    int64_t* labels = batch->labels.data_ptr<int64_t>();
    for (const int64_t place : good) {
      const int64_t index = slot->samples[static_cast<size_t>(place)];
      const Sample& sample = s.dataset.samples[static_cast<size_t>(index)];
      *labels++ = sample.label;
      batch->ids.push_back(sample.id);
      batch->sample_index.push_back(index);
    }
    return true;
  }
  return false;
}

int64_t Loader::batches_per_epoch() const {
  return MicroBatches(state_->sampler.samples(), state_->batch_size, state_->shard).count();
}
int64_t Loader::samples_per_epoch() const { return state_->sampler.samples(); }

LoaderPosition Loader::position() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return {state_->epoch, state_->next_batch, state_->batches.skipped()};
}

std::vector<BadClip> Loader::bad_clips() const { return state_->bad_clips; }
double Loader::wait_seconds() const { return state_->wait_seconds; }

}  // namespace kinefit
