#include "video/reader.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <opencv2/imgproc.hpp>
#include <string_view>
#include <utility>

#include "files/error.h"
#include "video/ffmpeg_handles.h"
#include "video/packet_index.h"

namespace kinefit {
namespace {

constexpr int kMaxSide = 16384;
constexpr int64_t kMaxPixels = int64_t{256} << 20;

const char kReencode[] =
    "make the file anew from its source, or repair it: "
    "ffmpeg -i OLD.mp4 -c:v libx264 -fps_mode passthrough NEW.mp4";

void CheckIsReadableFile(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    throw Error("video file not found", path, "check the video folder and the file name's suffix");
  }
  if (std::filesystem::is_directory(status)) {
    throw Error("a folder stands where a video file is expected", path,
                "check the video folder and the file name's suffix");
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw Error("not a regular file" + (error ? ": " + error.message() : std::string()), path,
                "check data.videos and data.video_suffix");
  }
  if (std::filesystem::file_size(path, error) == 0 && !error) {
    throw Error("video file is empty (0 bytes)", path, "copy or download it again");
  }
}

// How the stored picture is to be shown: transpose first, then mirror.
struct Orientation {
  bool transpose = false;
  bool mirror_x = false;
  bool mirror_y = false;
};

// The display matrix maps stored (x, y) to shown (a x + c y, b x + d y). Only quarter turns and
// mirrorings are meant for players; other angles are ignored, as OpenCV and FFmpeg's users do.
Orientation ReadOrientation(const AVStream* stream) {
  Orientation orientation;
  size_t size = 0;
  const uint8_t* data = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
  if (data == nullptr || size < 9 * sizeof(int32_t)) return orientation;
  const auto* matrix = reinterpret_cast<const int32_t*>(data);
  const int64_t a = matrix[0], b = matrix[1], c = matrix[3], d = matrix[4];
  if (a != 0 && d != 0 && b == 0 && c == 0) {
    orientation.mirror_x = a < 0;
    orientation.mirror_y = d < 0;
  } else if (b != 0 && c != 0 && a == 0 && d == 0) {
    orientation.transpose = true;
    orientation.mirror_x = c < 0;
    orientation.mirror_y = b < 0;
  }
  return orientation;
}

// Decodes the frames of one file in the order in which they are shown, and counts them. A frame's
// number is its place in that order; time stamps are never consulted.
//
// Edit lists are applied as FFmpeg does by default: frames that the file says are for decoding only
// are not counted. OpenCV and the players show the same frames.
class FrameDecoder {
 public:
  explicit FrameDecoder(const std::string& path);

  // The next frame, valid until the next call; null after the last one.
  const AVFrame* Next();
  // Frames that Next() has returned.
  int64_t count() const { return count_; }
  // The frame last returned, as RGB in its own buffer, turned as it is to be shown.
  cv::Mat ToRgb();
  // Decodes only what the wanted frames (ascending) need, if the packets tell what that is: a frame
  // for each, or nothing where there is any doubt or trouble; this decoder is then of no more use.
  // `frames`: how many the video has. To be called instead of Next().
  std::vector<cv::Mat> PickFrames(const std::vector<int64_t>& wanted, int64_t* frames);
  // The frame with this number. REQUIRES: count() <= number + 1.
  cv::Mat Frame(int64_t number);

  int shown_width() const { return orientation_.transpose ? height_ : width_; }
  int shown_height() const { return orientation_.transpose ? width_ : height_; }
  double fps() const;
  // Saves time where pictures are not looked at.
  void SkipLoopFilter() { codec_->skip_loop_filter = AVDISCARD_ALL; }

 private:
  void OpenFile();
  void OpenStream();
  bool ContainerSaysAll() const;
  bool CollectPackets(std::vector<PacketPtr>* packets, std::vector<PictureHeader>* headers);
  bool ReadPicked(const std::vector<int64_t>& wanted, std::vector<cv::Mat>* picked);
  void CheckSize(int64_t width, int64_t height) const;
  void FeedPacket();
  void CheckFrame();
  void PrepareScaler();
  std::string FrameName() const { return path_ + ", frame " + std::to_string(count_); }

  std::string path_;
  FilePtr file_;  // outlives input_
  InputPtr input_;
  CodecPtr codec_;
  PacketPtr packet_{Allocated(av_packet_alloc())};
  FramePtr frame_{Allocated(av_frame_alloc())};
  ScalerPtr scaler_;
  cv::Mat scratch_;  // rows padded for swscale's vector code
  AVStream* stream_ = nullptr;
  Orientation orientation_;
  int64_t count_ = 0;
  int width_ = 0;
  int height_ = 0;
  bool key_seen_ = false;
  bool flushed_ = false;
};

FrameDecoder::FrameDecoder(const std::string& path) : path_(path) {
  SilenceFfmpeg();
  CheckIsReadableFile(path);
  OpenFile();
  OpenStream();
}

namespace {

// What the system lacks is no fault of the video.
void RefuseIfShortOfMeans(int code, const std::string& path) {
  if (code != AVERROR(EMFILE) && code != AVERROR(ENFILE) && code != AVERROR(ENOMEM)) return;
  throw ResourceError("the system cannot open another file: " + FfmpegMessage(code), path,
                      "raise the limit of open files (ulimit -n), or set fewer data.workers");
}

}  // namespace

void FrameDecoder::OpenFile() {
  AVIOContext* file = nullptr;
  // The prefix keeps a name such as "concat:a|b" or "http://…" from being taken for an address.
  int code = avio_open(&file, ("file:" + path_).c_str(), AVIO_FLAG_READ);
  RefuseIfShortOfMeans(code, path_);
  if (code < 0) {
    throw Error("video cannot be opened: " + FfmpegMessage(code), path_,
                "check data.videos and data.video_suffix, and that the file may be read");
  }
  file_.reset(file);

  AVFormatContext* input = Allocated(avformat_alloc_context());
  input->pb = file;
  // Some formats (playlists, concat scripts) name other files and addresses. A video is one file.
  AVDictionary* options = nullptr;
  av_dict_set(&options, "protocol_whitelist", "none", 0);
  code = avformat_open_input(&input, path_.c_str(), nullptr, &options);  // frees input on failure
  av_dict_free(&options);
  RefuseIfShortOfMeans(code, path_);
  if (code < 0) {
    throw Error("not a video that can be read, or cut off before its index: " + FfmpegMessage(code),
                path_, kReencode);
  }
  input_.reset(input);
}

void FrameDecoder::OpenStream() {
  int code = ContainerSaysAll() ? 0 : avformat_find_stream_info(input_.get(), nullptr);
  if (code < 0) throw Error("video cannot be read: " + FfmpegMessage(code), path_, kReencode);
  const int index = av_find_best_stream(input_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
  if (index < 0 || (input_->streams[index]->disposition & AV_DISPOSITION_ATTACHED_PIC) != 0) {
    throw Error("file has no video stream", path_, "an audio file or a wrong name?");
  }
  stream_ = input_->streams[index];
  for (unsigned i = 0; i < input_->nb_streams; ++i) {
    if (static_cast<int>(i) != index) input_->streams[i]->discard = AVDISCARD_ALL;
  }
  orientation_ = ReadOrientation(stream_);

  const AVCodec* decoder = avcodec_find_decoder(stream_->codecpar->codec_id);
  if (decoder == nullptr) {
    throw Error(std::string("no decoder for this video's codec ") +
                    avcodec_get_name(stream_->codecpar->codec_id),
                path_, kReencode);
  }
  CheckSize(stream_->codecpar->width, stream_->codecpar->height);
  codec_.reset(Allocated(avcodec_alloc_context3(decoder)));
  code = avcodec_parameters_to_context(codec_.get(), stream_->codecpar);
  if (code < 0) throw Error("video cannot be decoded: " + FfmpegMessage(code), path_, kReencode);
  codec_->thread_count = 1;
  codec_->max_pixels = kMaxPixels;
  // An H.264 stream that does not declare its reordering depth would otherwise lose frames while
  // the decoder finds out; strict decoding waits instead.
  codec_->strict_std_compliance = FF_COMPLIANCE_STRICT;
  code = avcodec_open2(codec_.get(), decoder, nullptr);
  if (code < 0) throw Error("video cannot be decoded: " + FfmpegMessage(code), path_, kReencode);
}

// An .mp4 names codec, size and parameter sets; decoding its first frames to find them out, which
// FFmpeg would, takes as long as decoding a few frames more.
bool FrameDecoder::ContainerSaysAll() const {
  if (std::string(input_->iformat->name).rfind("mov,", 0) != 0) return false;
  int videos = 0;
  for (unsigned i = 0; i < input_->nb_streams; ++i) {
    const AVCodecParameters* codec = input_->streams[i]->codecpar;
    if (codec->codec_type != AVMEDIA_TYPE_VIDEO) continue;
    ++videos;
    if (codec->codec_id != AV_CODEC_ID_H264 || codec->extradata_size < 7 || codec->width <= 0 ||
        codec->height <= 0) {
      return false;
    }
  }
  return videos == 1;
}

void FrameDecoder::CheckSize(int64_t width, int64_t height) const {
  if (width <= kMaxSide && height <= kMaxSide && width * height <= kMaxPixels) return;
  throw Error("video claims an absurd picture size of " + std::to_string(width) + "x" +
                  std::to_string(height) + " (at most " + std::to_string(kMaxSide) + " a side)",
              path_, "the file is damaged, or must be scaled down first");
}

double FrameDecoder::fps() const {
  const AVRational rate =
      stream_->avg_frame_rate.num > 0 ? stream_->avg_frame_rate : stream_->r_frame_rate;
  return rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
}

// Gives the decoder one more packet, or the end-of-stream signal.
void FrameDecoder::FeedPacket() {
  av_packet_unref(packet_.get());
  int code = av_read_frame(input_.get(), packet_.get());
  if (code == AVERROR_EOF && file_->error >= 0) {
    flushed_ = true;
    avcodec_send_packet(codec_.get(), nullptr);
    return;
  }
  if (code < 0) {
    throw Error("video is damaged or truncated: " + FfmpegMessage(code), FrameName(), kReencode);
  }
  if (packet_->stream_index != stream_->index) return;
  const bool key = (packet_->flags & AV_PKT_FLAG_KEY) != 0;
  key_seen_ |= key;
  const bool corrupt = (packet_->flags & AV_PKT_FLAG_CORRUPT) != 0;
  code = corrupt ? AVERROR_INVALIDDATA : avcodec_send_packet(codec_.get(), packet_.get());
  if (code >= 0) return;
  // A stream recorded from its middle begins with frames that refer to earlier ones. No player
  // counts them. Later, going on would shift the numbers of all frames that follow.
  if (!key_seen_ && count_ == 0 && code == AVERROR_INVALIDDATA) return;
  throw Error(corrupt ? "video is damaged or truncated: a packet is incomplete"
                      : "video is damaged: " + FfmpegMessage(code),
              FrameName(), kReencode);
}

const AVFrame* FrameDecoder::Next() {
  for (;;) {
    const int code = avcodec_receive_frame(codec_.get(), frame_.get());
    if (code >= 0) {
      CheckFrame();
      ++count_;
      return frame_.get();
    }
    if (code == AVERROR_EOF || (code == AVERROR(EAGAIN) && flushed_)) return nullptr;
    if (code == AVERROR(EAGAIN)) {
      FeedPacket();
    } else if (key_seen_ || count_ > 0 || code != AVERROR_INVALIDDATA) {
      throw Error("video is damaged: " + FfmpegMessage(code), FrameName(), kReencode);
    }
  }
}

void FrameDecoder::CheckFrame() {
  CheckSize(frame_->width, frame_->height);
  if (count_ == 0) {
    width_ = frame_->width;
    height_ = frame_->height;
  }
  if (frame_->width != width_ || frame_->height != height_) {
    throw Error("video changes its picture size from " + std::to_string(width_) + "x" +
                    std::to_string(height_) + " to " + std::to_string(frame_->width) + "x" +
                    std::to_string(frame_->height),
                FrameName(), "split it where the size changes, or scale it to one size");
  }
  if (frame_->decode_error_flags != 0 || (frame_->flags & AV_FRAME_FLAG_CORRUPT) != 0) {
    throw Error("video is damaged: parts of a frame could not be decoded", FrameName(), kReencode);
  }
}

// Colour as FFmpeg converts by default: the stream's matrix where declared, else BT.601; the
// stream's range, else limited. RGB is full range.
void FrameDecoder::PrepareScaler() {
  SwsContext* scaler = sws_getCachedContext(
      scaler_.release(), width_, height_, static_cast<AVPixelFormat>(frame_->format), width_,
      height_, AV_PIX_FMT_RGB24, SWS_BILINEAR, nullptr, nullptr, nullptr);
  scaler_.reset(scaler);
  if (scaler == nullptr) {
    throw Error("video has a pixel format that cannot be converted to RGB", path_, kReencode);
  }
  int* unused_table = nullptr;
  int* rgb_table = nullptr;
  int range = 0, rgb_range = 0, brightness = 0, contrast = 0, saturation = 0;
  if (sws_getColorspaceDetails(scaler, &unused_table, &range, &rgb_table, &rgb_range, &brightness,
                               &contrast, &saturation) < 0) {
    return;  // already RGB
  }
  const bool declared =
      frame_->colorspace != AVCOL_SPC_RGB && frame_->colorspace != AVCOL_SPC_UNSPECIFIED;
  const int* table = sws_getCoefficients(declared ? frame_->colorspace : SWS_CS_DEFAULT);
  if (frame_->color_range == AVCOL_RANGE_JPEG) range = 1;
  sws_setColorspaceDetails(scaler, table, range, rgb_table, rgb_range, brightness, contrast,
                           saturation);
}

cv::Mat FrameDecoder::ToRgb() {
  PrepareScaler();
  // swscale's vector code writes whole groups of pixels, or leaves the last columns out where a row
  // has no room for a group: rows that are no multiple of 32 pixels go through padded ones.
  const bool direct = width_ % 32 == 0;
  cv::Mat rgb;
  if (direct) {
    rgb.create(height_, width_, CV_8UC3);
  } else {
    scratch_.create(height_ + 1, (width_ + 63) / 32 * 32, CV_8UC3);
    rgb = scratch_(cv::Rect(0, 0, width_, height_));
  }
  uint8_t* planes[4] = {rgb.data, nullptr, nullptr, nullptr};
  const int strides[4] = {static_cast<int>(rgb.step), 0, 0, 0};
  if (sws_scale(scaler_.get(), frame_->data, frame_->linesize, 0, height_, planes, strides) !=
      height_) {
    throw Error("a frame could not be converted to RGB", FrameName(), kReencode);
  }

  cv::Mat shown;
  if (orientation_.transpose) {
    cv::transpose(rgb, shown);
  } else {
    shown = direct ? rgb : rgb.clone();
  }
  if (orientation_.mirror_x || orientation_.mirror_y) {
    const int both = -1, around_y = 1, around_x = 0;
    const int code = !orientation_.mirror_y ? around_y : !orientation_.mirror_x ? around_x : both;
    cv::flip(shown, shown, code);
  }
  return shown;
}

// All packets and what their headers say; false if they are not all plain.
bool FrameDecoder::CollectPackets(std::vector<PacketPtr>* packets,
                                  std::vector<PictureHeader>* headers) {
  constexpr int64_t kMostBytes = int64_t{256} << 20;
  const AVCodecParameters* codec = stream_->codecpar;
  if (!ContainerSaysAll() || codec->extradata[0] != 1) return false;
  const int length_size = (codec->extradata[4] & 3) + 1;
  const ParserPtr parser(av_parser_init(codec->codec_id));
  if (!parser) return false;
  parser->flags |= PARSER_FLAG_COMPLETE_FRAMES;
  int64_t bytes = 0;
  for (;;) {
    PacketPtr packet(Allocated(av_packet_alloc()));
    const int code = av_read_frame(input_.get(), packet.get());
    if (code == AVERROR_EOF && file_->error >= 0) return true;
    if (code < 0) return false;
    if (packet->stream_index != stream_->index) continue;
    bytes += packet->size;
    const bool plain = (packet->flags & (AV_PKT_FLAG_CORRUPT | AV_PKT_FLAG_DISCARD)) == 0 &&
                       packet->pts != AV_NOPTS_VALUE && bytes <= kMostBytes;
    PictureHeader header;
    const std::string_view data(reinterpret_cast<const char*>(packet->data),
                                static_cast<size_t>(std::max(packet->size, 0)));
    if (!plain || !ReadPictureKind(data, length_size, &header)) return false;
    uint8_t* unused = nullptr;
    int unused_size = 0;
    av_parser_parse2(parser.get(), codec_.get(), &unused, &unused_size, packet->data, packet->size,
                     packet->pts, packet->dts, packet->pos);
    if (parser->picture_structure != AV_PICTURE_STRUCTURE_FRAME) return false;
    header.order = parser->output_picture_number;
    header.time = packet->pts;
    headers->push_back(header);
    packets->push_back(std::move(packet));
  }
}

// Takes what the decoder has ready; false if it is in trouble.
bool FrameDecoder::ReadPicked(const std::vector<int64_t>& wanted, std::vector<cv::Mat>* picked) {
  for (;;) {
    const int code = avcodec_receive_frame(codec_.get(), frame_.get());
    if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return true;
    if (code < 0) return false;
    CheckFrame();
    ++count_;
    const auto place = std::lower_bound(wanted.begin(), wanted.end(), frame_->pts);
    if (place == wanted.end() || *place != frame_->pts) continue;
    (*picked)[static_cast<size_t>(place - wanted.begin())] = ToRgb();
  }
}

std::vector<cv::Mat> FrameDecoder::PickFrames(const std::vector<int64_t>& wanted, int64_t* frames) {
  std::vector<PacketPtr> packets;
  std::vector<PictureHeader> headers;
  if (!CollectPackets(&packets, &headers)) return {};
  const std::vector<int64_t> numbers = NumberFrames(headers);
  *frames = static_cast<int64_t>(numbers.size());
  if (wanted.back() >= *frames) return {};
  const DecodePlan plan = PlanDecoding(headers, numbers, wanted);
  std::vector<cv::Mat> picked(wanted.size());
  for (size_t i = 0; i < packets.size(); ++i) {
    if (!plan.decode[i]) continue;
    if (plan.first_of_run[i]) {
      avcodec_send_packet(codec_.get(), nullptr);
      if (!ReadPicked(wanted, &picked)) return {};
      avcodec_flush_buffers(codec_.get());
    }
    packets[i]->pts = numbers[i];  // the decoder hands it on to the frame
    if (avcodec_send_packet(codec_.get(), packets[i].get()) < 0) return {};
    if (!ReadPicked(wanted, &picked)) return {};
  }
  avcodec_send_packet(codec_.get(), nullptr);
  if (!ReadPicked(wanted, &picked)) return {};
  const bool complete = std::none_of(picked.begin(), picked.end(),
                                     [](const cv::Mat& frame) { return frame.empty(); });
  return complete ? picked : std::vector<cv::Mat>();
}

cv::Mat FrameDecoder::Frame(int64_t number) {
  while (count_ <= number) {
    if (Next() != nullptr) continue;
    throw Error("video has only " + std::to_string(count_) + " frames",
                path_ + ", frame " + std::to_string(number),
                "make the annotation's total_frames agree with the video");
  }
  return ToRgb();
}

}  // namespace

VideoInfo ProbeVideo(const std::string& path) {
  FrameDecoder decoder(path);
  decoder.SkipLoopFilter();
  while (decoder.Next() != nullptr) {
  }
  if (decoder.count() == 0) {
    throw Error("video stream holds no frame that can be decoded", path, kReencode);
  }
  VideoInfo info;
  info.frames = decoder.count();
  info.width = decoder.shown_width();
  info.height = decoder.shown_height();
  info.fps = decoder.fps();
  return info;
}

namespace {

std::vector<int64_t> Distinct(const std::string& path, std::vector<int64_t> numbers) {
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  if (!numbers.empty() && numbers.front() < 0) {
    throw Error("frame numbers start at 0", path + ", frame " + std::to_string(numbers.front()));
  }
  return numbers;
}

// A frame of `distinct` for each of `numbers`.
std::vector<cv::Mat> InOrder(const std::vector<int64_t>& numbers,
                             const std::vector<int64_t>& distinct,
                             const std::vector<cv::Mat>& decoded) {
  std::vector<cv::Mat> frames;
  frames.reserve(numbers.size());
  for (const int64_t number : numbers) {
    const auto place = std::lower_bound(distinct.begin(), distinct.end(), number);
    frames.push_back(decoded[static_cast<size_t>(place - distinct.begin())]);
  }
  return frames;
}

// PickFrames() of a decoder of its own. Whatever is wrong with the video is found out, and told
// with the frame's number, by decoding it from the beginning.
std::vector<cv::Mat> TryPicking(const std::string& path, const std::vector<int64_t>& wanted,
                                int64_t least_frames) {
  try {
    FrameDecoder decoder(path);
    int64_t frames = 0;
    std::vector<cv::Mat> picked = decoder.PickFrames(wanted, &frames);
    if (frames >= least_frames) return picked;
  } catch (const ResourceError&) {
    throw;
  } catch (const Error&) {
  }
  return {};
}

std::vector<cv::Mat> DecodeFromStart(const std::string& path, const std::vector<int64_t>& wanted,
                                     int64_t least_frames) {
  FrameDecoder decoder(path);
  std::vector<cv::Mat> decoded;
  decoded.reserve(wanted.size());
  for (const int64_t number : wanted) decoded.push_back(decoder.Frame(number));
  if (decoder.count() < least_frames) decoder.Frame(least_frames - 1);
  return decoded;
}

}  // namespace

std::vector<cv::Mat> DecodeFrames(const std::string& path, const std::vector<int64_t>& numbers,
                                  int64_t least_frames) {
  const std::vector<int64_t> wanted = Distinct(path, numbers);
  std::vector<cv::Mat> decoded;
  if (!wanted.empty()) decoded = TryPicking(path, wanted, least_frames);
  if (decoded.empty()) decoded = DecodeFromStart(path, wanted, least_frames);
  return InOrder(numbers, wanted, decoded);
}

std::vector<cv::Mat> DecodeFramesFromStart(const std::string& path,
                                           const std::vector<int64_t>& numbers,
                                           int64_t least_frames) {
  const std::vector<int64_t> wanted = Distinct(path, numbers);
  return InOrder(numbers, wanted, DecodeFromStart(path, wanted, least_frames));
}

void VisitFrames(const std::string& path, int64_t first, int64_t count,
                 const std::function<void(const cv::Mat& rgb)>& visit) {
  if (first < 0) throw Error("frame numbers start at 0", path + ", frame " + std::to_string(first));
  FrameDecoder decoder(path);
  for (int64_t number = first; number < first + count; ++number) visit(decoder.Frame(number));
}

}  // namespace kinefit
