#pragma once

#include <cstdint>
#include <vector>

#include "dataset/sample.h"
#include "random/stream.h"

namespace kinefit {

// Frame numbers of `clips` clips of `clip_len` frames each, one after the other, all in
// [0, total_frames): the video is cut into clip_len equal parts and one frame is drawn from each.
// Videos shorter than a clip are walked round from a start; those shorter than two clips leave out
// frames at random (mmaction2 UniformSampleFrames). Both throw Error if any argument is below 1.
//
// Training: every draw comes from `random`.
std::vector<int64_t> SampleFramesTrain(int64_t total_frames, int64_t clip_len, int64_t clips,
                                       RandomStream& random);
// Validation and test: the same frames on every call and equal to mmaction2's, which draws them
// from numpy's legacy generator seeded with 255.
std::vector<int64_t> SampleFramesTest(int64_t total_frames, int64_t clip_len, int64_t clips);

// The given frames of a pose, in the given order (repeats allowed): [M, frames.size(), V].
// REQUIRES: 0 <= each number < pose.frames.
Pose SelectFrames(const Pose& pose, const std::vector<int64_t>& frames);

}  // namespace kinefit
