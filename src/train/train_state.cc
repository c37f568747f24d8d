#include "train/train_state.h"

#include <algorithm>
#include <utility>

#include "config/load.h"
#include "files/error.h"
#include "train/settings_diff.h"

namespace kinefit {
namespace {

constexpr int64_t kFormatVersion = 1;
constexpr const char* kOtherCheckpoint =
    "resume from another checkpoint, or start anew in another train.work_dir";

std::vector<std::pair<std::string, at::Tensor>> Targets(const Network& network) {
  std::vector<std::pair<std::string, at::Tensor>> targets;
  for (const NamedTensor& entry : network.StateDict()) {
    targets.emplace_back(entry.name, entry.tensor);
  }
  return targets;
}

CheckpointDict OptimizerEntry(const TrainParts& parts, double lr) {
  CheckpointList names;
  for (const NamedTensor& parameter : parts.optimizer->parameters()) {
    names.emplace_back(parameter.name);
  }
  CheckpointDict group = parts.optimizer->Hyperparameters();
  group.insert(group.begin(), {"lr", lr});
  group.emplace_back("params", std::move(names));
  return {{"state", parts.optimizer->State()}, {"param_groups", CheckpointList{std::move(group)}}};
}

CheckpointDict TrainingEntry(const TrainState& state, const RunIdentity& identity) {
  const int64_t epoch = state.iteration / identity.steps_per_epoch;
  const int64_t step = state.iteration % identity.steps_per_epoch;
  CheckpointList bad_clips;
  for (const BadClip& clip : state.bad_clips) {
    bad_clips.emplace_back(CheckpointDict{{"id", clip.id}, {"reason", clip.reason}});
  }
  CheckpointDict training = {
      {"iteration", state.iteration},
      {"epoch", epoch},
      {"next_batch", (step - state.epoch_start.first_step) * identity.accumulate},
      {"validation_pending", state.validation_pending},
      {"best_top1", state.best_top1},
      {"best_iteration", state.best_iteration},
      {"stale_validations", state.stale_validations},
      {"skipped_in_a_row", state.skipped_in_a_row},
      {"bad_clips", std::move(bad_clips)},
      {"seed", identity.seed},
      {"batch_size", identity.batch_size},
      {"accumulate", identity.accumulate},
      {"world", identity.world},
      {"skipped_samples", state.epoch_start.skipped},
      {"first_step", state.epoch_start.first_step},
      {"samples_per_epoch", identity.samples_per_epoch},
      {"steps_per_epoch", identity.steps_per_epoch},
      {"threads", identity.threads},
      {"settings", identity.settings}};
  if (state.plan.batch_size > 0) {
    training.emplace_back("plan", CheckpointDict{{"batch_size", state.plan.batch_size},
                                                 {"accumulate", state.plan.accumulate},
                                                 {"recompute", state.plan.recompute},
                                                 {"eval_batch_size", state.plan.eval_batch_size}});
  }
  return training;
}

// Reads members of one dict, naming file and key in every complaint.
class DictReader {
 public:
  DictReader(const CheckpointValue& dict, std::string where)
      : dict_(dict), where_(std::move(where)) {}
  bool Has(const std::string& key) const { return dict_.Find(key) != nullptr; }
  const CheckpointValue& Get(const std::string& key) const {
    const CheckpointValue* value = dict_.Find(key);
    if (value == nullptr) {
      throw Error("the training state has no \"" + key + "\"", where_, kOtherCheckpoint);
    }
    return *value;
  }
  int64_t Int(const std::string& key) const { return Get(key).AsInt(where_ + "." + key); }
  // An integer that cannot be below `least`.
  int64_t Int(const std::string& key, int64_t least) const {
    const int64_t value = Int(key);
    if (value >= least) return value;
    throw Error("the training state's \"" + key + "\" is " + std::to_string(value), where_,
                kOtherCheckpoint);
  }
  double Double(const std::string& key) const { return Get(key).AsDouble(where_ + "." + key); }
  bool Bool(const std::string& key) const { return Get(key).AsBool(where_ + "." + key); }
  const std::string& String(const std::string& key) const {
    return Get(key).AsString(where_ + "." + key);
  }
  const CheckpointList& List(const std::string& key) const {
    return Get(key).AsList(where_ + "." + key);
  }

 private:
  const CheckpointValue& dict_;
  std::string where_;
};

const CheckpointValue* Find(const CheckpointDict& root, const std::string& key) {
  for (const auto& [name, value] : root) {
    if (name == key) return &value;
  }
  return nullptr;
}

TrainState ReadState(const DictReader& training, const std::string& path) {
  TrainState state;
  state.iteration = training.Int("iteration", 0);
  state.validation_pending = training.Bool("validation_pending");
  state.best_top1 = training.Double("best_top1");
  state.best_iteration = training.Int("best_iteration", 0);
  state.stale_validations = training.Int("stale_validations", 0);
  state.skipped_in_a_row = training.Int("skipped_in_a_row", 0);
  for (const CheckpointValue& entry : training.List("bad_clips")) {
    const DictReader clip(entry, path + ": training.bad_clips");
    state.bad_clips.push_back({clip.String("id"), clip.String("reason")});
  }
  if (training.Has("skipped_samples")) {
    state.epoch_start = {training.Int("skipped_samples", 0), training.Int("first_step", 0)};
  }
  if (training.Has("plan")) {
    const DictReader plan(training.Get("plan"), path + ": training.plan");
    state.plan = {plan.Int("batch_size", 1), plan.Int("accumulate", 1), plan.String("recompute"),
                  plan.Int("eval_batch_size", 1)};
  }
  return state;
}

void NoteChange(const std::string& what, int64_t before, int64_t now,
                std::vector<std::string>* changes) {
  if (before == now) return;
  changes->push_back(what + ": " + std::to_string(before) + " -> " + std::to_string(now));
}

// Where a run with steps of another size stands where the saved one stood: as many samples into
// the same epoch. The steps that are left keep their numbers at the end of the epoch; so it may
// count as further on than it is, and its last step may be short.
void TranslatePosition(const DictReader& training, const RunIdentity& now, TrainState* state) {
  const int64_t world = training.Has("world") ? training.Int("world", 1) : 1;
  const int64_t per_step = training.Int("batch_size", 1) * training.Int("accumulate", 1) * world;
  const int64_t steps = training.Int("steps_per_epoch", 1);
  const int64_t step = state->iteration % steps;
  if (steps == now.steps_per_epoch && per_step == now.samples_per_step()) return;
  int64_t seen = state->epoch_start.skipped + (step - state->epoch_start.first_step) * per_step;
  // Of an epoch with fewer samples than then, one step is left.
  seen = std::min(seen, now.samples_per_epoch - 1);
  const int64_t left =
      (now.samples_per_epoch - seen + now.samples_per_step() - 1) / now.samples_per_step();
  const int64_t first_step = now.steps_per_epoch - left;
  state->epoch_start = {seen, first_step};
  state->iteration = state->iteration / steps * now.steps_per_epoch + first_step;
}

void RestoreParts(const CheckpointDict& root, const std::string& path, const TrainParts& parts,
                  std::vector<std::string>* changes) {
  LoadInto(Targets(*parts.network), StateDictOf(root, path), /*strict=*/true, path);
  const std::string& optimizer_type =
      DictReader(*Find(root, "training"), path + ": training").String("optimizer_type");
  if (optimizer_type != parts.optimizer->type()) {
    throw Error("the checkpoint was written with the optimizer \"" + optimizer_type +
                    "\", the configuration has \"" + parts.optimizer->type() + "\"",
                path, "keep the optimizer, or start anew with train.init set to this checkpoint");
  }
  const DictReader optimizer(*Find(root, "optimizer"), path + ": optimizer");
  parts.optimizer->Load(optimizer.Get("state").AsDict(path + ": optimizer.state"), path);
  const CheckpointValue* ema = Find(root, "ema");
  if (parts.ema != nullptr && ema != nullptr) {
    parts.ema->Load(*ema, path);
  } else if (parts.ema != nullptr) {
    changes->push_back("the checkpoint has no averaged weights: averaging (EMA) starts now");
  }
  const CheckpointValue* scaler = Find(root, "loss_scaler");
  if (parts.scaler != nullptr && scaler != nullptr) parts.scaler->Load(*scaler, path);
}

}  // namespace

namespace {

// Replaces weights by their averages. `ema` is what Ema::State() gives.
void UseAveraged(const CheckpointDict& ema, CheckpointDict* weights) {
  const CheckpointDict& averaged = Find(ema, "state_dict")->AsDict("state_dict");
  for (auto& [name, value] : *weights) {
    if (const CheckpointValue* average = Find(averaged, name)) value = *average;
  }
}

}  // namespace

CheckpointDict MakeTrainCheckpoint(const TrainParts& parts, const TrainState& state,
                                   const RunIdentity& identity, bool weights_only) {
  CheckpointDict weights;
  for (const NamedTensor& entry : parts.network->StateDict()) {
    weights.emplace_back(entry.name, entry.tensor.detach());
  }
  // The network that was validated: whoever reads the file finds it under the usual name.
  if (weights_only && parts.ema != nullptr) UseAveraged(parts.ema->State(), &weights);
  CheckpointList classes;
  for (const std::string& name : identity.class_names) classes.emplace_back(name);
  const int64_t epoch = state.iteration / identity.steps_per_epoch;
  CheckpointDict root = {{"format_version", kFormatVersion},
                         {"meta", CheckpointDict{{"epoch", epoch}, {"iter", state.iteration}}},
                         {"state_dict", std::move(weights)},
                         {"config", identity.effective_config},
                         {"class_names", std::move(classes)}};
  if (weights_only) return root;
  if (parts.ema != nullptr) root.emplace_back("ema", parts.ema->State());
  CheckpointDict training = TrainingEntry(state, identity);
  training.emplace_back("optimizer_type", parts.optimizer->type());
  const double lr = parts.learning_rate->At(state.iteration);
  root.emplace_back("optimizer", OptimizerEntry(parts, lr));
  root.emplace_back("param_schedulers", parts.learning_rate->State(state.iteration));
  if (parts.scaler != nullptr) root.emplace_back("loss_scaler", parts.scaler->State());
  root.emplace_back("training", std::move(training));
  return root;
}

void RefuseOtherNetwork(const CheckpointDict& root, const std::string& path, const Config& config) {
  const CheckpointValue* text = Find(root, "config");
  if (text == nullptr || !std::holds_alternative<std::string>(text->value())) return;
  std::string type;
  try {
    type = LoadConfigText(text->AsString(path), path + ": config").config.model.type;
  } catch (const Error&) {
    return;  // of another version; whether the weights fit shows next
  }
  if (type == config.model.type) return;
  throw Error(
      "the run there is of model.type \"" + type + "\"; this is \"" + config.model.type + "\"",
      path, "choose another train.work_dir (--work-dir) for this network");
}

bool IsResumable(const CheckpointDict& root) {
  return Find(root, "training") != nullptr && Find(root, "optimizer") != nullptr &&
         Find(root, "state_dict") != nullptr;
}

TrainState RestoreTrainCheckpoint(const CheckpointDict& root, const std::string& path,
                                  const TrainParts& parts, const RunIdentity& identity,
                                  std::vector<std::string>* changes) {
  if (!IsResumable(root)) {
    throw Error("this checkpoint holds weights but not the state of a kinefit training run", path,
                "use it as train.init to start from its weights");
  }
  if (const CheckpointValue* version = Find(root, "format_version")) {
    if (version->AsInt(path + ": format_version") > kFormatVersion) {
      throw Error("this checkpoint was written by a newer version of kinefit", path,
                  "resume it with that version");
    }
  }
  const DictReader training(*Find(root, "training"), path + ": training");
  RestoreParts(root, path, parts, changes);
  TrainState state = ReadState(training, path);
  NoteChange("samples per epoch", training.Int("samples_per_epoch"), identity.samples_per_epoch,
             changes);
  NoteChange("threads", training.Int("threads"), identity.threads, changes);
  for (std::string& line : SettingsThatDiffer(training.String("settings"), identity.settings)) {
    changes->push_back(std::move(line));
  }
  if (training.Has("world")) NoteChange("ranks", training.Int("world"), identity.world, changes);
  const int64_t before = state.iteration;
  TranslatePosition(training, identity, &state);
  if (before != state.iteration) {
    changes->push_back("an epoch now has " + std::to_string(identity.steps_per_epoch) +
                       " steps: iteration " + std::to_string(before) + " counts as iteration " +
                       std::to_string(state.iteration));
  }
  return state;
}

}  // namespace kinefit
