#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "config/config.h"
#include "dataset/sample.h"
#include "random/stream.h"
#include "transform/color_jitter.h"

namespace kinefit {

enum class Phase { kTrain, kTest };  // kTest: validation and test (deterministic, centred)

// Network inputs of one sample, ready to be copied into a batch. float32, row-major.
struct ClipTensors {
  int64_t clips = 0;  // K clips of the same sample (times 2 with flip averaging or double_flip)
  std::vector<float> imgs;          // [K, 3, T_rgb, H, W], normalised; empty without an RGB stream
  std::vector<int64_t> imgs_shape;  // the five sizes
  std::vector<float> heatmaps;      // [K, C, T_pose, h, w]; empty without a pose stream
  std::vector<int64_t> heatmaps_shape;
};

// What one run of the pipeline chose and where it put the joints: for people who look at it
// (contact_sheet.h), never for computing.
struct PipelineTrace {
  int64_t clips = 0;                 // K, mirrored ones not counted
  std::vector<int64_t> rgb_frames;   // [K * T_rgb], of the clip; empty without an RGB stream
  std::vector<int64_t> pose_frames;  // [K * T_pose]; empty without a pose stream
  cv::Size image;                    // of the video, or as annotated where none was read
  cv::Rect box;                      // around the people, in pixels of `image`
  bool augmented = false;            // whether the following apply
  cv::Rect crop;                     // of the box once resized to data.resize
  bool flip = false;
  ColorJitter jitter;
  // Joints in pixels of the network's input: [M, K * T_pose, V] as they were drawn into heatmaps,
  // and [M, K * T_rgb, V] moved in the same way to where the pictures show them.
  Pose pose;
  Pose rgb_pose;
};

// The reference's whole train / val / test pipeline for one sample: uniform sampling for both
// streams, decoding, compacting, resizing, (train: random resized crop, flip with joint swap,
// colour jitter), heatmaps, normalisation. A pure function of its arguments and the video's bytes.
// Joints are scaled if the video's size is not the annotation's. A video with fewer frames than
// annotated is refused whether or not the missing ones are sampled.
// `streams` are those of `config.model`; `clips` is used in kTest (train always makes one clip).
// With `flip` the mirrored clips are appended (test-time flip averaging). Throws Error naming the
// sample if the video cannot be read or has fewer frames than annotated. Fills `trace` if given;
// that changes nothing else.
ClipTensors RunPipeline(const Sample& sample, const Config& config, Phase phase, int64_t clips,
                        bool flip, RandomStream& random, PipelineTrace* trace = nullptr);

// What RunPipeline returns for any sample of this configuration; sizes of an absent stream are 0.
struct ClipShapes {
  int64_t clips = 0;
  std::array<int64_t, 5> imgs = {};      // [K, 3, T_rgb, H, W]
  std::array<int64_t, 5> heatmaps = {};  // [K, C, T_pose, h, w]

  int64_t imgs_numel() const;
  int64_t heatmaps_numel() const;
};
ClipShapes PipelineShapes(const Config& config, Phase phase, int64_t clips, bool flip);

// The joints that heatmaps are drawn from, for someone else to draw them: [K, persons, 3, joints,
// T_pose], of the clips that are not mirrored. The three are x and y in pixels of the network's
// input (before heatmap.scaling) and the score, 1 without use_score. Zeros where the sample has
// fewer persons or joints; further ones are left out.
struct JointsOutput {
  float* data = nullptr;
  int64_t persons = 0;
  int64_t joints = 0;
};

// Where RunPipelineInto writes: room for PipelineShapes, null for an absent stream.
struct ClipOutput {
  float* imgs = nullptr;
  float* heatmaps = nullptr;
  JointsOutput joints;  // instead of heatmaps, if given
};

// RunPipeline into memory of the caller. After an Error its contents are unspecified.
void RunPipelineInto(const Sample& sample, const Config& config, Phase phase, int64_t clips,
                     bool flip, RandomStream& random, const ClipOutput& output,
                     PipelineTrace* trace = nullptr);

}  // namespace kinefit
