#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "convert/detected_poses.h"

namespace kinefit {

// Poses of one video from one JSON text with COCO keypoints, in any of the shapes that pose
// estimators write (docs/data.md shows each):
// - [{"image_id": "12.jpg", "keypoints": [x, y, score, ...], "score": s, "idx": track}, ...], as
//   AlphaPose and the COCO results of ViTPose and MMPose have it; image_id is a number, or text
//   whose last digits before the extension are one;
// - {"images": [{"id": 7, "file_name": "000012.jpg"}], "annotations": [{"image_id": 7, "keypoints":
//   [x, y, visibility, ...], "track_id": t}]}, as COCO annotates: visibility 0, 1, 2 becomes score
//   0, 0.5, 1;
// - [{"frame_id": 12, "instances": [{"keypoints": [[x, y], ...], "keypoint_scores": [s, ...]}]}],
// or
//   the same under "instance_info", as MMPose's inferencer (RTMPose) writes it.
// - AlphaPose's forms "open" and "cmu" and PoseFlow's results: a member per image;
// - a list with an entry per frame: lists of people as Ultralytics writes them ({"keypoints": {"x",
//   "y", "visible"}}), as lists of [x, y, score], or one person's joints; MediaPipe's landmarks;
// - any of these with one entry a line instead of in a list.
// `first_image`: the number of a video's first frame in this file (0, sometimes 1). Throws Error
// naming `where` for anything else.
DetectedPoses ParseKeypointJson(std::string_view text, int64_t first_image,
                                const std::string& where);

// Adds the persons of one frame from OpenPose's JSON: {"people": [{"person_id": [-1],
// "pose_keypoints_2d": [x, y, score, ...]}]}. A person without joints is left out. Throws Error.
void AddOpenPoseFrame(std::string_view text, int64_t frame, const std::string& where,
                      DetectedPoses* poses);

// The last digits of a file name before its extension: 12 for "clip_000012.jpg" and "12"; -1 if
// there are none, or more than fifteen. "…_keypoints" at the end does not count.
int64_t NumberInName(std::string_view name);

}  // namespace kinefit
