#include "config/option_table.h"

#include <algorithm>

#include "config/option_apply.h"
#include "config/option_value.h"
#include "files/error.h"

namespace kinefit {
namespace {

constexpr size_t kMaxEntries = 64;  // of a list of tables

// What is wrong with `key`.`name` where `key` is a list of `count` tables.
std::string NoSuchEntry(const std::string& key, const std::string& name, size_t count) {
  if (name.find_first_not_of("0123456789") != std::string::npos) {
    return key + " is a list of tables, so " + key + "." + name + " means nothing";
  }
  return key + " has " + std::to_string(count) + " entries, there is no number " + name +
         " (they count from 0)";
}

// Reads the entries of a list of tables: a list replaces them all; a table whose keys are numbers
// ("train.schedule.0.gamma = 0.2") changes those that are there.
template <typename Entry>
void ReadEntries(const std::vector<OptionOf<Entry>>& options, const TomlNode& node,
                 const std::string& key, std::vector<Entry>* entries, Provenance* provenance) {
  if (node.kind == TomlNode::Kind::kList) {
    std::vector<Entry> result(std::min(node.items.size(), kMaxEntries));
    if (node.items.size() > kMaxEntries) {
      throw Error(key + " has more than 64 entries", node.where, "remove some");
    }
    provenance->erase(provenance->lower_bound(key + "."), provenance->lower_bound(key + "/"));
    for (size_t i = 0; i < result.size(); ++i) {
      const std::string entry_key = key + "." + std::to_string(i);
      if (node.items[i].kind != TomlNode::Kind::kTable) {
        throw Error(entry_key + " must be a table, not " + KindName(node.items[i].kind), node.where,
                    "write one [[" + key + "]] section for each entry");
      }
      ApplyTable(options, node.items[i], "", entry_key, &result[i], provenance);
    }
    (*provenance)[key] = node.where;
    *entries = std::move(result);
    return;
  }
  if (node.kind != TomlNode::Kind::kTable) {
    throw Error(key + " must be a list of tables, not " + KindName(node.kind), node.where,
                "write one [[" + key + "]] section for each entry");
  }
  for (const auto& [name, entry] : node.members) {
    size_t index = 0;
    while (index < entries->size() && std::to_string(index) != name) ++index;
    if (index == entries->size()) {
      throw Error(NoSuchEntry(key, name, index), entry.where,
                  "write [[" + key + "]] in double brackets for each entry");
    }
    std::string entry_key = key;
    entry_key.append(".").append(name);
    if (entry.kind != TomlNode::Kind::kTable) {
      throw Error(entry_key + " must be a table, not " + KindName(entry.kind), entry.where,
                  "name one of its keys, for example " + entry_key + "." + options[0].info.key);
    }
    ApplyTable(options, entry, "", entry_key, &(*entries)[index], provenance);
  }
}

// Adds lines for the members of one struct, `Section`, reached from `Root` by `get`.
template <typename Root, typename Section>
class Lines {
 public:
  using Get = std::function<Section&(Root&)>;
  Lines(std::vector<OptionOf<Root>>* out, std::string section, Get get)
      : out_(out), section_(std::move(section)), get_(std::move(get)) {}

  template <typename T>
  void operator()(const char* name, T Section::*member, Rule rule, const char* help,
                  const char* unit = "") const {
    OptionOf<Root> option = Start(name, help, unit);
    option.info.type = TypeName(static_cast<const T*>(nullptr));
    option.info.allowed = Describe(rule);
    option.read = [get = get_, member, rule](Root& root, const TomlNode& node,
                                             const std::string& key, Provenance& provenance) {
      ReadValue(node, key, rule, &(get(root).*member));
      provenance[key] = node.where;
    };
    // Reading through the mutable accessor changes nothing.
    option.write = [get = get_, member](const Root& root) {
      return WriteValue(get(const_cast<Root&>(root)).*member);
    };
    Finish(std::move(option));
  }

  template <typename Entry>
  void List(const char* name, std::vector<Entry> Section::*member,
            const std::vector<OptionOf<Entry>>& options, const char* help) const {
    OptionOf<Root> option = Start(name, help, "");
    option.info.type = "list of tables";
    option.read = [get = get_, member, &options](Root& root, const TomlNode& node,
                                                 const std::string& key, Provenance& provenance) {
      ReadEntries(options, node, key, &(get(root).*member), &provenance);
    };
    option.entries = [get = get_, member, &options](const Root& root) {
      std::vector<typename OptionOf<Root>::Lines> all;
      for (const Entry& entry : get(const_cast<Root&>(root)).*member) {
        all.emplace_back();
        for (const auto& line : options) all.back().emplace_back(line.info.key, line.write(entry));
      }
      return all;
    };
    option.write = [](const Root&) { return std::string("[]"); };  // used only where it is empty
    for (const OptionOf<Entry>& line : options) option.entry_options.push_back(line.info);
    Finish(std::move(option));
  }

  template <typename Sub>
  Lines<Root, Sub> In(const char* name, Sub Section::*member) const {
    return {out_, JoinKey(section_, name),
            [get = get_, member](Root& root) -> Sub& { return get(root).*member; }};
  }

 private:
  OptionOf<Root> Start(const char* name, const char* help, const char* unit) const {
    OptionOf<Root> option;
    option.info.key = JoinKey(section_, name);
    option.info.help = help;
    option.info.unit = unit;
    option.section = section_;
    return option;
  }
  void Finish(OptionOf<Root> option) const {
    option.info.initial = option.write(Root());
    out_->push_back(std::move(option));
  }

  std::vector<OptionOf<Root>>* out_;
  std::string section_;
  Get get_;
};

constexpr double kMany = 1e9;  // bound of counters, far from overflow

template <typename Section>
using ConfigLines = Lines<Config, Section>;

void AddPathway(const ConfigLines<PathwayConfig>& add) {
  using P = PathwayConfig;
  add("in_channels", &P::in_channels, Between(1, 1024),
      "input channels: 3 for RGB; joints and limbs drawn as heatmaps for pose");
  add("base_channels", &P::base_channels, Between(1, 1024), "channels after the stem");
  add("stage_blocks", &P::stage_blocks, Between(1, 256), "bottlenecks of each stage");
  add("inflate", &P::inflate, Between(0, 1),
      "per stage: 1 = the first convolution of a bottleneck is 3x1x1, 0 = 1x1x1");
  add("spatial_strides", &P::spatial_strides, Between(1, 8), "per stage");
  add("temporal_strides", &P::temporal_strides, Between(1, 8), "per stage");
  add("conv1_kernel", &P::conv1_kernel, Between(1, 15), "stem kernel in time, height, width; odd");
  add("conv1_stride_s", &P::conv1_stride_s, Between(1, 8), "stem stride in space");
  add("conv1_stride_t", &P::conv1_stride_t, Between(1, 8), "stem stride in time");
  add("pool1_stride_s", &P::pool1_stride_s, Between(1, 8), "stride of the stem's pool in space");
  add("pool1_stride_t", &P::pool1_stride_t, Between(1, 8), "stride of the stem's pool in time");
  add("lateral_activate", &P::lateral_activate, Between(0, 1),
      "per stage: 1 = its input also has features of the other stream; [] = no laterals");
  add("zero_init_last_bn", &P::zero_init_last_bn, Anything(),
      "start every bottleneck as the identity (gamma of its last batch norm at zero)");
}

void AddModel(const ConfigLines<ModelConfig>& add) {
  add("type", &ModelConfig::type, OneOf({"rgbpose", "pcan", "rgbpose_attention", "rgb", "pose"}),
      "rgbpose = RGBPoseConv3D; pcan = the published PCAN (docs/pcan.md); rgbpose_attention = "
      "RGBPoseConv3D with gated cross-attention over all tokens; rgb, pose = one stream");
  add("num_classes", &ModelConfig::num_classes, Between(1, 100000), "action classes");
  add("groups", &ModelConfig::groups, Between(0, 99999),
      "the classes of each group: the coarse classes (pcan); every class in exactly one");
  add("group_names", &ModelConfig::group_names, Anything(), "one name per group; [] = numbers");
  AddPathway(add.In("rgb", &ModelConfig::rgb));
  AddPathway(add.In("pose", &ModelConfig::pose));

  using F = FusionConfig;
  const auto fusion = add.In("fusion", &ModelConfig::fusion);
  fusion("speed_ratio", &F::speed_ratio, Between(1, 64),
         "pose frames per RGB frame: the laterals' stride in time");
  fusion("channel_ratio", &F::channel_ratio, Between(1, 64),
         "RGB channels per pose channel where the streams meet");
  fusion("fusion_kernel", &F::fusion_kernel, Between(1, 63), "the laterals' kernel in time; odd");
  fusion("rgb_lateral_infl", &F::rgb_lateral_infl, Between(1, 64),
         "width of the pose-to-RGB laterals: RGB channels x this / channel_ratio");
  fusion("pose_lateral_infl", &F::pose_lateral_infl, Between(1, 1024),
         "width of the RGB-to-pose laterals: pose channels x channel_ratio / this");
  fusion("rgb_detach", &F::rgb_detach, Anything(), "the RGB stream's loss does not train pose");
  fusion("pose_detach", &F::pose_detach, Anything(), "the pose stream's loss does not train RGB");
  fusion("rgb_drop_path", &F::rgb_drop_path, Between(0, 1),
         "chance per training step to zero the laterals into RGB");
  fusion("pose_drop_path", &F::pose_drop_path, Between(0, 1),
         "chance per training step to zero the laterals into pose");

  using A = AttentionConfig;
  const auto attention = add.In("attention", &ModelConfig::attention);
  attention("heads", &A::heads, Between(1, 256), "attention heads (rgbpose_attention)");
  attention("width", &A::width, Between(1, 8192),
            "total width of queries, keys and values (rgbpose_attention); a multiple of heads");
  attention("points", &A::points, OneOf({"stage3", "final"}),
            "where attention blocks stand (rgbpose_attention)");
  attention("scope", &A::scope, OneOf({"global", "frame"}),
            "a token sees all tokens of the other stream, or those of the same moment "
            "(rgbpose_attention)");
  attention("chunk", &A::chunk, Between(1, 1 << 20),
            "queries handled at once (rgbpose_attention): smaller needs less memory", "tokens");

  using I = InteractionConfig;
  const auto pcan = add.In("pcan", &ModelConfig::pcan);
  pcan("hidden", &I::hidden, Between(1, 65536),
       "channels inside the two interaction blocks (pcan), multiples of heads; [] = 2 and 4 times "
       "the RGB stream's base channels");
  pcan("heads", &I::heads, Between(1, 256), "attention heads of the interaction blocks (pcan)");
  pcan("attention_dropout", &I::attention_dropout, Between(0, 0.99),
       "dropout of their attention weights (pcan)");
  pcan("coarse_width", &I::coarse_width, Between(1, 65536), "width of coarse prototypes (pcan)");
  pcan("fine_width", &I::fine_width, Between(1, 65536), "width of fine prototypes (pcan)");

  using H = HeadConfig;
  const auto head = add.In("head", &ModelConfig::head);
  head("dropout", &H::dropout, Between(0, 0.99), "before every classifier");
  head("init_std", &H::init_std, AboveUpTo(0, 10), "spread of the classifiers' first weights");
  head("label_smoothing", &H::label_smoothing, Between(0, 0.99), "share spread over all classes");
  head("rgb_loss_weight", &H::rgb_loss_weight, Between(0, 1e6), "weight of the RGB loss");
  head("pose_loss_weight", &H::pose_loss_weight, Between(0, 1e6), "weight of the pose loss");
  head("rgb_coarse_loss_weight", &H::rgb_coarse_loss_weight, Between(0, 1e6),
       "weight of the RGB stream's loss over groups (pcan)");
  head("pose_coarse_loss_weight", &H::pose_coarse_loss_weight, Between(0, 1e6),
       "weight of the pose stream's loss over groups (pcan)");
  head("fused_loss_weight", &H::fused_loss_weight, Between(0, 1e6),
       "weight of the fused classifier's loss (rgbpose_attention)");
}

void AddFiles(const ConfigLines<DataConfig>& add) {
  using D = DataConfig;
  add("annotations", &D::annotations, Anything(),
      "annotation pickle of mmaction2 or pyskl, or a packed store (.kfpack)");
  add("train_annotations", &D::train_annotations, Anything(),
      "those to train on, where they have a file of their own; \"\" = annotations");
  add("val_annotations", &D::val_annotations, Anything(),
      "those to validate on; \"\" = annotations");
  add("test_annotations", &D::test_annotations, Anything(),
      "those to test on; \"\" = those to validate on");
  add("videos", &D::videos, Anything(),
      "folder of the videos; not needed by pose networks and packed stores");
  add("video_suffix", &D::video_suffix, Anything(),
      "the video of an annotation is videos/frame_dir + this");
  add("classes", &D::classes, Anything(), "file with one class name per line; \"\" = numbers");
  add("hierarchy", &D::hierarchy, Anything(),
      "which classes make a group: a name or a file (docs/formats/hierarchy.md); sets model.groups "
      "and model.group_names");
  add("train_split", &D::train_split, Anything(), "\"\" = every annotation");
  add("val_split", &D::val_split, Anything(), "\"\" = every annotation");
  add("test_split", &D::test_split, Anything(),
      "\"\" = as val_split; of test_annotations every annotation");
  add("joints", &D::joints, Anything(),
      "layout of the skeletons: coco17, ntu25, openpose18, openpose25, openpose28, jhmdb15, "
      "msraction20 or a .toml; sets left_joints, right_joints, limbs and model.pose.in_channels "
      "where they are not");
  add("left_joints", &D::left_joints, Between(0, 1023),
      "joints that swap with right_joints, in the same order, when a clip is mirrored");
  add("right_joints", &D::right_joints, Between(0, 1023), "see left_joints");
  add("limbs", &D::limbs, Between(0, 1023), "pairs of joints, for heatmap.with_limbs");
}

void AddTransforms(const ConfigLines<DataConfig>& add) {
  using D = DataConfig;
  add("rgb_frames", &D::rgb_frames, Between(1, 1024), "RGB frames of a clip", "frames");
  add("pose_frames", &D::pose_frames, Between(1, 4096), "pose frames of a clip", "frames");
  add("compact", &D::compact, Anything(), "crop to the box around all joints of the clip");
  add("compact_padding", &D::compact_padding, Between(0, 10), "share added to that box's size");
  add("compact_threshold", &D::compact_threshold, Between(0, 100000),
      "boxes smaller than this are not cropped to", "pixels");
  add("compact_hw_ratio", &D::compact_hw_ratio, Between(0, 100),
      "height / width the box is grown to; 0 = keep its shape");
  add("compact_allow_imgpad", &D::compact_allow_imgpad, Anything(),
      "the box may reach beyond the image, which is padded");
  add("resize", &D::resize, Between(8, 4096), "training: square side before the random crop",
      "pixels");
  add("crop_area_min", &D::crop_area_min, AboveUpTo(0, 1), "random crop: smallest share kept");
  add("crop_area_max", &D::crop_area_max, AboveUpTo(0, 1), "random crop: largest share kept");
  add("crop_aspect_min", &D::crop_aspect_min, AboveUpTo(0, 100),
      "random crop: smallest width / height");
  add("crop_aspect_max", &D::crop_aspect_max, AboveUpTo(0, 100),
      "random crop: largest width / height");
  add("crop", &D::crop, Between(8, 4096), "training: square side after the random crop", "pixels");
  add("test_size", &D::test_size, Between(8, 4096), "validation and test: square side", "pixels");
  add("flip", &D::flip, Between(0, 1), "chance to mirror a training clip");
  add("mean", &D::mean, Between(-1e6, 1e6), "subtracted from red, green, blue (0 to 255)");
  add("std", &D::std, AboveUpTo(0, 1e6), "red, green, blue are divided by this");
  add("repeat", &D::repeat, Between(1, 100000), "times an epoch goes through the training split");
  add("sampling", &D::sampling, OneOf({"shuffle", "balanced"}),
      "training: every sample as often, or every class (rare ones repeat)");
  add("workers", &D::workers, Between(1, 256), "decoding threads");
  add("prefetch", &D::prefetch, Between(1, 256), "finished batches kept ahead", "batches");
  add("max_bad_share", &D::max_bad_share, Between(0, 1),
      "a run stops when more of an epoch's clips than this cannot be read");
}

void AddData(const ConfigLines<DataConfig>& add) {
  AddFiles(add);
  AddTransforms(add);

  using J = ColorJitterConfig;
  const auto jitter = add.In("color_jitter", &DataConfig::color_jitter);
  jitter("enabled", &J::enabled, Anything(), "change colours of training clips at random");
  jitter("brightness", &J::brightness, Between(0, 1), "factor in 1 - this to 1 + this");
  jitter("contrast", &J::contrast, Between(0, 1), "factor in 1 - this to 1 + this");
  jitter("saturation", &J::saturation, Between(0, 1), "factor in 1 - this to 1 + this");
  jitter("hue", &J::hue, Between(0, 0.5), "shift in -this to this, as a share of the circle");

  using M = HeatmapConfig;
  const auto heatmap = add.In("heatmap", &DataConfig::heatmap);
  heatmap("sigma", &M::sigma, AboveUpTo(0, 100), "spread of a joint's Gaussian", "heatmap pixels");
  heatmap("use_score", &M::use_score, Anything(), "a joint's confidence is its peak; else 1");
  heatmap("with_joints", &M::with_joints, Anything(), "one channel per joint");
  heatmap("with_limbs", &M::with_limbs, Anything(), "one channel per entry of data.limbs");
  heatmap("double_flip", &M::double_flip, Anything(), "append the mirrored clip");
  heatmap("scaling", &M::scaling, AboveUpTo(0, 4), "heatmap size / image size");
  heatmap(
      "draw_on", &M::draw_on, OneOf({"host", "device"}),
      "host: the loader draws; device: batches bring joints, drawn where the network runs (less "
      "to keep ready and to copy to a GPU)");
}

void AddOptimizer(const ConfigLines<OptimizerConfig>& add) {
  using O = OptimizerConfig;
  add("type", &O::type, OneOf({"sgd", "adamw"}), "update rule");
  add("lr", &O::lr, AboveUpTo(0, 1000), "learning rate before schedules and scaling");
  add("momentum", &O::momentum, Between(0, 0.9999), "sgd");
  add("nesterov", &O::nesterov, Anything(), "sgd: look ahead");
  add("weight_decay", &O::weight_decay, Between(0, 10), "pull of all weights towards zero");
  add("beta1", &O::beta1, Between(0, 0.999999), "adamw");
  add("beta2", &O::beta2, Between(0, 0.999999), "adamw");
  add("eps", &O::eps, AboveUpTo(0, 1), "adamw");
  add("clip_norm", &O::clip_norm, Between(0, 1e9),
      "largest norm of all gradients; 0 = no clipping");
}

void AddTrain(const ConfigLines<TrainConfig>& add) {
  using T = TrainConfig;
  add("batch_size", &T::batch_size, Between(1, 65536), "clips per micro-batch and device", "clips");
  add("accumulate", &T::accumulate, Between(1, 65536), "micro-batches per optimizer step");
  add("base_batch_size", &T::base_batch_size, Between(0, 1 << 30),
      "> 0: lr is multiplied by (batch_size x accumulate x devices) / this", "clips");
  add("epochs", &T::epochs, Between(1, 1000000), "passes through the training split", "epochs");
  add("iterations", &T::iterations, Between(0, kMany), "> 0: stop after so many steps instead",
      "steps");
  add("ema", &T::ema, Anything(), "validate and keep an exponential average of the weights");
  add("ema_momentum", &T::ema_momentum, AboveUpTo(0, 1), "share of the new weights in each step");
  add("precision", &T::precision, OneOf({"fp32", "bf16", "fp16"}), "of forward and backward");
  add("val_every", &T::val_every, Between(0, 1000000), "0 = never validate", "epochs");
  add("checkpoint_every", &T::checkpoint_every, Between(0, kMany),
      "also save every so many steps; 0 = at the end of epochs only", "steps");
  add("keep_last", &T::keep_last, Between(0, 1000000),
      "checkpoints kept besides the best; 0 = all");
  add("early_stop", &T::early_stop, Between(0, 1000000),
      "stop after so many validations without improvement; 0 = off", "validations");
  add("nan_guard", &T::nan_guard, OneOf({"stop", "skip"}), "on a NaN or infinite loss");
  add("max_skipped_steps", &T::max_skipped_steps, Between(1, 1000000),
      "nan_guard = \"skip\": consecutive skipped steps before stopping", "steps");
  add("init", &T::init, Anything(), "checkpoint to start from (weights only)");
  add("init_rgb", &T::init_rgb, Anything(), "RGB checkpoint to start a two-stream network from");
  add("init_pose", &T::init_pose, Anything(), "pose checkpoint to start a two-stream network from");
  add("init_strict", &T::init_strict, Anything(), "every weight must match the checkpoint");
  add("resume", &T::resume, Anything(),
      "\"auto\" = the newest checkpoint in work_dir, \"never\", or a checkpoint");
  add("work_dir", &T::work_dir, Anything(), "folder of checkpoints and logs");
  add("log_every", &T::log_every, Between(1, kMany), "between plain log lines", "steps");
  AddOptimizer(add.In("optimizer", &T::optimizer));
  add.List("schedule", &T::schedule, ScheduleOptions(), "learning rate schedules, all applied");
}

void AddEval(const ConfigLines<EvalConfig>& add) {
  using E = EvalConfig;
  add("val_clips", &E::val_clips, Between(1, 1000), "clips per sample in validation", "clips");
  add("test_clips", &E::test_clips, Between(1, 1000), "clips per sample in the test", "clips");
  add("flip", &E::flip, Anything(),
      "average with the mirrored clip, in `kinefit test` and `predict`");
  add("batch_size", &E::batch_size, Between(1, 65536), "samples at once", "samples");
  add("rgb_weight", &E::rgb_weight, Between(0, 1e6), "of the RGB scores in the fused score");
  add("pose_weight", &E::pose_weight, Between(0, 1e6), "of the pose scores in the fused score");
  add("fused_weight", &E::fused_weight, Between(0, 1e6),
      "of the fused classifier's scores in the fused score (rgbpose_attention)");
}

void AddMemory(const ConfigLines<MemoryConfig>& add) {
  using M = MemoryConfig;
  add("budget", &M::budget, Anything(),
      "memory a run may use, such as \"6GiB\"; \"\" = all there is");
  add("plan", &M::plan, OneOf({"auto", "as-written", "off"}),
      "auto: make the run fit; as-written: refuse one that does not; off: do not look");
  add("recompute", &M::recompute, Anything(),
      "what is computed again instead of kept: auto, none, lean, light, block, stage, full, or one "
      "of these with exceptions, \"light rgb.layer1=block\"");
  add("margin", &M::margin, Between(0, 0.9), "share of the memory that a plan leaves free");
  add("exact", &M::exact, Anything(), "choose only plans that change nothing in the mathematics");
}

void AddDistributed(const ConfigLines<DistributedConfig>& add) {
  using D = DistributedConfig;
  add("timeout", &D::timeout, AboveUpTo(0, 86400),
      "a rank that gives no sign of life, or keeps the others waiting, for so long is lost",
      "seconds");
  add("sync_bn", &D::sync_bn, Anything(),
      "batch norms see the batch of all ranks; else each its own, and rank 0's running statistics "
      "are validated and saved");
  add("bucket_mib", &D::bucket_mib, Between(1, 4096),
      "gradients are exchanged in pieces of this size", "MiB");
  add("shared_memory", &D::shared_memory, Anything(),
      "where all ranks are on one machine, small messages (statistics of batch norms) go through "
      "memory that they share; else, and where there is none, through sockets");
}

std::vector<OptionOf<Config>> MakeConfigOptions() {
  std::vector<OptionOf<Config>> options;
  const ConfigLines<Config> add(&options, "", [](Config& c) -> Config& { return c; });
  add("seed", &Config::seed, Between(0, 4294967295.0), "start of every random stream");
  add("device", &Config::device, Anything(), "\"cpu\", \"cuda\" or \"cuda:1\"");
  add("threads", &Config::threads, Between(0, 4096), "computing threads; 0 = one per core");
  AddModel(add.In("model", &Config::model));
  AddData(add.In("data", &Config::data));
  AddTrain(add.In("train", &Config::train));
  AddEval(add.In("eval", &Config::eval));
  AddMemory(add.In("memory", &Config::memory));
  AddDistributed(add.In("distributed", &Config::distributed));
  return options;
}

std::vector<OptionOf<ScheduleConfig>> MakeScheduleOptions() {
  using S = ScheduleConfig;
  std::vector<OptionOf<S>> options;
  const Lines<S, S> add(&options, "", [](S& s) -> S& { return s; });
  add("type", &S::type, OneOf({"multistep", "cosine", "linear", "constant"}), "shape");
  add("begin", &S::begin, Between(0, kMany), "first epoch (or step) it acts on");
  add("end", &S::end, Between(-1, kMany), "first epoch (or step) it no longer acts on; -1 = none");
  add("by_epoch", &S::by_epoch, Anything(),
      "begin, end, milestones, t_max count epochs; else steps");
  add("per_iteration", &S::per_iteration, Anything(),
      "counted in epochs, but changing smoothly with every step");
  add("milestones", &S::milestones, Between(1, kMany),
      "multistep: where lr is multiplied by gamma");
  add("gamma", &S::gamma, AboveUpTo(0, 1000), "multistep");
  add("eta_min", &S::eta_min, Between(0, 1000), "cosine: lr at the end");
  add("t_max", &S::t_max, Between(-1, kMany), "cosine: half a period; -1 = end - begin");
  add("start_factor", &S::start_factor, AboveUpTo(0, 1), "linear: lr is multiplied by this first");
  add("end_factor", &S::end_factor, Between(0, 1), "linear: ... and by this at the end");
  add("factor", &S::factor, AboveUpTo(0, 1), "constant: lr is multiplied by this");
  return options;
}

}  // namespace

const std::vector<OptionOf<Config>>& ConfigOptions() {
  static const std::vector<OptionOf<Config>> options = MakeConfigOptions();
  return options;
}

const std::vector<OptionOf<ScheduleConfig>>& ScheduleOptions() {
  static const std::vector<OptionOf<ScheduleConfig>> options = MakeScheduleOptions();
  return options;
}

std::string SectionOf(const std::string& key) {
  const size_t dot = key.rfind('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

std::string LastComponent(const std::string& key) { return key.substr(key.rfind('.') + 1); }

std::string JoinKey(const std::string& section, const std::string& name) {
  if (section.empty()) return name;
  return section + "." + name;
}

}  // namespace kinefit
