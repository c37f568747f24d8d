#pragma once

// For tests: a little two-stream configuration, and clips of one person with three joints for it.

#include <cstdint>
#include <initializer_list>
#include <string>

#include "config/config.h"
#include "dataset/sample.h"

namespace kinefit {

// Inputs of a few pixels and frames; joint 1 is the left one, 2 the right one.
inline Config SmallClipConfig() {
  Config config;
  config.model.type = "rgbpose";
  config.model.num_classes = 2;
  config.model.pose.in_channels = 3;
  DataConfig& data = config.data;
  data.rgb_frames = 4;
  data.pose_frames = 8;
  data.resize = 48;
  data.crop = 40;
  data.test_size = 44;
  data.heatmap.scaling = 0.5;
  data.left_joints = {1};
  data.right_joints = {2};
  return config;
}

// A clip of `frames` frames, x and y of its joints 0, 1, 2 in frame t given by `joints(t)`, with
// scores of 1, 1/2 and 3/4.
template <typename Joints>
Sample ThreeJointClip(const std::string& video, int width, int height, int frames,
                      const Joints& joints) {
  Sample sample;
  sample.id = "the clip";
  sample.video = video;
  sample.label = 1;
  sample.width = width;
  sample.height = height;
  sample.total_frames = frames;
  sample.pose = {1, frames, 3, {}, {}};
  for (int i = 0; i < frames; ++i) {
    for (const float value : joints(static_cast<float>(i))) sample.pose.xy.push_back(value);
    for (const float value : {1.0F, 0.5F, 0.75F}) sample.pose.score.push_back(value);
  }
  return sample;
}

}  // namespace kinefit
