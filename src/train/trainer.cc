#include "train/trainer.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <new>
#include <optional>

#include "checkpoint/checkpoint.h"
#include "config/options.h"
#include "files/error.h"
#include "files/publish.h"
#include "memory/cpu_allocator.h"
#include "memory/gpu.h"
#include "train/agreement.h"
#include "train/batch_feed.h"
#include "train/ema.h"
#include "train/initial_weights.h"
#include "train/loss_scaler.h"
#include "train/nan_guard.h"
#include "train/optimizer.h"
#include "train/process_memory.h"
#include "train/recovery.h"
#include "train/run_folder.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/step_rehearsal.h"
#include "train/train_state.h"

namespace kinefit {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", value);
  return text;
}

// config.optimizer.lr, scaled linearly with the samples per step if a base is given (Goyal et al.
// 2017; mmengine's auto_scale_lr).
double BaseLearningRate(const TrainConfig& train, int64_t world, TrainObserver& observer) {
  const double lr = train.optimizer.lr;
  if (train.base_batch_size <= 0) return lr;
  const int64_t effective = train.batch_size * train.accumulate * world;
  const double scaled =
      lr * static_cast<double>(effective) / static_cast<double>(train.base_batch_size);
  observer.OnMessage("learning rate scaled from " + Number(lr) + " to " + Number(scaled) + ": " +
                     std::to_string(train.batch_size) + " clips x " +
                     std::to_string(train.accumulate) + " accumulated" +
                     (world > 1 ? " x " + std::to_string(world) + " ranks" : "") + " = " +
                     std::to_string(effective) + " per step, base_batch_size is " +
                     std::to_string(train.base_batch_size));
  return scaled;
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

TrainLength LengthOf(const TrainConfig& train, int64_t steps_per_epoch) {
  TrainLength length;
  length.steps_per_epoch = steps_per_epoch;
  length.total_iterations =
      train.iterations > 0 ? train.iterations : train.epochs * steps_per_epoch;
  length.epochs = (length.total_iterations + steps_per_epoch - 1) / steps_per_epoch;
  return length;
}

// One call of Train(). Declared in the order in which the parts are built.
class TrainingRun {
 public:
  TrainingRun(Network& network, const Config& config, const Dataset& train_set,
              const Validator& validate, const std::string& effective_config,
              TrainObserver& observer, const volatile bool* interrupted, Group* group)
      : alone_(Alone()),
        group_(group == nullptr ? *alone_ : *group),
        network_(network),
        config_(config),
        validate_(validate),
        observer_(observer),
        interrupted_(interrupted),
        folder_(config.train.work_dir),
        train_set_(train_set),
        loader_(MakeLoader()),
        feed_(MakeFeed()),
        length_(LengthOf(config.train, feed_->steps_per_epoch())),
        optimizer_(MakeOptimizer(config.train.optimizer, network.parameters())),
        learning_rate_(config.train.schedule,
                       BaseLearningRate(config.train, group_.world(), observer), length_),
        guard_(config_.train),
        recovery_(group_.world()) {
    if (config.train.precision == "fp16") scaler_.emplace();
    exchange_ = MakeExchange();
    step_ = MakeStep();
    identity_.effective_config = effective_config;
    identity_.settings = DumpConfig(config);
    identity_.class_names = train_set.class_names;
    identity_.seed = config.seed;
    identity_.batch_size = config.train.batch_size;
    identity_.accumulate = config.train.accumulate;
    identity_.world = group_.world();
    identity_.samples_per_epoch = loader_->samples_per_epoch();
    identity_.steps_per_epoch = length_.steps_per_epoch;
    identity_.threads = at::get_num_threads();
  }

  TrainResult Run();

 private:
  void Begin();
  void Resume(const std::string& path, const CheckpointDict& root);
  std::optional<TrainResult> AlreadyOver();
  std::unique_ptr<Loader> MakeLoader() const {
    return std::make_unique<Loader>(train_set_, config_, Phase::kTrain, config_.train.batch_size,
                                    /*clips=*/1, /*flip=*/false,
                                    Shard{group_.rank(), group_.world()});
  }
  std::unique_ptr<BatchFeed> MakeFeed() const {
    return std::make_unique<BatchFeed>(*loader_, config_.train.accumulate);
  }
  std::unique_ptr<TrainStep> MakeStep() {
    return std::make_unique<TrainStep>(
        network_, config_, *optimizer_, scaler_ ? &*scaler_ : nullptr,
        StepPartners{exchange_.get(), group_.world(), config_.distributed.sync_bn, interrupted_});
  }
  bool several() const { return group_.world() > 1; }
  std::unique_ptr<StepExchange> MakeExchange();
  void ShareWeights();
  void ShareStatistics(int64_t from);
  void ShareBadClips();
  void AskWhetherToStop();
  Recovery::Decision Decide(const std::function<Recovery::Decision()>& decide);
  std::string FailureOf(const std::vector<int64_t>& ranks, const std::string& own);
  void RunEpoch();
  bool NextBatch(int64_t step, Batch* batch);
  StepResult RunStep(int64_t epoch, int64_t step, double lr);
  void Recover(int64_t epoch, int64_t step, const std::string& failure);
  void UsePlan();
  void AdoptPlan();
  [[noreturn]] void GiveUp(const std::string& why);
  void TakeStep(int64_t epoch, int64_t step);
  void Report(const StepResult& result, int64_t epoch, int64_t step, double lr, double seconds,
              double waited, bool skipped);
  void CollectBadClips();
  void CheckBadClips() const;
  void FinishEpoch();
  bool Validate();
  std::optional<ValidationResult> TryValidation(std::string* failure);
  void Record(const ValidationResult& result);
  void Save();
  TrainResult End(TrainEnd end);

  // With several ranks only what all know counts, so that all do the same.
  bool Interrupted() const {
    if (several()) return stop_;
    return interrupted_ != nullptr && *interrupted_;
  }
  bool EpochOver() const {
    return state_.iteration % length_.steps_per_epoch == 0 ||
           state_.iteration >= length_.total_iterations;
  }
  bool StoppedEarly() const {
    return config_.train.early_stop > 0 && state_.stale_validations >= config_.train.early_stop;
  }
  bool Over() const { return state_.iteration >= length_.total_iterations || StoppedEarly(); }
  TrainParts Parts() {
    return {&network_, optimizer_.get(), &learning_rate_, ema_ ? &*ema_ : nullptr,
            scaler_ ? &*scaler_ : nullptr};
  }

  const std::unique_ptr<Group> alone_;
  Group& group_;
  bool stop_ = false;  // some rank was asked to stop, and all know
  Network& network_;
  Config config_;  // as the run has it now: recovery may change its plan
  const Validator& validate_;
  TrainObserver& observer_;
  const volatile bool* interrupted_;
  RunFolder folder_;
  const Dataset& train_set_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<BatchFeed> feed_;
  TrainLength length_;
  std::unique_ptr<Optimizer> optimizer_;
  LearningRate learning_rate_;
  std::optional<LossScaler> scaler_;
  std::optional<Ema> ema_;
  std::unique_ptr<StepExchange> exchange_;
  std::unique_ptr<TrainStep> step_;
  NanGuard guard_;
  Recovery recovery_;
  RunIdentity identity_;
  TrainState state_;
  std::string last_checkpoint_;
  int64_t saved_iteration_ = -1;  // of last_checkpoint_
};

TrainResult TrainingRun::Run() {
  Begin();
  if (const auto over = AlreadyOver()) return *over;
  if (state_.validation_pending && !Validate()) return End(TrainEnd::kInterrupted);
  while (!Over()) {
    RunEpoch();
    if (!EpochOver()) {  // interrupted on the way
      if (saved_iteration_ != state_.iteration) Save();
      return End(TrainEnd::kInterrupted);
    }
    FinishEpoch();
    if (state_.validation_pending && !Validate()) return End(TrainEnd::kInterrupted);
    if (Interrupted() && !Over()) return End(TrainEnd::kInterrupted);
  }
  return End(StoppedEarly() ? TrainEnd::kEarlyStop : TrainEnd::kFinished);
}

// Work dir, initial weights or resume.
void TrainingRun::Begin() {
  std::optional<RunFolder::Found> found;
  if (group_.leads()) found = folder_.CheckpointToResume(config_.train.resume, observer_);
  ShareCheckpoint(group_, &found);
  if (!found && group_.leads()) {
    for (const std::string& line : LoadInitialWeights(config_, network_)) {
      observer_.OnMessage(line);
    }
  }
  ShareWeights();
  if (config_.train.ema) ema_.emplace(network_, config_.train.ema_momentum);
  if (found) Resume(found->path, found->root);
  // Once nothing is refused any more, and before the first step: an unwritable folder shows now.
  if (group_.leads()) {
    PublishFile(config_.train.work_dir + "/config.toml", identity_.effective_config);
  }
}

std::unique_ptr<StepExchange> TrainingRun::MakeExchange() {
  if (!several()) return nullptr;
  std::vector<at::Tensor> parameters;
  for (const NamedTensor& parameter : network_.parameters()) {
    parameters.push_back(parameter.tensor);
  }
  ExchangeOptions options;
  options.bucket_bytes = static_cast<double>(config_.distributed.bucket_mib << 20);
  if (config_.distributed.sync_bn) {
    // Of one batch norm: two numbers per channel, and their count.
    for (const NamedTensor& buffer : network_.buffers()) {
      options.statistics = std::max(options.statistics, 2 * buffer.tensor.numel() + 1);
    }
  }
  return group_.MakeStepExchange(parameters, GradientOrder(config_), options);
}

// Parameters and buffers are rank 0's.
void TrainingRun::ShareWeights() {
  if (!several()) return;
  std::vector<at::Tensor> tensors;
  for (const NamedTensor& entry : network_.StateDict()) tensors.push_back(entry.tensor);
  group_.Broadcast(tensors, 0);
}

void TrainingRun::ShareStatistics(int64_t from) {
  std::vector<at::Tensor> tensors;
  for (const NamedTensor& buffer : network_.buffers()) tensors.push_back(buffer.tensor);
  group_.Broadcast(tensors, from);
}

// From now on all ranks have the bad clips of all.
void TrainingRun::ShareBadClips() {
  if (!several()) return;
  AddBadClips(group_, &state_.bad_clips);
  CheckBadClips();
}

void TrainingRun::AskWhetherToStop() {
  if (!several()) return;
  double asked = interrupted_ != nullptr && *interrupted_ ? 1 : 0;
  at::Tensor all = at::from_blob(&asked, {1}, at::kDouble);  // takes no memory that may be short
  group_.Sum(all);
  stop_ = stop_ || asked > 0;
}

// Rank 0 decides for all: another rank may know of other memory than it.
Recovery::Decision TrainingRun::Decide(const std::function<Recovery::Decision()>& decide) {
  if (!several()) return decide();
  Recovery::Decision decision;
  if (group_.leads()) {
    decision = decide();
  } else {
    ReleaseCache();
    ReleaseGpuCache();
  }
  ShareDecision(group_, &decision, &config_);
  return decision;
}

// What made the ranks call the step off: the words of the first that failed.
std::string TrainingRun::FailureOf(const std::vector<int64_t>& ranks, const std::string& own) {
  const int64_t first = ranks.front();
  return "rank " + std::to_string(first) + " " + group_.Share(own, first);
}

void TrainingRun::Resume(const std::string& path, const CheckpointDict& root) {
  std::vector<std::string> changes;
  state_ = RestoreTrainCheckpoint(root, path, Parts(), identity_, &changes);
  last_checkpoint_ = path;
  saved_iteration_ = state_.iteration;
  const int64_t epoch = state_.iteration / length_.steps_per_epoch;
  observer_.OnMessage("resumed from " + path + ": iteration " + std::to_string(state_.iteration) +
                      " of " + std::to_string(length_.total_iterations) + ", epoch " +
                      std::to_string(epoch + 1) + ", step " +
                      std::to_string(state_.iteration % length_.steps_per_epoch) + " of " +
                      std::to_string(length_.steps_per_epoch));
  for (const std::string& change : changes) {
    observer_.OnMessage("changed since that checkpoint, so results will differ: " + change);
  }
  AdoptPlan();
  const bool has_best = group_.Share(folder_.HasBest() ? "yes" : "no", 0) == "yes";
  if (state_.best_top1 >= 0 && !has_best) {
    observer_.OnMessage("there is no " + folder_.BestPath() +
                        ": the next validated epoch becomes the best one");
    state_.best_top1 = -1;
  }
}

std::optional<TrainResult> TrainingRun::AlreadyOver() {
  if (!Over() || state_.validation_pending) return std::nullopt;
  observer_.OnMessage("the run in " + config_.train.work_dir + " is already finished (" +
                      (StoppedEarly() ? "stopped early, " : "") + std::to_string(state_.iteration) +
                      " iterations" +
                      (state_.best_top1 >= 0 ? ", best top-1 " + Number(state_.best_top1) : "") +
                      "); train longer or use another train.work_dir to train again");
  return End(StoppedEarly() ? TrainEnd::kEarlyStop : TrainEnd::kFinished);
}

// From where the state stands to the end of the epoch, of training, or an interruption.
void TrainingRun::RunEpoch() {
  const int64_t epoch = state_.iteration / length_.steps_per_epoch;
  const int64_t first_step = state_.iteration % length_.steps_per_epoch;
  network_.Train(true);
  feed_->Start(epoch, first_step, state_.epoch_start);
  do {
    TakeStep(epoch, state_.iteration % length_.steps_per_epoch);
    const int64_t every = config_.train.checkpoint_every;
    if (!EpochOver() && every > 0 && state_.iteration % every == 0) Save();
  } while (!EpochOver() && !Interrupted());
}

void TrainingRun::TakeStep(int64_t epoch, int64_t step) {
  const Clock::time_point start = Clock::now();
  const double waited_before = loader_->wait_seconds();
  const double lr = learning_rate_.At(state_.iteration);
  const StepResult result = RunStep(epoch, step, lr);
  stop_ = stop_ || result.stop;
  if (result.statistics_of >= 0 && config_.distributed.sync_bn) {
    ShareStatistics(result.statistics_of);
  }
  bool skipped = result.overflow;
  if (result.samples > 0) {
    skipped |= guard_.Check(result, state_.iteration, &state_.skipped_in_a_row, group_);
    const AllocationReserve::Use reserve;  // the weights are updated: this must not fail either
    if (!skipped && ema_) ema_->Update();
  }
  ++state_.iteration;
  CollectBadClips();
  if (result.samples == 0) return;  // every clip of the step was bad
  Report(result, epoch, step, lr, SecondsSince(start),
         std::max(0.0, loader_->wait_seconds() - waited_before), skipped);
}

bool TrainingRun::NextBatch(int64_t step, Batch* batch) {
  group_.Tell(state_.iteration, RankPhase::kLoading);
  const bool there = feed_->Next(step, batch);
  group_.Tell(state_.iteration, RankPhase::kComputing);
  return there;
}

// Steps are all or nothing: one that ran out of memory is run again on the same samples.
StepResult TrainingRun::RunStep(int64_t epoch, int64_t step, double lr) {
  for (;;) {
    std::string failure;
    std::vector<int64_t> failed;
    try {
      return step_->Run(state_.iteration, lr, [&](Batch* batch) { return NextBatch(step, batch); });
    } catch (const StepCalledOff& off) {
      failed = off.ranks();
    } catch (const c10::OutOfMemoryError& error) {
      failure = FirstLine(error.msg());
    } catch (const std::bad_alloc&) {
      failure = "out of memory: the system gives no more";
    }
    failure = "(" + std::string(step_->at_work()) + "): " + failure;
    if (failed.empty()) failed = step_->failed_ranks();
    if (several()) failure = FailureOf(failed, failure);
    Recover(epoch, step,
            "epoch " + std::to_string(epoch + 1) + ", step " + std::to_string(step + 1) + " " +
                failure);
  }
}

void TrainingRun::Recover(int64_t epoch, int64_t step, const std::string& failure) {
  CollectBadClips();  // starting the loader anew forgets them
  const Recovery::Decision decision =
      Decide([&] { return recovery_.AfterStep(state_.iteration, failure, &config_); });
  if (!decision.go_on) GiveUp(decision.message);
  observer_.OnMessage(decision.message);
  if (decision.new_plan) {
    state_.plan = {config_.train.batch_size, config_.train.accumulate, config_.memory.recompute,
                   config_.eval.batch_size};
    UsePlan();
  }
  feed_->Start(epoch, step, state_.epoch_start);
}

// Makes what depends on the plan anew.
void TrainingRun::UsePlan() {
  feed_.reset();
  loader_.reset();  // gives back its batches before the new one takes memory for its own
  loader_ = MakeLoader();
  feed_ = MakeFeed();
  network_.SetRecompute(
      ParseRecompute(config_.memory.recompute, network_.Segments(), "memory.recompute"));
  // step_ looks the plan up in config_.
}

// The plan to which the resumed run had to change goes on, so that its results do, too.
void TrainingRun::AdoptPlan() {
  const RecoveredPlan& plan = state_.plan;
  if (plan.batch_size == 0 || config_.memory.plan != "auto") return;
  if (plan.batch_size * plan.accumulate != config_.train.batch_size * config_.train.accumulate) {
    state_.plan = {};
    return;
  }
  config_.train.batch_size = plan.batch_size;
  config_.train.accumulate = plan.accumulate;
  config_.memory.recompute = plan.recompute;
  config_.eval.batch_size = std::min(config_.eval.batch_size, plan.eval_batch_size);
  UsePlan();
  observer_.OnMessage("memory ran out before that checkpoint; its plan is kept: micro-batches of " +
                      std::to_string(plan.batch_size) + " x " + std::to_string(plan.accumulate) +
                      ", recompute " + plan.recompute);
}

// REQUIRES: the run stands between two steps.
void TrainingRun::GiveUp(const std::string& why) {
  if (saved_iteration_ != state_.iteration) Save();
  throw c10::OutOfMemoryError(why + "; everything up to this step is saved in " + last_checkpoint_ +
                                  ", and the same command goes on from there once there is memory",
                              /*backtrace=*/{});
}

void TrainingRun::Report(const StepResult& result, int64_t epoch, int64_t step, double lr,
                         double seconds, double waited, bool skipped) {
  StepReport report;
  report.epoch = epoch;
  report.step_in_epoch = step;
  report.steps_per_epoch = length_.steps_per_epoch;
  report.iteration = state_.iteration;
  report.total_iterations = length_.total_iterations;
  report.loss = result.loss;
  report.losses = result.losses;
  report.top1 = result.top1;
  report.lr = lr;
  report.grad_norm = result.grad_norm;
  report.samples = result.samples;
  report.seconds = seconds;
  report.wait_seconds = waited;
  const bool on_cpu = config_.device == "cpu";
  report.tensor_bytes = on_cpu ? CpuMemoryUse().peak : GpuPeakBytes(config_.device);
  report.memory_bytes = on_cpu ? PeakResidentBytes() : report.tensor_bytes;
  report.skipped = skipped;
  observer_.OnStep(report);
}

// The loader counts from where it was started; what a resumed epoch met before its checkpoint is in
// the state.
void TrainingRun::CollectBadClips() {
  for (const BadClip& clip : loader_->bad_clips()) {
    bool known = false;
    for (const BadClip& seen : state_.bad_clips) known = known || seen.id == clip.id;
    if (!known) state_.bad_clips.push_back(clip);
  }
  CheckBadClips();
}

void TrainingRun::CheckBadClips() const {
  const double limit =
      config_.data.max_bad_share * static_cast<double>(identity_.samples_per_epoch);
  // A clip that is bad is bad each time it comes up.
  const auto count = static_cast<int64_t>(state_.bad_clips.size()) * config_.data.repeat;
  if (static_cast<double>(count) <= limit) return;
  throw Error(
      std::to_string(count) + " of " + std::to_string(identity_.samples_per_epoch) +
          " clips of this epoch cannot be used; the first: " + state_.bad_clips.front().reason,
      state_.bad_clips.front().id, "repair the data, or raise data.max_bad_share");
}

// Saves before validating, so that no training is lost with a validation that is cut off.
void TrainingRun::FinishEpoch() {
  const int64_t epoch = (state_.iteration - 1) / length_.steps_per_epoch;
  ShareBadClips();
  observer_.OnBadClips(epoch, state_.bad_clips, identity_.samples_per_epoch);
  state_.bad_clips.clear();
  state_.epoch_start = {};
  const int64_t every = config_.train.val_every;
  const bool last = state_.iteration >= length_.total_iterations;
  state_.validation_pending = validate_ && every > 0 && (last || (epoch + 1) % every == 0);
  Save();
}

// False if an interruption cut it off; its checkpoint then says that it has to be done again.
bool TrainingRun::Validate() {
  group_.Tell(state_.iteration, RankPhase::kValidating);
  for (;;) {
    AskWhetherToStop();
    if (Interrupted()) return false;
    std::string failure;
    const std::optional<ValidationResult> result = TryValidation(&failure);
    AskWhetherToStop();
    // What came back after a signal may be the score of half the set.
    if (Interrupted()) return false;
    if (result) {
      recovery_.ValidationDone();
      Record(*result);
      return true;
    }
    const Recovery::Decision decision =
        Decide([&] { return recovery_.AfterValidation(failure, &config_); });
    if (!decision.go_on) GiveUp(decision.message);
    observer_.OnMessage(decision.message);
  }
}

// Nothing if memory ran out, with `*failure` saying how, or after a signal.
std::optional<ValidationResult> TrainingRun::TryValidation(std::string* failure) {
  const EmaWeightsInUse averaged(ema_ ? &*ema_ : nullptr);
  try {
    return validate_(network_, config_);
  } catch (const c10::OutOfMemoryError& error) {
    *failure = FirstLine(error.msg());
  } catch (const std::bad_alloc&) {
    *failure = "out of memory: the system gives no more";
  } catch (const StopAsked&) {
    stop_ = true;
  } catch (...) {
    if (!Interrupted()) throw;
  }
  const int64_t epoch = (state_.iteration - 1) / length_.steps_per_epoch;
  *failure = "validation of epoch " + std::to_string(epoch + 1) + ": " + *failure;
  return std::nullopt;
}

void TrainingRun::Record(const ValidationResult& result) {
  const bool best = result.fused_top1 > state_.best_top1;
  ++state_.stale_validations;
  if (best) {
    state_.best_top1 = result.fused_top1;
    state_.best_iteration = state_.iteration;
    state_.stale_validations = 0;
  }
  state_.validation_pending = false;
  observer_.OnValidation((state_.iteration - 1) / length_.steps_per_epoch, result, best);
  if (best && group_.leads()) {
    WriteCheckpoint(folder_.BestPath(), MakeTrainCheckpoint(Parts(), state_, identity_, true));
    observer_.OnCheckpoint(folder_.BestPath());
  }
  Save();
}

void TrainingRun::Save() {
  group_.Tell(state_.iteration, RankPhase::kSaving);
  ShareBadClips();
  if (several()) {
    if (!config_.distributed.sync_bn || network_.HasPrototypes()) ShareStatistics(0);
    CheckEqualWeights(group_, network_);
  }
  const std::string path = folder_.PathOf(state_.iteration, length_.steps_per_epoch);
  last_checkpoint_ = path;
  saved_iteration_ = state_.iteration;
  if (group_.leads()) {
    WriteCheckpoint(path, MakeTrainCheckpoint(Parts(), state_, identity_, false));
    observer_.OnCheckpoint(path);
    folder_.PointLastTo(path);
    folder_.Prune(config_.train.keep_last, path);
  }
  // Nobody goes on, or ends, with what is not saved.
  if (several()) group_.Share("saved", 0);
}

TrainResult TrainingRun::End(TrainEnd end) {
  TrainResult result;
  result.end = end;
  result.iterations = state_.iteration;
  result.best_top1 = state_.best_top1;
  result.best_checkpoint = folder_.HasBest() ? folder_.BestPath() : "";
  result.last_checkpoint = last_checkpoint_;
  return result;
}

}  // namespace

TrainResult Train(Network& network, const Config& config, const Dataset& train_set,
                  const Validator& validate, const std::string& effective_config,
                  TrainObserver& observer, const volatile bool* interrupted, Group* group) {
  TrainingRun run(network, config, train_set, validate, effective_config, observer, interrupted,
                  group);
  return run.Run();
}

}  // namespace kinefit
