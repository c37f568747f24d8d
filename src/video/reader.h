#pragma once

#include <cstdint>
#include <functional>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

namespace kinefit {

// What a video file really holds, found by reading its packets or frames, not by believing headers.
struct VideoInfo {
  int64_t frames = 0;  // exact number of decodable frames
  int width = 0;       // as shown, after rotation
  int height = 0;
  double fps = 0;  // average; for display only
};

// Throws Error naming the file if it is missing, truncated or has no video stream. `times`, if
// given, becomes when each frame is shown, in seconds from the first one, ascending; empty where
// the file does not say it of every frame.
VideoInfo ProbeVideo(const std::string& path, std::vector<double>* times = nullptr);

// Whether FFmpeg opens the file and finds a video in it; nothing is decoded.
bool OpensAsVideo(const std::string& path);

// Decodes the frames with the given numbers (0-based, in decoding-for-display order; any order,
// repeats allowed) as RGB, CV_8UC3, display rotation applied. Frame numbers are exact whatever the
// container's time stamps claim; frames that an MP4 edit list hides do not count, as in OpenCV and
// in players. Of an H.264 .mp4 whose packets tell which frame is which (packet_index.h) only those
// frames are decoded that the wanted ones are made from: the packets since the last IDR picture,
// without pictures that no other refers to. Of any other video, all frames up to the last wanted
// one are. Damage in a frame that is decoded is an Error, damage elsewhere is not looked for; it
// never shifts a number. Equal numbers share one buffer: treat results as read-only. Throws Error
// naming file and frame if a frame does not exist or cannot be decoded, or if the video has fewer
// than `least_frames` frames. Thread-safe (each call has its own decoder, single-threaded).
std::vector<cv::Mat> DecodeFrames(const std::string& path, const std::vector<int64_t>& numbers,
                                  int64_t least_frames = 0);

// The same, but every frame up to the last wanted one is decoded, whatever the file: what
// DecodeFrames falls back to, and is tested and timed against.
std::vector<cv::Mat> DecodeFramesFromStart(const std::string& path,
                                           const std::vector<int64_t>& numbers,
                                           int64_t least_frames = 0);

// Decodes frames first .. first + count - 1, as DecodeFrames numbers and makes them, and calls
// `visit` with each in order. Only one is held at a time. Throws Error as DecodeFrames does.
void VisitFrames(const std::string& path, int64_t first, int64_t count,
                 const std::function<void(const cv::Mat& rgb)>& visit);

}  // namespace kinefit
