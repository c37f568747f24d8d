#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace kinefit {

// Everything that can be configured, as plain structs. Keys in TOML are the names of the members
// ("model.rgb.base_channels"). Ranges, defaults and help stand in one table (config/options.h);
// the initialisers here are those defaults. Shapes and formulas follow mmaction2 1.x,
// configs/skeleton/posec3d/rgbpose_conv3d.

// One ResNet3d pathway (mmaction2 ResNet3dPathway / ResNet3dSlowOnly).
struct PathwayConfig {
  int64_t in_channels = 3;  // RGB: 3; pose: joints + limbs drawn as heatmaps
  int64_t base_channels = 64;
  std::vector<int64_t> stage_blocks;  // bottlenecks per stage; its length is the number of stages
  std::vector<int64_t> inflate;       // per stage: 1 = conv1 is 3x1x1, 0 = 1x1x1
  std::vector<int64_t> spatial_strides;   // per stage
  std::vector<int64_t> temporal_strides;  // per stage
  std::array<int64_t, 3> conv1_kernel = {1, 7, 7};
  int64_t conv1_stride_s = 2;
  int64_t conv1_stride_t = 1;
  int64_t pool1_stride_s = 2;
  int64_t pool1_stride_t = 1;
  // Per stage: 1 = the stage's *input* has the other stream's lateral features concatenated
  // (mmaction2's lateral_activate). Empty: no laterals. Ignored by single-stream networks.
  std::vector<int64_t> lateral_activate;
  bool zero_init_last_bn = true;  // gamma of each bottleneck's last BN starts at zero
};

// The pathways of mmaction2's rgbpose_conv3d.py, which single-stream networks share (without the
// laterals): ResNet-50 for RGB, a narrow three-stage one for 17 joints.
PathwayConfig DefaultRgbPathway();
PathwayConfig DefaultPosePathway();

// How the two streams meet.
struct FusionConfig {
  int64_t speed_ratio = 4;         // pose frames per RGB frame; stride of the laterals in time
  int64_t channel_ratio = 4;       // as in mmaction2: sets the width of the pose->RGB lateral
  int64_t fusion_kernel = 7;       // temporal kernel of the laterals
  int64_t rgb_lateral_infl = 1;    // lateral_infl of the RGB pathway (pose->RGB lateral)
  int64_t pose_lateral_infl = 16;  // lateral_infl of the pose pathway (RGB->pose, transposed)
  bool rgb_detach = false;         // no gradient from the RGB stream into the pose stream
  bool pose_detach = false;        // no gradient from the pose stream into the RGB stream
  double rgb_drop_path = 0;        // chance per step to zero the laterals into RGB
  double pose_drop_path = 0;       // chance per step to zero the laterals into pose
};

// The bidirectional cross-attention of rgbpose_attention.
struct AttentionConfig {
  int64_t heads = 4;
  int64_t width = 128;  // total width of queries, keys and values; divisible by heads
  std::vector<std::string> points = {"stage3", "final"};  // where blocks stand
  // Which tokens of the other stream a token sees: "global" all of them; "frame" those of the
  // same moment (RGB frame t and its speed_ratio pose frames).
  std::string scope = "global";
  int64_t chunk = 1024;  // queries handled at once; memory is linear in the tokens
};

// PCAN's interaction blocks and prototypes (docs/pcan.md).
struct InteractionConfig {
  std::vector<int64_t> hidden;  // channels inside; empty: 2x, 4x the RGB base channels
  int64_t heads = 8;
  double attention_dropout = 0.1;  // of the attention weights
  int64_t coarse_width = 128;      // of prototypes
  int64_t fine_width = 256;
};

struct HeadConfig {
  double dropout = 0.5;  // of every classifier
  double init_std = 0.01;
  double label_smoothing = 0;
  double rgb_loss_weight = 1;
  double pose_loss_weight = 1;
  double rgb_coarse_loss_weight = 0.5;  // PCAN's coarse classifiers
  double pose_coarse_loss_weight = 0.5;
  double fused_loss_weight = 1;  // the fused classifier of rgbpose_attention
};

struct ModelConfig {
  std::string type = "rgbpose";  // "rgbpose", "pcan", "rgbpose_attention", "rgb", "pose"
  int64_t num_classes = 60;
  std::vector<std::vector<int64_t>> groups;  // the classes of each coarse class
  std::vector<std::string> group_names;      // empty, or one per group
  PathwayConfig rgb;                         // defaults set by DefaultRgbPathway()
  PathwayConfig pose;                        // defaults set by DefaultPosePathway()
  FusionConfig fusion;
  AttentionConfig attention;
  InteractionConfig pcan;
  HeadConfig head;

  ModelConfig();
  bool has_rgb() const { return type != "pose"; }
  bool has_pose() const { return type != "rgb"; }
};

struct ColorJitterConfig {  // mmaction2 ColorJitter: each applied per clip, in this order
  bool enabled = false;
  double brightness = 0.5;
  double contrast = 0.5;
  double saturation = 0.5;
  double hue = 0.1;
};

struct HeatmapConfig {  // mmaction2 GeneratePoseTarget
  double sigma = 0.6;
  bool use_score = true;
  bool with_joints = true;
  bool with_limbs = false;
  bool double_flip = false;      // its `double`: the flipped clip appended
  double scaling = 1;            // heatmap size / image size
  std::string draw_on = "host";  // "host", "device": by the loader, or where the network runs
};

struct DataConfig {
  std::string annotations;            // mmaction2/pyskl pickle
  std::string train_annotations;      // "" = annotations
  std::string val_annotations;        // "" = annotations
  std::string test_annotations;       // "" = as for validation
  std::string videos;                 // folder of videos; unused by pose-only networks
  std::string video_suffix = ".mp4";  // video of an annotation: videos/frame_dir + suffix
  std::string classes;                // text file, one name per line; "" = numbers
  std::string hierarchy;              // one ("ntu60") or its .toml: fills model.groups
  std::string train_split;            // "" = all annotations
  std::string val_split;
  std::string test_split;  // "" = val_split, or all of test_annotations
  std::string joints;      // a layout ("ntu25") or its .toml: what the three lists below say
  std::vector<int64_t> left_joints;
  std::vector<int64_t> right_joints;
  std::vector<std::vector<int64_t>> limbs;  // pairs of joints, for heatmap.with_limbs

  int64_t rgb_frames = 8;  // clip length T of each stream
  int64_t pose_frames = 32;
  bool compact = true;  // crop to the box around all joints (MMCompact / PoseCompact)
  double compact_padding = 0.25;
  double compact_threshold = 10;
  double compact_hw_ratio = 1;  // 0 = keep the box's own shape
  bool compact_allow_imgpad = true;
  int64_t resize = 256;         // training: square side before the random crop
  double crop_area_min = 0.56;  // RandomResizedCrop area_range
  double crop_area_max = 1.0;
  double crop_aspect_min = 0.75;
  double crop_aspect_max = 1.3333333333333333;
  int64_t crop = 224;       // training: side after the crop
  int64_t test_size = 256;  // val/test: square side
  double flip = 0.5;
  ColorJitterConfig color_jitter;
  HeatmapConfig heatmap;
  std::array<double, 3> mean = {123.675, 116.28, 103.53};
  std::array<double, 3> std = {58.395, 57.12, 57.375};

  int64_t repeat = 1;                // RepeatDataset: the training split this many times an epoch
  std::string sampling = "shuffle";  // "shuffle", "balanced": as many places for every class
  int64_t workers = 2;               // decoding threads
  int64_t prefetch = 2;              // finished batches kept ahead
  double max_bad_share = 0.01;       // unreadable clips of an epoch beyond this share stop the run
};

struct OptimizerConfig {
  std::string type = "sgd";  // "sgd", "adamw"
  double lr = 0.0075;
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0.0001;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double clip_norm = 40;  // 0 = no clipping
};

// One entry of [[train.schedule]]; several are chained as mmengine chains its param_schedulers.
struct ScheduleConfig {
  std::string type = "cosine";  // "multistep", "cosine", "linear", "constant"
  int64_t begin = 0;
  int64_t end = -1;  // -1 = to the end of training
  bool by_epoch = true;
  bool per_iteration = false;                // mmengine's convert_to_iter_based
  std::vector<int64_t> milestones;           // multistep
  double gamma = 0.1;                        // multistep
  double eta_min = 0;                        // cosine
  int64_t t_max = -1;                        // cosine; -1 = end - begin
  double start_factor = 0.3333333333333333;  // linear
  double end_factor = 1;                     // linear
  double factor = 0.3333333333333333;        // constant
};

struct TrainConfig {
  int64_t batch_size = 16;      // clips per micro-batch and device
  int64_t accumulate = 1;       // micro-batches per optimizer step
  int64_t base_batch_size = 0;  // >0: lr is multiplied by effective batch / base_batch_size
  int64_t epochs = 20;
  int64_t iterations = 0;  // >0: stop after this many optimizer steps instead
  OptimizerConfig optimizer;
  std::vector<ScheduleConfig> schedule;
  bool ema = false;
  double ema_momentum = 0.0002;    // mmengine ExponentialMovingAverage
  std::string precision = "fp32";  // "fp32", "bf16", "fp16"
  int64_t val_every = 1;           // epochs; 0 = never
  int64_t checkpoint_every = 0;    // also every so many iterations; 0 = at the end of epochs only
  int64_t keep_last = 1;           // checkpoints kept besides the best; 0 = all
  int64_t early_stop = 0;          // validations without improvement; 0 = off
  std::string nan_guard = "stop";  // "stop", "skip"
  int64_t max_skipped_steps = 10;  // consecutive NaN steps that are skipped before stopping
  std::string init;                // checkpoint to start from (weights only)
  std::string init_rgb;            // single-stream checkpoints merged into a two-stream network
  std::string init_pose;
  bool init_strict = false;
  std::string resume = "auto";  // "auto", "never", or a checkpoint
  std::string work_dir = "work_dirs/run";
  int64_t log_every = 20;  // iterations between plain log lines
};

struct EvalConfig {
  int64_t val_clips = 1;
  int64_t test_clips = 10;
  bool flip = false;       // average with the mirrored clip
  int64_t batch_size = 4;  // samples at once
  double rgb_weight = 1;   // weights of the per-stream scores in the fused score
  double pose_weight = 1;
  double fused_weight = 1;  // the fused classifier of rgbpose_attention
};

struct MemoryConfig {
  std::string budget;         // "" = what the device has; "6GiB"
  std::string plan = "auto";  // "auto", "as-written", "off"
  // What is computed again in the backward pass instead of kept: "auto", "none", "lean", "light",
  // "block", "stage", "full", or one of these with exceptions (model/recompute.h).
  std::string recompute = "auto";
  double margin = 0.03;  // share of the budget that a plan leaves free
  bool exact = false;    // only plans that change nothing in the mathematics
};

// Training with several processes ("ranks"): docs/distributed.md.
struct DistributedConfig {
  double timeout = 300;       // seconds without a sign of life after which a rank is lost
  bool sync_bn = true;        // batch norms see the batch of all ranks
  int64_t bucket_mib = 25;    // gradients are exchanged in pieces of this size
  bool shared_memory = true;  // small messages of ranks on one machine go through it
};

struct Config {
  int64_t seed = 0;
  std::string device = "cpu";  // "cpu", "cuda", "cuda:1"
  int64_t threads = 0;         // 0 = one per core
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  EvalConfig eval;
  MemoryConfig memory;
  DistributedConfig distributed;
};

}  // namespace kinefit
