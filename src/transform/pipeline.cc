#include "transform/pipeline.h"

#include <algorithm>
#include <opencv2/core.hpp>
#include <string>

#include "dataset/frames.h"
#include "files/error.h"
#include "transform/color_jitter.h"
#include "transform/compact.h"
#include "transform/flip.h"
#include "transform/heatmap.h"
#include "transform/normalize.h"
#include "transform/random_resized_crop.h"
#include "transform/resample.h"
#include "transform/resize.h"
#include "transform/sample_frames.h"

namespace kinefit {
namespace {

// Everything that is random about one run, drawn before any work is done.
struct Plan {
  int64_t clips = 1;
  std::vector<int64_t> rgb_frames;   // [clips * T_rgb]
  std::vector<int64_t> pose_frames;  // [clips * T_pose]
  bool augment = false;              // whether the following apply
  cv::Rect crop;
  bool flip = false;
  ColorJitter jitter;
};

Plan DrawPlan(const Sample& sample, const Config& config, Phase phase, int64_t clips,
              RandomStream& random) {
  const DataConfig& data = config.data;
  const int64_t frames = sample.total_frames;
  Plan plan;
  if (phase == Phase::kTest) {
    plan.clips = clips;
    if (config.model.has_rgb()) plan.rgb_frames = SampleFramesTest(frames, data.rgb_frames, clips);
    if (config.model.has_pose()) {
      plan.pose_frames = SampleFramesTest(frames, data.pose_frames, clips);
    }
    return plan;
  }
  plan.augment = true;
  if (config.model.has_rgb())
    plan.rgb_frames = SampleFramesTrain(frames, data.rgb_frames, 1, random);
  if (config.model.has_pose()) {
    plan.pose_frames = SampleFramesTrain(frames, data.pose_frames, 1, random);
  }
  const CropRange range = {data.crop_area_min, data.crop_area_max, data.crop_aspect_min,
                           data.crop_aspect_max};
  const int side = static_cast<int>(data.resize);
  plan.crop = DrawCropBox({side, side}, range, random);
  plan.flip = random.Chance(data.flip);
  plan.jitter = DrawColorJitter(data.color_jitter, random);
  return plan;
}

// The distinct frames that the clips need, and which of them each place of a clip takes.
struct DecodedFrames {
  ClipFrames clip;
  std::vector<size_t> index;  // [clips * T_rgb] into `clip.frames`
};

DecodedFrames Decode(const Sample& sample, const std::vector<int64_t>& numbers) {
  std::vector<int64_t> distinct = numbers;
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  DecodedFrames decoded;
  decoded.clip = ReadFrames(sample, distinct);
  for (const int64_t number : numbers) {
    decoded.index.push_back(static_cast<size_t>(
        std::lower_bound(distinct.begin(), distinct.end(), number) - distinct.begin()));
  }
  return decoded;
}

// One axis of a frame's way to the network: cut out, resized, and in training cropped, resized
// again and perhaps mirrored.
AxisMap FrameAxis(int begin, int size, int crop_begin, int crop_size, const Plan& plan,
                  const DataConfig& data) {
  AxisMap axis(begin, size);
  axis.Resize(static_cast<int>(plan.augment ? data.resize : data.test_size));
  if (plan.augment) {
    axis.Crop(crop_begin, crop_size);
    axis.Resize(static_cast<int>(data.crop));
  }
  return axis;
}

Resampler MakeResampler(cv::Size frame, const cv::Rect& box, const Plan& plan,
                        const DataConfig& data) {
  CheckBoxSize(box);
  AxisMap x = FrameAxis(box.x, box.width, plan.crop.x, plan.crop.width, plan, data);
  AxisMap y = FrameAxis(box.y, box.height, plan.crop.y, plan.crop.height, plan, data);
  if (plan.flip) x.Mirror();
  x.Clip(frame.width);
  y.Clip(frame.height);
  return Resampler(x, y);
}

void TransformJoints(const cv::Rect& box, const Plan& plan, const DataConfig& data,
                     const std::vector<int64_t>& mirror, Pose* pose) {
  if (data.compact) CompactJoints(pose, box);
  const cv::Size test_size(static_cast<int>(data.test_size), static_cast<int>(data.test_size));
  if (!plan.augment) return ResizeJoints(pose, box.size(), test_size);
  const cv::Size size(static_cast<int>(data.resize), static_cast<int>(data.resize));
  const cv::Size crop_size(static_cast<int>(data.crop), static_cast<int>(data.crop));
  ResizeJoints(pose, box.size(), size);
  CropJoints(pose, plan.crop);
  ResizeJoints(pose, plan.crop.size(), crop_size);
  if (plan.flip) FlipJoints(pose, crop_size.width, mirror);
}

// One frame as it went into the batch: row by row, so that memory takes a row in while the colours
// of the next are made. `planes`: where its first plane goes, in each clip that shows it.
struct FrameWriter {
  const Normalizer& normalizer;
  const ClipShapes& shapes;
  int64_t clips;  // mirrored clips follow

  void Write(const ColorPass& colors, const std::vector<float*>& planes, PlanarImage* image) const {
    const int64_t plane = shapes.imgs[3] * shapes.imgs[4];
    const int64_t stride = shapes.imgs[2] * plane;
    for (int64_t y = 0; y < image->height; ++y) {
      colors.Apply(image->row(y), image->width);
      for (float* first : planes) {
        normalizer.WriteRow(*image, y, stride, first);
        if (shapes.clips == clips) continue;
        normalizer.WriteMirroredRow(*image, y, stride, first + clips * 3 * stride);
      }
    }
  }
};

// Each distinct frame is transformed once and written to every place that shows it; mirrored
// clips, if asked for, follow all others.
void WriteImages(const DecodedFrames& decoded, const cv::Rect& box, const Plan& plan,
                 const DataConfig& data, const ClipShapes& shapes, float* imgs) {
  const Normalizer normalizer(data.mean, data.std);
  const FrameWriter writer = {normalizer, shapes, plan.clips};
  const int64_t plane = shapes.imgs[3] * shapes.imgs[4];
  const int64_t length = shapes.imgs[2];
  const ColorJitter jitter =
      plan.augment && data.color_jitter.enabled ? plan.jitter : ColorJitter();
  const std::vector<cv::Mat>& frames = decoded.clip.frames;
  Resampler resampler = MakeResampler(frames.front().size(), box, plan, data);
  PlanarImage image;
  std::vector<float*> planes;
  for (size_t i = 0; i < frames.size(); ++i) {
    planes.clear();
    for (size_t place = 0; place < decoded.index.size(); ++place) {
      if (decoded.index[place] != i) continue;
      const int64_t clip = static_cast<int64_t>(place) / length;
      const int64_t frame = static_cast<int64_t>(place) % length;
      planes.push_back(imgs + (3 * clip * length + frame) * plane);
    }
    resampler.Run(frames[i], &image);
    writer.Write(StartColorJitter(jitter, &image), planes, &image);
  }
}

void WriteHeatmaps(const Pose& pose, const Plan& plan, const DataConfig& data,
                   const std::vector<int64_t>& mirror, const ClipShapes& shapes, float* heatmaps) {
  const int side = static_cast<int>(plan.augment ? data.crop : data.test_size);
  const int64_t length = shapes.heatmaps[2];
  const int64_t clip_size = shapes.heatmaps_numel() / shapes.clips;
  const bool mirrored = shapes.clips > plan.clips;
  const std::vector<int64_t> channels =
      mirrored ? MirrorChannels(data.heatmap, data.limbs, mirror) : std::vector<int64_t>();
  const cv::Size size(static_cast<int>(shapes.heatmaps[4]), static_cast<int>(shapes.heatmaps[3]));
  for (int64_t clip = 0; clip < plan.clips; ++clip) {
    float* out = heatmaps + clip * clip_size;
    DrawHeatmaps(pose, clip * length, length, {side, side}, data.heatmap, data.limbs, out);
    if (mirrored) MirrorHeatmaps(out, length, size, channels, out + plan.clips * clip_size);
  }
}

// `pose` as it would go into heatmaps, and everything refused that drawing them would refuse.
void WriteJoints(const Pose& pose, const Plan& plan, const DataConfig& data,
                 const std::vector<int64_t>& mirror, bool mirrored, const JointsOutput& out) {
  if (data.heatmap.with_limbs) CheckLimbs(data.limbs, pose.joints);
  if (mirrored) MirrorChannels(data.heatmap, data.limbs, mirror);
  const int64_t length = data.pose_frames;
  const int64_t size = out.persons * 3 * out.joints * length;  // of a clip
  std::fill(out.data, out.data + plan.clips * size, 0.0F);
  const int64_t persons = std::min(pose.persons, out.persons);
  const int64_t joints = std::min(pose.joints, out.joints);
  for (int64_t clip = 0; clip < plan.clips; ++clip) {
    for (int64_t person = 0; person < persons; ++person) {
      float* x = out.data + clip * size + person * 3 * out.joints * length;
      float* y = x + out.joints * length;
      float* score = y + out.joints * length;
      for (int64_t frame = 0; frame < length; ++frame) {
        const int64_t first = (person * pose.frames + clip * length + frame) * pose.joints;
        for (int64_t joint = 0; joint < joints; ++joint) {
          const auto from = static_cast<size_t>(first + joint);
          const int64_t to = joint * length + frame;
          x[to] = pose.xy[2 * from];
          y[to] = pose.xy[2 * from + 1];
          score[to] = data.heatmap.use_score ? pose.score[from] : 1.0F;
        }
      }
    }
  }
}

void CheckSample(const Sample& sample, const Config& config) {
  const Pose& pose = sample.pose;
  const size_t values = static_cast<size_t>(pose.persons * pose.frames * pose.joints);
  if (sample.width < 1 || sample.height < 1 || pose.score.size() != values ||
      pose.xy.size() != 2 * values) {
    throw Error("image size or joints are missing", "", "correct the annotation");
  }
  if (pose.frames != sample.total_frames) {
    throw Error("joints for " + std::to_string(pose.frames) + " frames, but total_frames is " +
                    std::to_string(sample.total_frames),
                "", "correct total_frames or the joints of the annotation");
  }
  const int64_t channels = HeatmapChannels(config.data.heatmap, pose.joints, config.data.limbs);
  if (config.model.has_pose() && channels != config.model.pose.in_channels) {
    throw Error("heatmaps would have " + std::to_string(channels) +
                    " channels, but the network takes " +
                    std::to_string(config.model.pose.in_channels),
                "", "set model.pose.in_channels to the number of joints and limbs drawn");
  }
}

// `pose`: as it went into the heatmaps.
void FillTrace(const Sample& sample, const DataConfig& data, const Plan& plan, cv::Size image,
               const cv::Rect& box, const Pose& pose, PipelineTrace* trace) {
  *trace = {plan.clips, plan.rgb_frames, plan.pose_frames, image, box, plan.augment,
            plan.crop,  plan.flip,       plan.jitter,      {},    {}};
  if (!plan.pose_frames.empty()) trace->pose = pose;
  if (plan.rgb_frames.empty()) return;
  const cv::Size annotated(static_cast<int>(sample.width), static_cast<int>(sample.height));
  trace->rgb_pose = SelectFrames(sample.pose, plan.rgb_frames);
  if (annotated != image) ResizeJoints(&trace->rgb_pose, annotated, image);
  TransformJoints(box, plan, data,
                  MirrorOrder(sample.pose.joints, data.left_joints, data.right_joints),
                  &trace->rgb_pose);
}

void RunChecked(const Sample& sample, const Config& config, Phase phase, int64_t clips, bool flip,
                RandomStream& random, const ClipOutput& output, PipelineTrace* trace) {
  CheckSample(sample, config);
  const DataConfig& data = config.data;
  const ClipShapes shapes = PipelineShapes(config, phase, clips, flip);
  const Plan plan = DrawPlan(sample, config, phase, clips, random);
  // Without a pose stream the joints still say where to look, and then all frames count.
  Pose pose = config.model.has_pose() ? SelectFrames(sample.pose, plan.pose_frames) : sample.pose;
  cv::Size image(static_cast<int>(sample.width), static_cast<int>(sample.height));
  DecodedFrames decoded;
  if (config.model.has_rgb()) {
    decoded = Decode(sample, plan.rgb_frames);
    const cv::Size shown = decoded.clip.image;
    CheckAspect(image, shown);
    if (shown != image) ResizeJoints(&pose, image, shown);
    image = shown;
  }
  cv::Rect box(0, 0, image.width, image.height);
  if (data.compact) {
    box = CompactBox(pose, image,
                     {data.compact_padding, data.compact_threshold, data.compact_hw_ratio,
                      data.compact_allow_imgpad});
  }
  if (config.model.has_rgb()) {
    WriteImages(decoded, decoded.clip.InFrames(box), plan, data, shapes, output.imgs);
  }
  if (config.model.has_pose()) {
    const std::vector<int64_t> mirror =
        MirrorOrder(pose.joints, data.left_joints, data.right_joints);
    TransformJoints(box, plan, data, mirror, &pose);
    if (output.joints.data != nullptr) {
      WriteJoints(pose, plan, data, mirror, shapes.clips > plan.clips, output.joints);
    } else {
      WriteHeatmaps(pose, plan, data, mirror, shapes, output.heatmaps);
    }
  }
  if (trace != nullptr) FillTrace(sample, data, plan, image, box, pose, trace);
}

int64_t Product(const std::array<int64_t, 5>& shape) {
  return shape[0] * shape[1] * shape[2] * shape[3] * shape[4];
}

}  // namespace

int64_t ClipShapes::imgs_numel() const { return Product(imgs); }
int64_t ClipShapes::heatmaps_numel() const { return Product(heatmaps); }

ClipShapes PipelineShapes(const Config& config, Phase phase, int64_t clips, bool flip) {
  const DataConfig& data = config.data;
  const bool train = phase == Phase::kTrain;
  const bool mirrored = !train && (flip || data.heatmap.double_flip);
  ClipShapes shapes;
  shapes.clips = (train ? 1 : clips) * (mirrored ? 2 : 1);
  const int64_t side = train ? data.crop : data.test_size;
  if (config.model.has_rgb()) shapes.imgs = {shapes.clips, 3, data.rgb_frames, side, side};
  if (config.model.has_pose()) {
    const cv::Size size =
        HeatmapSize({static_cast<int>(side), static_cast<int>(side)}, data.heatmap.scaling);
    shapes.heatmaps = {shapes.clips, config.model.pose.in_channels, data.pose_frames, size.height,
                       size.width};
  }
  return shapes;
}

void RunPipelineInto(const Sample& sample, const Config& config, Phase phase, int64_t clips,
                     bool flip, RandomStream& random, const ClipOutput& output,
                     PipelineTrace* trace) {
  try {
    RunChecked(sample, config, phase, clips, flip, random, output, trace);
  } catch (const ResourceError&) {
    throw;  // not the sample's fault
  } catch (const Error& error) {
    const std::string where = error.where().empty() ? "" : ": " + error.where();
    throw Error(error.problem(), "sample '" + sample.id + "'" + where, error.remedy());
  }
}

ClipTensors RunPipeline(const Sample& sample, const Config& config, Phase phase, int64_t clips,
                        bool flip, RandomStream& random, PipelineTrace* trace) {
  const ClipShapes shapes = PipelineShapes(config, phase, clips, flip);
  ClipTensors tensors;
  tensors.clips = shapes.clips;
  tensors.imgs.resize(static_cast<size_t>(shapes.imgs_numel()));
  tensors.heatmaps.resize(static_cast<size_t>(shapes.heatmaps_numel()));
  if (config.model.has_rgb()) tensors.imgs_shape.assign(shapes.imgs.begin(), shapes.imgs.end());
  if (config.model.has_pose()) {
    tensors.heatmaps_shape.assign(shapes.heatmaps.begin(), shapes.heatmaps.end());
  }
  RunPipelineInto(sample, config, phase, clips, flip, random,
                  {tensors.imgs.data(), tensors.heatmaps.data(), {}}, trace);
  return tensors;
}

}  // namespace kinefit
