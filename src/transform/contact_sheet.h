#pragma once

#include <opencv2/core.hpp>
#include <string>
#include <vector>

#include "config/config.h"
#include "dataset/sample.h"
#include "transform/pipeline.h"

namespace kinefit {

// A picture (RGB, CV_8UC3) of what the network sees of one sample, for people. From top to bottom,
// for each clip, in columns of one moment:
//   the annotated frame with skeleton, the box around the people and what the crop keeps of it;
//   the RGB stream's input, taken back out of `tensors`; the same with the joints moved along;
//   the heatmaps of the pose frame nearest in time;
// and then the heatmaps of every pose frame. Joints and limbs of the person's left are blue, right
// ones orange, all others green; each heatmap channel has the colour of its joint or limb.
//
// `tensors` and `trace` are of one RunPipeline call on `sample`; clips that are mirror images of
// others are not shown. `lines` are printed at the top. Decodes `sample.video` again for the first
// row, or draws on black if it is "". Throws Error naming the video if it cannot be read.
cv::Mat DrawContactSheet(const Sample& sample, const Config& config, const ClipTensors& tensors,
                         const PipelineTrace& trace, const std::vector<std::string>& lines);

}  // namespace kinefit
