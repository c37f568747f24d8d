#pragma once

#include <cstdint>
#include <vector>

#include "convert/ntu_skeleton.h"
#include "dataset/sample.h"

namespace kinefit {

// The performers of a recording, chosen among its bodies.
struct NtuPerformers {
  // [1 or 2, T, 25]: colour pixels of the 1920x1080 video, score = tracking state / 2. A performer
  // who is missing in a frame, and a joint without finite coordinates, has zeros there: nothing is
  // moved in time.
  Pose pose;
  int64_t bodies = 0;       // different body ids in the file
  int64_t lost_joints = 0;  // joints of the performers without finite coordinates
};

// Chooses at most two performers as the community does (get_raw_denoised_data.py of CTR-GCN, after
// Microsoft's SGN): of several bodies, those seen in at most 11 frames and those wider than high in
// most frames (tables, seats) go; the others are ordered by motion (the variance of their joints)
// and laid into two places, where bodies that follow each other in time share one. Throws Error if
// there is no body in any frame.
NtuPerformers ChoosePerformers(const NtuRecording& recording);

}  // namespace kinefit
