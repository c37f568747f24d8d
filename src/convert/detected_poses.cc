#include "convert/detected_poses.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>
#include <unordered_map>

#include "dataset/annotation_reader.h"
#include "files/error.h"

namespace kinefit {
namespace {

constexpr size_t kMostOfAFrame = 100;
constexpr int64_t kLongestGap = 30;  // frames
constexpr float kLeastOverlap = 0.2F;

struct Box {
  float left = std::numeric_limits<float>::max();
  float top = std::numeric_limits<float>::max();
  float right = std::numeric_limits<float>::lowest();
  float bottom = std::numeric_limits<float>::lowest();

  float area() const { return right > left && bottom > top ? (right - left) * (bottom - top) : 0; }
};

// Around the joints that were seen.
Box BoxOf(const Detection& detection) {
  Box box;
  for (size_t i = 0; i < detection.joint_score.size(); ++i) {
    if (detection.joint_score[i] <= 0) continue;
    box.left = std::min(box.left, detection.xy[2 * i]);
    box.right = std::max(box.right, detection.xy[2 * i]);
    box.top = std::min(box.top, detection.xy[2 * i + 1]);
    box.bottom = std::max(box.bottom, detection.xy[2 * i + 1]);
  }
  return box;
}

float Overlap(const Box& a, const Box& b) {
  Box both;
  both.left = std::max(a.left, b.left);
  both.top = std::max(a.top, b.top);
  both.right = std::min(a.right, b.right);
  both.bottom = std::min(a.bottom, b.bottom);
  const float shared = both.area();
  return shared > 0 ? shared / (a.area() + b.area() - shared) : 0;
}

void KeepBestOfEachFrame(std::vector<Detection>* detections) {
  std::vector<Detection> kept;
  for (size_t begin = 0, end = 0; begin < detections->size(); begin = end) {
    while (end < detections->size() && (*detections)[end].frame == (*detections)[begin].frame) {
      ++end;
    }
    const auto first = detections->begin() + static_cast<int64_t>(begin);
    const auto last = detections->begin() + static_cast<int64_t>(end);
    if (end - begin > kMostOfAFrame) {
      std::stable_sort(first, last,
                       [](const Detection& a, const Detection& b) { return a.score > b.score; });
    }
    std::move(first, first + static_cast<int64_t>(std::min(end - begin, kMostOfAFrame)),
              std::back_inserter(kept));
  }
  *detections = std::move(kept);
}

// A person being followed.
struct Followed {
  int64_t track;
  int64_t frame;  // where last seen
  Box box;
};

// Gives tracks to the detections [begin, end) of one frame: the pairs that overlap most go first.
void FollowFrame(std::vector<Detection>* detections, size_t begin, size_t end, int64_t* next_track,
                 std::vector<Followed>* followed) {
  const int64_t frame = (*detections)[begin].frame;
  followed->erase(std::remove_if(followed->begin(), followed->end(),
                                 [&](const Followed& f) { return frame - f.frame > kLongestGap; }),
                  followed->end());
  std::vector<Box> boxes;
  for (size_t i = begin; i < end; ++i) boxes.push_back(BoxOf((*detections)[i]));
  std::vector<std::tuple<float, size_t, size_t>> pairs;  // minus overlap, followed, detection
  for (size_t f = 0; f < followed->size(); ++f) {
    for (size_t i = 0; i < boxes.size(); ++i) {
      const float overlap = Overlap((*followed)[f].box, boxes[i]);
      if (overlap >= kLeastOverlap) pairs.emplace_back(-overlap, f, i);
    }
  }
  std::sort(pairs.begin(), pairs.end());
  std::vector<bool> taken(followed->size());
  std::vector<bool> placed(boxes.size());
  for (const auto& [overlap, f, i] : pairs) {
    if (taken[f] || placed[i]) continue;
    taken[f] = placed[i] = true;
    (*detections)[begin + i].track = (*followed)[f].track;
    (*followed)[f].frame = frame;
    (*followed)[f].box = boxes[i];
  }
  for (size_t i = 0; i < boxes.size(); ++i) {
    if (placed[i]) continue;
    (*detections)[begin + i].track = *next_track;
    followed->push_back({(*next_track)++, frame, boxes[i]});
  }
}

// A track's detections within a clip.
struct Piece {
  double score = 0;
  std::vector<const Detection*> detections;  // one per frame
};

std::vector<Piece> PiecesWithin(const DetectedPoses& poses, int64_t first, int64_t frames) {
  std::vector<Piece> pieces;  // in the order in which the tracks appear
  std::unordered_map<int64_t, size_t> by_track;
  const auto begin = std::lower_bound(
      poses.detections.begin(), poses.detections.end(), first,
      [](const Detection& detection, int64_t frame) { return detection.frame < frame; });
  for (auto at = begin; at != poses.detections.end() && at->frame < first + frames; ++at) {
    const auto [entry, added] = by_track.emplace(at->track, pieces.size());
    if (added) pieces.emplace_back();
    Piece& piece = pieces[entry->second];
    if (!piece.detections.empty() && piece.detections.back()->frame == at->frame) {
      if (at->score > piece.detections.back()->score) piece.detections.back() = &*at;
    } else {
      piece.detections.push_back(&*at);
    }
  }
  for (Piece& piece : pieces) {
    for (const Detection* detection : piece.detections) piece.score += detection->score;
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.score > b.score; });
  return pieces;
}

}  // namespace

void AddDetection(Detection detection, const std::string& where, DetectedPoses* poses) {
  const auto joints = static_cast<int64_t>(detection.joint_score.size());
  if (joints < 1 || joints > kMostDetectedJoints ||
      detection.xy.size() != 2 * detection.joint_score.size()) {
    throw Error("a pose has " + std::to_string(joints) + " joints", where,
                "a pose has 1 to 1024 joints with x, y and a score each");
  }
  if (poses->joints != 0 && poses->joints != joints) {
    throw Error("a pose has " + std::to_string(joints) + " joints, others have " +
                    std::to_string(poses->joints),
                where, "use one pose estimator for all");
  }
  if (detection.frame < 0 || detection.frame >= kMostDetectedFrames) {
    throw Error("a pose is of frame " + std::to_string(detection.frame), where,
                "frames count from 0; see --first-image");
  }
  poses->joints = joints;
  for (size_t i = 0; i < detection.joint_score.size(); ++i) {
    float& score = detection.joint_score[i];
    const bool usable = std::abs(detection.xy[2 * i]) <= kFarthestJoint &&
                        std::abs(detection.xy[2 * i + 1]) <= kFarthestJoint && std::isfinite(score);
    if (usable && (score < kLowestScore || score > kHighestScore)) {
      throw Error("a joint has the score " + std::to_string(score) + "; scores run from 0 to 1",
                  where, "divide percentages by 100; joints in 3D are not supported");
    }
    score = usable ? std::min(std::max(score, 0.0F), 1.0F) : 0;
    if (!usable) detection.xy[2 * i] = detection.xy[2 * i + 1] = 0;
  }
  if (!std::isfinite(detection.score)) detection.score = 0;
  poses->frames = std::max(poses->frames, detection.frame + 1);
  poses->detections.push_back(std::move(detection));
}

void FollowTracks(DetectedPoses* poses) {
  std::vector<Detection>& all = poses->detections;
  std::stable_sort(all.begin(), all.end(),
                   [](const Detection& a, const Detection& b) { return a.frame < b.frame; });
  KeepBestOfEachFrame(&all);
  const bool tracked = std::all_of(all.begin(), all.end(),
                                   [](const Detection& detection) { return detection.track >= 0; });
  if (tracked) return;
  std::vector<Followed> followed;
  int64_t next_track = 0;
  for (size_t begin = 0, end = 0; begin < all.size(); begin = end) {
    while (end < all.size() && all[end].frame == all[begin].frame) ++end;
    FollowFrame(&all, begin, end, &next_track, &followed);
  }
}

Pose PersonsOf(const DetectedPoses& poses, int64_t first, int64_t frames, int64_t persons) {
  const std::vector<Piece> pieces = PiecesWithin(poses, first, frames);
  std::vector<std::vector<const Detection*>> places;  // [person][frame]
  for (const Piece& piece : pieces) {
    size_t place = 0;
    const auto is_free = [&](const Detection* detection) {
      return places[place][static_cast<size_t>(detection->frame - first)] == nullptr;
    };
    while (place < places.size() &&
           !std::all_of(piece.detections.begin(), piece.detections.end(), is_free)) {
      ++place;
    }
    if (place == places.size()) {
      if (static_cast<int64_t>(place) >= persons) continue;
      places.emplace_back(static_cast<size_t>(frames), nullptr);
    }
    for (const Detection* detection : piece.detections) {
      places[place][static_cast<size_t>(detection->frame - first)] = detection;
    }
  }
  if (places.empty()) places.emplace_back(static_cast<size_t>(frames), nullptr);

  Pose pose{static_cast<int64_t>(places.size()), frames, poses.joints, {}, {}};
  const auto joints = static_cast<size_t>(pose.persons * frames * poses.joints);
  pose.xy.assign(2 * joints, 0.0F);
  pose.score.assign(joints, 0.0F);
  size_t at = 0;
  for (const std::vector<const Detection*>& place : places) {
    for (const Detection* detection : place) {
      if (detection != nullptr) {
        std::copy(detection->xy.begin(), detection->xy.end(),
                  pose.xy.begin() + static_cast<int64_t>(2 * at));
        std::copy(detection->joint_score.begin(), detection->joint_score.end(),
                  pose.score.begin() + static_cast<int64_t>(at));
      }
      at += static_cast<size_t>(poses.joints);
    }
  }
  return pose;
}

}  // namespace kinefit
