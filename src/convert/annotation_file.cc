#include "convert/annotation_file.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "config/toml_tree.h"
#include "dataset/bad_share.h"
#include "files/error.h"

namespace kinefit {
namespace {

constexpr int kProtocol = 3;  // the oldest with bytes, which arrays need

NdArray MakeArray(DType dtype, std::vector<int64_t> shape, const std::vector<float>& values) {
  return dtype == DType::kFloat16 ? NdArray::FromFloatsAsHalf(std::move(shape), values)
                                  : NdArray::FromFloats(std::move(shape), values);
}

std::string Absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

}  // namespace

std::string EncodeClip(const ClipAnnotation& clip, DType joints) {
  const Pose& pose = clip.pose;
  PickleWriter w(kProtocol);
  w.BeginDict();
  w.String("frame_dir");
  w.String(clip.id);
  if (!clip.video.empty()) {
    w.String("video");
    w.String(clip.video);
  }
  w.String("label");
  w.Int(clip.label);
  for (const char* key : {"img_shape", "original_shape"}) {
    w.String(key);
    w.BeginTuple();
    w.Int(clip.height);
    w.Int(clip.width);
    w.EndTuple();
  }
  if (clip.first_frame > 0) {
    w.String("first_frame");
    w.Int(clip.first_frame);
  }
  w.String("total_frames");
  w.Int(clip.total_frames);
  w.String("keypoint");
  w.Array(MakeArray(joints, {pose.persons, pose.frames, pose.joints, 2}, pose.xy).view());
  w.String("keypoint_score");
  w.Array(MakeArray(joints, {pose.persons, pose.frames, pose.joints}, pose.score).view());
  w.EndDict();
  return w.TakeValue();
}

AnnotationFileWriter::AnnotationFileWriter(const std::string& path)
    : file_(path), pickle_(kProtocol) {
  pickle_.BeginDict();
  pickle_.String("annotations");
  pickle_.BeginList();
}

void AnnotationFileWriter::Add(std::string_view encoded_clip) {
  pickle_.Splice(encoded_clip);
  file_.Write(pickle_.Drain());
}

void AnnotationFileWriter::Commit(const Splits& splits) {
  pickle_.EndList();
  pickle_.String("split");
  pickle_.BeginDict();
  for (const auto& [name, ids] : splits) {
    pickle_.String(name);
    pickle_.BeginList();
    for (const std::string& id : ids) pickle_.String(id);
    pickle_.EndList();
  }
  pickle_.EndDict();
  pickle_.EndDict();
  file_.Write(pickle_.Finish());
  file_.Commit();
}

void WriteSetInclude(const std::string& path, const SetInclude& set) {
  std::string text = "# Made by `" + set.made_by + "`. A configuration uses it with\n";
  text += "#   include = " + QuoteToml(Absolute(path)) + "\n";
  text += "\n[model]\nnum_classes = " + std::to_string(set.num_classes) + "\n\n[data]\n";
  text += "annotations = " + QuoteToml(Absolute(set.annotations)) + "\n";
  if (!set.videos.empty()) text += "videos = " + QuoteToml(Absolute(set.videos)) + "\n";
  text += "classes = " + QuoteToml(Absolute(set.classes)) + "\n";
  text += "joints = " + QuoteToml(set.joints) + "\n";
  text += "train_split = " + QuoteToml(set.train_split) + "\n";
  text += "val_split = " + QuoteToml(set.val_split) + "\n";
  PublishFile(path, text);
}

void WriteReport(const std::string& path, const ConversionReport& report) {
  using Json = nlohmann::ordered_json;
  const auto notes = [](const std::vector<ClipNote>& list) {
    Json json = Json::array();
    for (const ClipNote& note : list) json.push_back({{"id", note.id}, {"reason", note.text}});
    return json;
  };
  Json json;
  json["clips"] = report.clips;
  json["splits"] = Json::object();
  for (const auto& [name, count] : report.splits) json["splits"][name] = count;
  json["left_out"] = notes(report.left_out);
  json["changed"] = notes(report.changed);
  json["remarks"] = report.remarks;
  PublishFile(path, json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

void CheckBadShare(const ConversionReport& report, double max_bad_share,
                   const std::string& report_path) {
  const auto bad = static_cast<int64_t>(report.left_out.size());
  const int64_t all = bad + report.clips;
  if (report.clips > 0 && !TooManyBad(bad, all, max_bad_share)) return;
  std::string examples;
  for (size_t i = 0; i < std::min<size_t>(report.left_out.size(), 3); ++i) {
    examples += "; " + report.left_out[i].id + ": " + report.left_out[i].text;
  }
  throw Error(
      std::to_string(bad) + " of " + std::to_string(all) + " clips cannot be used" + examples, "",
      report_path + " lists them all; repair them, or allow more with --max-bad-share");
}

}  // namespace kinefit
